"""Popularity rows: by hand, and against a slow sum over all events."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.activity import LoggedEvent
from features.decay import rescale, value_at, weight
from features.popularity import (
    EVENT_IDS,
    EVERYONE,
    PartitionPopularity,
    PopularitySettings,
    apply,
    merge,
    most_popular,
    outdated_domains,
)
from stream.events import Interaction

DAY = 24 * 60 * 60 * 1000
NOON = 1_760_000_000_000
SETTINGS = PopularitySettings()
HOUR = 60 * 60 * 1000
FAST = PopularitySettings(half_life_ms=HOUR, kinds={"view": 1.0, "click": 2.0}, least=2.0**-10)
BY_DOMAIN = {"shop": SETTINGS, "news": FAST}


def taken(number: int, item: str, kind: str = "view", at: int = NOON, **more: str) -> Interaction:
    return Interaction(event_id=f"e{number}", user_id="u", item_id=item, kind=kind, at=at, **more)  # type: ignore[arg-type]


def logged(*events: Interaction, partition: str = "events/0") -> list[LoggedEvent]:
    return [LoggedEvent(event, partition, number) for number, event in enumerate(events)]


def now(row: PartitionPopularity, item: str, at: int = NOON, segment: str = EVERYONE) -> float:
    counts = row.domains["shop"]
    return value_at(counts.segments[segment][item], counts.landmark, at, SETTINGS.half_life_ms)


def test_kinds_weigh_and_a_week_halves() -> None:
    row = apply(None, logged(taken(1, "a", "purchase"), taken(2, "a"), taken(3, "b", at=NOON + 7 * DAY)), BY_DOMAIN)
    assert now(row, "a", NOON + 7 * DAY) == pytest.approx(2.5)
    assert now(row, "b", NOON + 7 * DAY) == pytest.approx(1.0)


def test_a_segment_has_a_list_of_its_own() -> None:
    row = apply(None, logged(taken(1, "a", segment="old"), taken(2, "b")), BY_DOMAIN)
    assert set(row.domains["shop"].segments[EVERYONE]) == {"a", "b"}
    assert set(row.domains["shop"].segments["old"]) == {"a"}


def test_what_says_nothing_for_an_item_is_not_counted() -> None:
    assert apply(None, logged(taken(1, "a", "skip"), taken(2, "a", "dislike")), BY_DOMAIN).domains == {}


def test_sent_twice_counts_once_and_a_replay_changes_nothing() -> None:
    log = logged(taken(1, "a"), taken(1, "a"), taken(2, "a"))
    row = apply(None, log, BY_DOMAIN)
    assert now(row, "a") == pytest.approx(2)
    before = msgspec.json.encode(row)
    assert msgspec.json.encode(apply(row, log, BY_DOMAIN)) == before


def test_users_may_use_the_same_event_ids() -> None:
    other = Interaction(event_id="e1", user_id="v", item_id="a", kind="view", at=NOON)
    row = apply(None, logged(taken(1, "a"), other, msgspec.structs.replace(other, domain="news")), BY_DOMAIN)
    assert now(row, "a") == pytest.approx(2)
    assert set(row.domains["news"].segments[EVERYONE]) == {"a"}


def test_a_long_import_does_not_make_an_event_that_is_sent_again_count_twice() -> None:
    live = logged(taken(1, "a"))
    past = [LoggedEvent(taken(n, "b", at=NOON - 60 * DAY), "events/0", n, backfill=True) for n in range(10, 2_010)]
    again = [LoggedEvent(taken(1, "a"), "events/0", 3_000), LoggedEvent(past[-1].event, "events/0", 3_001, True)]
    row = apply(None, [*live, *past, *again], BY_DOMAIN)
    assert now(row, "a") == pytest.approx(1)
    assert now(row, "b") == pytest.approx(2_000 * 2 ** (-60 / 7))
    assert len(row.event_ids) == 1
    assert EVENT_IDS <= len(row.backfilled_ids) < 2 * EVENT_IDS


def test_the_sum_over_partitions_meets_at_the_newest_landmark() -> None:
    rows = [
        apply(None, logged(taken(1, "a", at=NOON - 21 * DAY)), BY_DOMAIN),
        apply(None, logged(taken(2, "a"), partition="events/1"), BY_DOMAIN),
    ]
    assert now(merge(rows), "a") == pytest.approx(1.125)


def test_top_keeps_the_most_popular() -> None:
    row = apply(None, logged(taken(1, "a"), taken(2, "b"), taken(3, "b"), taken(4, "c", "purchase")), BY_DOMAIN)
    assert list(most_popular(row, 2).domains["shop"].segments[EVERYONE]) == ["c", "b"]


def test_live_counts_have_half_lives_of_their_own() -> None:
    """A week and 30 days; after 30 days the first is worth 2^(-30/7), the second a half."""
    settings = {"shop": PopularitySettings(live_ms=(DAY, 30 * DAY))}
    row = apply(None, logged(taken(1, "old", at=NOON - 30 * DAY), taken(2, "new", "purchase")), settings)
    live = row.domains["shop"].live
    counts = {
        half: {item: value_at(sum_, each.landmark, NOON, half) for item, sum_ in each.items.items()}
        for half, each in live.items()
    }
    assert counts[DAY] == pytest.approx({"old": 2.0**-30, "new": 4.0})
    assert counts[30 * DAY] == pytest.approx({"old": 0.5, "new": 4.0})
    total = merge([row, apply(None, logged(taken(3, "old", at=NOON - 60 * DAY), partition="events/1"), settings)])
    month = total.domains["shop"].live[30 * DAY]
    assert value_at(month.items["old"], month.landmark, NOON, 30 * DAY) == pytest.approx(0.75)
    assert list(most_popular(row, 1).domains["shop"].live[30 * DAY].items) == ["new"]
    assert outdated_domains(row, {}) == ["shop"]


def test_each_domain_counts_by_its_own_rules() -> None:
    news = [taken(1, "n1", at=NOON, domain="news"), taken(2, "n2", "click", at=NOON + 3 * HOUR, domain="news")]
    row = apply(None, logged(*news, taken(3, "a", at=NOON + 3 * HOUR), taken(4, "b", "cart", domain="news")), BY_DOMAIN)
    kept = row.domains["news"]
    counts = {
        item: value_at(sum_, kept.landmark, NOON + 3 * HOUR, HOUR) for item, sum_ in kept.segments[EVERYONE].items()
    }
    assert counts == pytest.approx({"n1": 1 / 8, "n2": 2.0})  # three half-lives; a cart is nothing in this domain
    assert now(row, "a", NOON + 3 * HOUR) == pytest.approx(1.0)  # the shop's landmark is not moved by news
    assert merge([row, row]).domains["news"].segments[EVERYONE]["n2"] == 2 * kept.segments[EVERYONE]["n2"]


def test_what_nobody_takes_any_more_is_let_go() -> None:
    events = [taken(1, "old", at=NOON, domain="news"), taken(2, "new", at=NOON + 12 * HOUR, domain="news")]
    late = taken(3, "late", at=NOON - 12 * HOUR, domain="news")
    assert set(apply(None, logged(*events, late), BY_DOMAIN).domains["news"].segments[EVERYONE]) == {"new"}


def test_counts_of_other_rules_are_known_as_such() -> None:
    row = apply(None, logged(taken(1, "a"), taken(2, "n", domain="news")), BY_DOMAIN)
    assert outdated_domains(row, BY_DOMAIN) == []
    assert outdated_domains(row, {**BY_DOMAIN, "news": PopularitySettings(half_life_ms=2 * HOUR)}) == ["news"]
    assert outdated_domains(row, {"news": FAST}) == []  # a domain without settings has the default


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
def test_it_is_the_slow_sum_however_it_is_cut(events: list[Interaction], cut: int) -> None:
    log = logged(*events)
    row = apply(apply(None, log[:cut], BY_DOMAIN), log[cut:], BY_DOMAIN)
    assert msgspec.json.encode(row) == msgspec.json.encode(apply(None, log, BY_DOMAIN))
    for item in "abc":
        slow = sum(
            SETTINGS.kinds.get(event.kind, 0) * 2 ** ((event.at - NOON) / (7 * DAY))
            for event in events
            if event.item_id == item
        )
        shop = row.domains.get("shop")
        counted = shop.segments[EVERYONE].get(item) if shop is not None else None
        assert slow == pytest.approx(now(row, item) if counted is not None else 0.0)


@given(st.floats(1e-3, 1e6), st.integers(0, 40), st.integers(0, 40))
def test_moving_a_landmark_is_exact(total: float, first: int, second: int) -> None:
    assert rescale(rescale(total, first, second), second, first) == total


def test_the_weight_at_a_landmark_doubles_in_a_half_life() -> None:
    assert weight(10 * DAY, 3, DAY) == 2**7
