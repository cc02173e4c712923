"""Lists and what became of them: by hand; and a row that comes back is the row that never went."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from features.activity import LoggedEvent
from features.outcomes import (
    GROUPS,
    BufferDelta,
    ImpressionCounts,
    JoinBuffer,
    JoinWindow,
    PartitionOutcomes,
    add,
    apply,
    encoded,
    group_of,
    merge,
)
from stream.events import Event, Impression, Interaction

NOON = 1_760_000_000_000
WINDOW = JoinWindow(ms=60_000)


def shown(key: str, *items: str, user: str = "u", release: str | None = "r1", at: int = NOON) -> Impression:
    return Impression(event_id=f"s-{key}", user_id=user, item_ids=list(items), at=at, release=release, request_id=key)


def taken(item: str, user: str = "u", kind: str = "click", at: int = NOON + 1_000, **context: str) -> Interaction:
    return Interaction(event_id="t", user_id=user, item_id=item, kind=kind, at=at, context=context)  # type: ignore[arg-type]


def logged(*events: Event) -> list[LoggedEvent]:
    return [LoggedEvent(event, "events/0", number) for number, event in enumerate(events)]


def outcome(*events: Event, window: JoinWindow = WINDOW) -> dict[str, tuple[int, int]]:
    """Lists and clicked lists by release."""
    row = PartitionOutcomes()
    apply(row, JoinBuffer(window), logged(*events))
    return {name: (sum(counts.impressions), sum(counts.clicks)) for name, counts in row.counts.get("shop", {}).items()}


def test_a_list_is_clicked_once_however_many_of_its_items_are_taken() -> None:
    assert outcome(shown("a", "x", "y"), taken("x"), taken("x", kind="purchase"), taken("y")) == {"r1": (1, 1)}


def test_only_a_take_of_a_shown_item_by_its_user_within_the_window_counts() -> None:
    assert outcome(shown("a", "x"), taken("z")) == {"r1": (1, 0)}
    assert outcome(shown("a", "x"), taken("x", user="v")) == {"r1": (1, 0)}
    assert outcome(shown("a", "x"), taken("x", kind="view")) == {"r1": (1, 0)}
    assert outcome(shown("a", "x"), taken("x", at=NOON + 60_000)) == {"r1": (1, 1)}
    assert outcome(shown("a", "x"), taken("x", at=NOON + 60_001)) == {"r1": (1, 0)}
    assert outcome(shown("a", "x"), taken("x", at=NOON - 1)) == {"r1": (1, 0)}
    assert outcome(taken("x"), shown("a", "x", release=None), taken("x")) == {}


def test_the_newest_list_is_clicked_unless_the_click_names_another() -> None:
    both = (shown("a", "x"), shown("b", "x", release="r2"))
    assert outcome(*both, taken("x")) == {"r1": (1, 0), "r2": (1, 1)}
    assert outcome(*both, taken("x", request_id="a")) == {"r1": (1, 1), "r2": (1, 0)}


def test_a_list_that_is_sent_twice_counts_once() -> None:
    assert outcome(shown("a", "x"), taken("x"), shown("a", "x"), taken("x")) == {"r1": (1, 1)}


def test_where_memory_ends_the_oldest_list_is_forgotten() -> None:
    small = JoinWindow(ms=60_000, lists=1)
    assert outcome(shown("a", "x"), shown("b", "y"), taken("x"), window=small) == {"r1": (2, 0)}


def test_users_stay_in_their_group() -> None:
    row = PartitionOutcomes()
    apply(
        row,
        JoinBuffer(WINDOW),
        logged(shown("a", "x", user="ann"), shown("b", "x", user="ann"), taken("x", user="ann")),
    )
    counts = row.counts["shop"]["r1"]
    assert (counts.impressions[group_of("ann")], counts.clicks[group_of("ann")]) == (2, 1)
    assert (len(counts.impressions), sum(counts.impressions)) == (GROUPS, 2)
    assert list(counts.hours.values()) == [(2, 1)]


def test_names_that_a_client_makes_up_do_not_push_out_those_that_serve() -> None:
    invented = [shown(f"k{n}", "x", release=f"invented-{n}") for n in range(40)]
    counts = outcome(shown("a", "x"), *invented)
    assert counts["r1"] == (1, 0)
    assert len(counts) == 30


def test_what_came_since() -> None:
    before = ImpressionCounts([1] * GROUPS, [0] * GROUPS, {0: (GROUPS, 0)}, 5)
    now = ImpressionCounts([3] * GROUPS, [1] * GROUPS, {0: (3 * GROUPS, GROUPS)}, 9)
    since = add(now, before, -1)
    assert (since.impressions, since.clicks, since.hours) == ([2] * GROUPS, [1] * GROUPS, {0: (2 * GROUPS, GROUPS)})


EVENTS = st.lists(
    st.one_of(
        st.builds(
            lambda key, user, item, late: shown(str(key), f"i{item}", "x", user=f"u{user}", at=NOON + 1_000 * late),
            *(st.integers(0, 30), st.integers(0, 3), st.integers(0, 3), st.integers(0, 300)),
        ),
        st.builds(
            lambda user, item, late: taken(f"i{item}", user=f"u{user}", at=NOON + 1_000 * late),
            *(st.integers(0, 3), st.integers(0, 3), st.integers(0, 300)),
        ),
    ),
    max_size=60,
)


@given(EVENTS, st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=200, deadline=None)
def test_a_restart_from_rows_and_deltas_changes_nothing(events: list[Event], start: int, crash: int, back: int) -> None:
    """The row of `first` events was kept, more came before the crash, and the log is read again from further back."""
    first, crashed = sorted((min(start, len(events)), min(crash, len(events))))
    log = logged(*events)
    whole = PartitionOutcomes()
    apply(whole, JoinBuffer(WINDOW), log)
    row, waiting = PartitionOutcomes(), JoinBuffer(WINDOW)
    apply(row, waiting, log[:first])
    deltas = [msgspec.json.encode(delta) for delta in waiting.changes(row.position)]
    kept = msgspec.json.encode(row)
    apply(row, waiting, log[first:crashed])
    deltas += [msgspec.json.encode(delta) for delta in waiting.changes(row.position)]  # written, its row was not
    again, later = msgspec.json.decode(kept, type=PartitionOutcomes), JoinBuffer(WINDOW)
    for raw in deltas:
        delta = msgspec.json.decode(raw, type=BufferDelta)
        if delta.through <= again.position:
            later.follow(delta)
    apply(again, later, log[max(0, first - back) :])
    assert msgspec.json.encode(again.counts) == msgspec.json.encode(whole.counts)
    assert merge([again]).keys() == whole.counts.keys()


def test_a_row_that_would_not_fit_a_message_loses_what_was_shown_longest_ago() -> None:
    rows = {f"r{age}": ImpressionCounts(last_at=NOON - age) for age in range(10)}
    row = PartitionOutcomes(7, NOON, {"shop": rows, "news": {"old": ImpressionCounts(last_at=NOON - 99)}})
    whole = msgspec.json.encode(row)
    assert encoded(row) == whole
    value = encoded(row, len(whole) // 2)
    kept = msgspec.json.decode(value, type=PartitionOutcomes)
    assert len(value) <= len(whole) // 2
    assert (kept.position, kept.counts["news"]) == (7, {})
    assert list(kept.counts["shop"]) == [f"r{age}" for age in range(len(kept.counts["shop"]))]
    assert kept.counts["shop"]
