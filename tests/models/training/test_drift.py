"""Drift: stability indices by hand, and generated streams that change in a single way at a time."""

import numpy as np
import pandas as pd
import pytest

from models.data.interactions import Interactions
from models.recommenders.popularity import Popularity
from models.training import drift
from models.training.drift import Drift, DriftLimits

HOUR = 3_600_000


def stream(n: int, seed: int, start: int = 0, **change: object) -> pd.DataFrame:
    """`n` events, one per minute, of 100 users over 50 items of five categories."""
    rng = np.random.default_rng(seed)
    items = np.minimum(rng.geometric(0.1, n) - 1, 49) + int(change.get("shift", 0))  # type: ignore[call-overload]
    kinds = rng.choice(["view", "purchase"], n, p=change.get("kinds", [0.8, 0.2]))  # type: ignore[call-overload]
    return pd.DataFrame(
        {
            "user_id": [f"u{user}" for user in rng.integers(0, 100, n)],
            "item_id": [f"i{item}" for item in items],
            "kind": kinds,
            "value": None,
            "at": start + 60_000 * np.arange(n),
            "category": [f"c{item % 5}" for item in items],
        }
    )


def test_the_stability_index_matches_its_formula() -> None:
    then, now = {"a": 5_000, "b": 5_000}, {"a": 7_000, "b": 3_000}
    expected = 0.2 * np.log(0.7 / 0.5) - 0.2 * np.log(0.3 / 0.5)  # 0.1695
    assert drift.stability_index(then, now) == pytest.approx(expected, abs=1e-3)
    assert drift.stability_index(then, then) == 0.0
    assert drift.stability_index({"a": 100}, {"b": 100}) > 5
    assert drift.stability_index({}, {"a": 1}) == 0.0


def test_event_bins_depend_on_the_users_history() -> None:
    rows = [("u", 0), ("v", 1_000), ("u", 2_000), ("u", 2_000 + HOUR)]
    frame = pd.DataFrame([(user, "i", "view", at) for user, at in rows], columns=["user_id", "item_id", "kind", "at"])
    bins = drift.bin_events(frame)
    assert bins["history"].tolist() == ["0+", "0+", "1+", "1+"]  # 2 events are in the bin of 1 and 2
    assert bins["gap"].tolist() == ["first", "first", "0s+", "1023s+"]
    assert bins["category"].tolist() == ["none"] * 4


def compared(change: pd.DataFrame) -> dict[str, float]:
    old = stream(20_000, 0)
    reference = drift.reference_of(old)
    assert (reference.events, reference.until_at) == (2_000, 60_000 * 19_999)
    whole = pd.concat([old, change], ignore_index=True)
    events, index = drift.compare(whole, reference)
    assert events == len(change)
    return index


def test_unchanged_events_are_not_drift() -> None:
    index = compared(stream(2_000, 1, start=60_000 * 20_000))
    assert set(index) == set(drift.FEATURES)
    assert max(index.values()) < 0.05


def test_drift_names_the_feature_that_changed() -> None:
    after = 60_000 * 20_000
    kinds = compared(stream(2_000, 1, after, kinds=[0.3, 0.7]))
    assert kinds["kind"] > 0.25 > max(kinds[feature] for feature in ("category", "item", "gap"))
    items = compared(stream(2_000, 1, after, shift=200))
    assert items["item"] > 0.25 > max(items["kind"], items["gap"])
    users = compared(stream(2_000, 1, after).assign(user_id=[f"new{n % 900}" for n in range(2_000)]))
    assert min(users["history"], users["gap"]) > 0.25 > max(users["kind"], users["item"])


def test_drift_reasons_need_enough_events_and_significance() -> None:
    seen = Drift(2_000, {"kind": 0.3, "gap": 0.1}, 0.10, 0.20, 500)
    assert drift.with_reasons(seen, DriftLimits()).reasons == ["kind", "hit-rate"]
    assert drift.with_reasons(Drift(999, {"kind": 9.0}), DriftLimits()).reasons == []
    assert drift.with_reasons(Drift(2_000, {}, 0.17, 0.20, 500), DriftLimits()).reasons == []  # less than a fifth
    assert (
        drift.with_reasons(Drift(2_000, {}, 0.10, 0.20, 20), DriftLimits()).reasons == []
    )  # .10 of 20 may well be .20
    assert drift.with_reasons(Drift(2_000, {}, None, 0.20), DriftLimits()).reasons == []


def test_next_event_cases_contain_only_earlier_events() -> None:
    frame = stream(3_000, 0)
    cases = drift.next_event_cases(frame, 60_000 * 2_900, np.random.default_rng(0), most=40)
    assert 35 <= len(cases) <= 40
    for case in cases:
        own = frame[(frame["user_id"] == case.user_id) & (frame["at"] < case.at)]
        assert case.at >= 60_000 * 2_900
        assert case.history.items == own["item_id"].tolist()[-50:]
        assert case.targets == frame[frame["at"] == case.at]["item_id"].tolist()
        assert case.seen == frozenset(own["item_id"])


def test_the_hit_rate_is_the_share_of_next_items_in_the_top_ten() -> None:
    frame = stream(3_000, 0)
    popular = Popularity(Popularity.Params(half_life_ms=None))
    popular.fit(Interactions.from_frame(frame))
    cases = drift.next_event_cases(frame, 60_000 * 2_000, np.random.default_rng(0))
    weights = frame["kind"].map({"view": 0.3, "purchase": 1.0})
    top = weights.groupby(frame["item_id"]).sum().sort_values(ascending=False).index[:10]
    expected = np.mean([case.targets[0] in set(top) for case in cases])
    assert drift.hit_rate(popular, cases, mask_seen=False) == pytest.approx(expected)
