"""Popularity rows: by hand, and against a slow sum over all events."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.activity import Logged
from features.decay import rescale, value_at, weight
from features.popularity import EVERYONE, Popularity, PopularityRules, apply, merge, top
from stream.events import Interaction

DAY = 24 * 60 * 60 * 1000
NOON = 1_760_000_000_000
RULES = PopularityRules()


def taken(number: int, item: str, kind: str = "view", at: int = NOON, **more: str) -> Interaction:
    return Interaction(event_id=f"e{number}", user_id="u", item_id=item, kind=kind, at=at, **more)  # type: ignore[arg-type]


def logged(*events: Interaction, partition: str = "events/0") -> list[Logged]:
    return [Logged(event, partition, number) for number, event in enumerate(events)]


def now(row: Popularity, item: str, at: int = NOON, segment: str = EVERYONE) -> float:
    return value_at(row.counts["shop"][segment][item], row.landmark, at, RULES.half_life_ms)


def test_kinds_weigh_and_a_week_halves() -> None:
    row = apply(None, logged(taken(1, "a", "purchase"), taken(2, "a"), taken(3, "b", at=NOON + 7 * DAY)), RULES)
    assert now(row, "a", NOON + 7 * DAY) == pytest.approx(2.5)
    assert now(row, "b", NOON + 7 * DAY) == pytest.approx(1.0)


def test_a_segment_has_a_list_of_its_own() -> None:
    row = apply(None, logged(taken(1, "a", segment="old"), taken(2, "b")), RULES)
    assert set(row.counts["shop"][EVERYONE]) == {"a", "b"}
    assert set(row.counts["shop"]["old"]) == {"a"}


def test_what_says_nothing_for_an_item_is_not_counted() -> None:
    assert apply(None, logged(taken(1, "a", "skip"), taken(2, "a", "dislike")), RULES).counts == {}


def test_sent_twice_counts_once_and_a_replay_changes_nothing() -> None:
    log = logged(taken(1, "a"), taken(1, "a"), taken(2, "a"))
    row = apply(None, log, RULES)
    assert now(row, "a") == pytest.approx(2)
    before = msgspec.json.encode(row)
    assert msgspec.json.encode(apply(row, log, RULES)) == before


def test_the_sum_over_partitions_meets_at_the_newest_landmark() -> None:
    rows = [
        apply(None, logged(taken(1, "a", at=NOON - 21 * DAY)), RULES),
        apply(None, logged(taken(2, "a"), partition="events/1"), RULES),
    ]
    assert now(merge(rows), "a") == pytest.approx(1.125)


def test_top_keeps_the_most_popular() -> None:
    row = apply(None, logged(taken(1, "a"), taken(2, "b"), taken(3, "b"), taken(4, "c", "purchase")), RULES)
    assert list(top(row, 2).counts["shop"][EVERYONE]) == ["c", "b"]


events = st.builds(
    Interaction,
    event_id=st.uuids().map(str),
    user_id=st.just("u"),
    item_id=st.sampled_from("abc"),
    kind=st.sampled_from(["view", "cart", "purchase", "skip"]),
    at=st.integers(NOON - 60 * DAY, NOON),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(events, max_size=30), st.integers(0, 30))
def test_it_is_the_slow_sum_however_it_is_cut(found: list[Interaction], cut: int) -> None:
    log = logged(*found)
    row = apply(apply(None, log[:cut], RULES), log[cut:], RULES)
    assert msgspec.json.encode(row) == msgspec.json.encode(apply(None, log, RULES))
    for item in "abc":
        slow = sum(
            RULES.kinds.get(one.kind, 0) * 2 ** ((one.at - NOON) / (7 * DAY)) for one in found if one.item_id == item
        )
        counted = row.counts.get("shop", {}).get(EVERYONE, {}).get(item)
        assert slow == pytest.approx(now(row, item) if counted is not None else 0.0)


@given(st.floats(1e-3, 1e6), st.integers(0, 40), st.integers(0, 40))
def test_moving_a_landmark_is_exact(total: float, first: int, second: int) -> None:
    assert rescale(rescale(total, first, second), second, first) == total


def test_the_weight_at_a_landmark_doubles_in_a_half_life() -> None:
    assert weight(10 * DAY, 3, DAY) == 2**7
