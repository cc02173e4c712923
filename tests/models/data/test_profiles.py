"""Profiles and moments as numbers: what training learns to read, and what was known when."""

import msgspec
import numpy as np
import pandas as pd

from models.data.interactions import Log
from models.data.profiles import Field, Fields, Profiles, moments_of
from stream.events import User

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
    fields = Fields.fit(people())  # type: ignore[arg-type]
    assert [one.name for one in fields.fields] == ["age", "city", "gender"]
    age, city, gender = fields.fields
    assert city.values == ("Rome",)  # Ghent is of four users: it would say who they are
    assert gender.values == ("f", "m")
    assert len(age.edges) == 9
    assert abs(age.edges[4] - 39.5) < 1e-9  # the median of 20 to 59
    codes = fields.codes(
        [{"gender": "m", "age": 20, "city": "Rome"}, {"age": "59", "city": "Ghent", "gender": "x"}, None, {}]
    )
    np.testing.assert_array_equal(codes, [[1, 1, 2], [10, 0, 0], [0, 0, 0], [0, 0, 0]])
    assert fields.codes([{"age": None}, {"age": "old"}, {"age": [20]}]).sum() == 0
    assert len(fields.rows) == len(set(fields.rows)) == 11 + 2 + 3
    np.testing.assert_array_equal(fields.offsets, [0, 11, 13])


def test_fields_are_the_same_after_json() -> None:
    fields = Fields.fit(people())  # type: ignore[arg-type]
    again = Fields.of(msgspec.json.decode(msgspec.json.encode(fields.describe())))
    assert again.fields == fields.fields
    assert Fields.of([]).codes([{"a": 1}]).shape == (1, 0)


def test_few_numbers_and_truths_are_names() -> None:
    field = Fields.fit([{"children": n % 3, "member": n % 2 == 0} for n in range(30)]).fields
    assert field == (Field("children", ("0", "1", "2")), Field("member", ("False", "True")))
    assert [field[0].code(one) for one in (2, 2.0, "2", 3, True)] == [3, 3, 3, 0, 0]
    assert field[1].code(True) == 2


def test_a_profile_is_what_was_known_before() -> None:
    words = [User("ann", 200, attributes={"plan": "gold"}), User("ann", 100, segment="new")]
    known = Profiles.of(words)
    assert known.at("ann", 100) is None
    assert known.at("ann", 101) == {"segment": "new"}
    assert known.at("ann", 200) == {"segment": "new"}
    assert known.at("ann", 10**15) == {"plan": "gold"}
    assert known.at("bob", 10**15) is None


def test_each_event_of_a_log_has_the_profile_that_was_known_before_it() -> None:
    """Six users turn from free to paid at 50; what is said at 1,000 is said after the log's end."""
    users = [f"u{n}" for n in range(6)]
    words = [User(user, at, attributes={"plan": plan}) for user in users for at, plan in ((10, "free"), (50, "paid"))]
    words += [User(user, 1_000, attributes={"plan": "gone"}) for user in users]
    rows = [(user, "a", "view", at) for at in (10, 11, 50, 51) for user in [*users, "nobody"]]
    log = Log.of(pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "at"]), profiles=Profiles.of(words))
    assert log.known is not None
    assert log.known.fields.fields == (Field("plan", ("paid",)),)
    codes = log.known.table[log.known.rows][:, 0]
    for user in range(6):
        assert codes[log.users == user].tolist() == [0, 0, 0, 1]  # free was nobody's newest word: it is not told apart
    assert codes[log.users == 6].tolist() == [0, 0, 0, 0]
    earlier = Log.of(pd.DataFrame(rows[:21], columns=["user_id", "item_id", "kind", "at"]), profiles=Profiles.of(words))
    assert earlier.known is not None
    assert earlier.known.fields.fields == (Field("plan", ("free",)),)


def test_moments_are_hours_and_weekdays_in_utc() -> None:
    at = pd.to_datetime(["1970-01-01T05:30Z", "2025-10-05T23:59Z", "2025-10-06T00:00Z"], format="ISO8601")
    found = moments_of(np.array([*(at.astype("int64") // 10**6), 0], np.int64))
    np.testing.assert_array_equal(found, [[6, 4], [24, 7], [1, 1], [0, 0]])  # a Thursday, a Sunday, a Monday, unknown
