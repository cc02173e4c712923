"""Profiles and moments as numbers: what training learns to read, and what was known when."""

import msgspec
import numpy as np
import pandas as pd

from features.catalogue import UserProfile
from models.data.interactions import Interactions
from models.data.profiles import Attribute, ProfileHistory, ProfileSchema, time_features

NOON = 1_760_000_000_000


def people() -> list[dict[str, object]]:
    """40 users: half m, half f; a rare city; ages 20 to 59; the segment says again what `gender` says."""
    return [
        {
            "gender": "m" if n % 2 else "f",
            "age": 20 + n,
            "city": "Ghent" if n < 4 else "Rome",
            "likes": ["tea"],
            "empty": "",
            "segment": "m" if n % 2 else "f",
        }
        for n in range(40)
    ]


def test_names_of_enough_users_and_numbers_by_quantiles_are_read() -> None:
    fields = ProfileSchema.fit(people())  # type: ignore[arg-type]
    assert [attribute.name for attribute in fields.attributes] == ["age", "city", "gender"]
    age, city, gender = fields.attributes
    assert city.values == ("Rome",)  # Ghent is of four users: it would say who they are
    assert gender.values == ("f", "m")
    assert len(age.edges) == 9
    assert abs(age.edges[4] - 39.5) < 1e-9  # the median of 20 to 59
    codes = fields.encode(
        [{"gender": "m", "age": 20, "city": "Rome"}, {"age": "59", "city": "Ghent", "gender": "x"}, None, {}]
    )
    np.testing.assert_array_equal(codes, [[1, 1, 2], [10, 0, 0], [0, 0, 0], [0, 0, 0]])
    assert fields.encode([{"age": None}, {"age": "old"}, {"age": [20]}]).sum() == 0
    assert len(fields.labels) == len(set(fields.labels)) == 11 + 2 + 3
    np.testing.assert_array_equal(fields.offsets, [0, 11, 13])


def test_fields_are_the_same_after_json() -> None:
    fields = ProfileSchema.fit(people())  # type: ignore[arg-type]
    again = ProfileSchema.from_json(msgspec.json.decode(msgspec.json.encode(fields.to_json())))
    assert again.attributes == fields.attributes
    assert ProfileSchema.from_json([]).encode([{"a": 1}]).shape == (1, 0)


def test_few_numbers_and_truths_are_names() -> None:
    field = ProfileSchema.fit([{"children": n % 3, "member": n % 2 == 0} for n in range(30)]).attributes
    assert field == (Attribute("children", ("0", "1", "2")), Attribute("member", ("False", "True")))
    assert [field[0].code(value) for value in (2, 2.0, "2", 3, True)] == [3, 3, 3, 0, 0]
    assert field[1].code(True) == 2


def test_a_profile_is_what_was_known_before() -> None:
    words = [UserProfile("ann", 200, attributes={"plan": "gold"}), UserProfile("ann", 100, segment="new")]
    known = ProfileHistory.from_users(words)
    assert known.before("ann", 100) is None
    assert known.before("ann", 101) == {"segment": "new"}
    assert known.before("ann", 200) == {"segment": "new"}
    assert known.before("ann", 10**15) == {"plan": "gold"}
    assert known.before("bob", 10**15) is None


def test_each_event_of_a_log_has_the_profile_that_was_known_before_it() -> None:
    """Six users turn from free to paid at 50; what is said at 1,000 is said after the log's end."""
    users = [f"u{n}" for n in range(6)]
    words = [
        UserProfile(user, at, attributes={"plan": plan}) for user in users for at, plan in ((10, "free"), (50, "paid"))
    ]
    words += [UserProfile(user, 1_000, attributes={"plan": "gone"}) for user in users]
    rows = [(user, "a", "view", at) for at in (10, 11, 50, 51) for user in [*users, "nobody"]]
    log = Interactions.from_frame(
        pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "at"]), profiles=ProfileHistory.from_users(words)
    )
    assert log.profiles is not None
    assert log.profiles.schema.attributes == (Attribute("plan", ("paid",)),)
    codes = log.profiles.table[log.profiles.rows][:, 0]
    for user in range(6):
        assert codes[log.users == user].tolist() == [0, 0, 0, 1]  # free was nobody's newest word: it is not told apart
    assert codes[log.users == 6].tolist() == [0, 0, 0, 0]
    earlier = Interactions.from_frame(
        pd.DataFrame(rows[:21], columns=["user_id", "item_id", "kind", "at"]), profiles=ProfileHistory.from_users(words)
    )
    assert earlier.profiles is not None
    assert earlier.profiles.schema.attributes == (Attribute("plan", ("free",)),)


def test_moments_are_hours_and_weekdays_in_utc() -> None:
    at = pd.to_datetime(["1970-01-01T05:30Z", "2025-10-05T23:59Z", "2025-10-06T00:00Z"], format="ISO8601")
    features = time_features(np.array([*(at.astype("int64") // 10**6), 0], np.int64))
    np.testing.assert_array_equal(features, [[6, 4], [24, 7], [1, 1], [0, 0]])  # Thursday, Sunday, Monday, unknown
