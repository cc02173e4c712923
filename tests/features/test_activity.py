"""What is known of a user: worked out by hand, and the laws that the promise of exactly-once rests on."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.activity import DAY_MS, Activity, FoldSettings, LoggedEvent, apply, apply_batch
from stream.events import KIND_CODES, Event, Impression, Interaction, Search

NOON = 1_760_000_000_000
MINUTE = 60_000
SETTINGS = FoldSettings(history_length=4, event_ids=6, categories=2, queries=2, unwanted=3)


def view(number: int, at: int = NOON, item: str = "tea", **more: object) -> Interaction:
    return Interaction(event_id=f"e{number}", user_id="ann", item_id=item, kind="view", at=at, **more)  # type: ignore[arg-type]


def logged(*events: Event, start: int = 0, backfill: bool = False) -> list[LoggedEvent]:
    return [LoggedEvent(event, "events/0", start + number, backfill) for number, event in enumerate(events)]


def test_one_event_is_kept_as_it_came() -> None:
    row = apply(None, logged(view(1, value=2.5, category="drinks", session_id="s")), SETTINGS)
    assert (row.recent.items, row.recent.times, row.recent.values) == (["tea"], [NOON], [2.5])
    assert row.recent.kinds == [KIND_CODES["view"]]
    assert (row.summary.first_seen, row.summary.last_seen, row.summary.totals) == (NOON, NOON, {"view": 1})
    assert row.applied.positions == {"events/0": 0}
    assert (row.summary.session.id, row.summary.session.events) == ("s", 1)


def test_a_late_event_lands_in_its_place_in_time() -> None:
    row = apply(None, logged(view(1, NOON, "a"), view(2, NOON + 9, "c"), view(3, NOON + 5, "b")), SETTINGS)
    assert row.recent.items == ["a", "b", "c"]
    assert (row.summary.first_seen, row.summary.last_seen) == (NOON, NOON + 9)


def test_too_late_is_counted_apart() -> None:
    old = view(2, NOON - 31 * DAY_MS, "old")
    row = apply(None, logged(view(1), old), SETTINGS)
    assert (row.recent.items, row.summary.late, row.summary.totals) == (["tea"], 1, {"view": 1})
    just = apply(None, logged(view(1), view(2, NOON - 30 * DAY_MS, "just")), SETTINGS)
    assert (just.recent.items, just.summary.late) == (["just", "tea"], 0)


def test_a_backfilled_event_takes_its_place_in_time_whatever_its_age() -> None:
    """What an import sends after live events gives the history and the sums that the order of time would have given."""
    past = [view(n, NOON - 60 * DAY_MS + n, f"past{n}", category="old") for n in range(2)]
    live = [view(9, NOON, "tea", category="new")]
    row = apply(None, [*logged(*live), *logged(*past, start=1, backfill=True)], SETTINGS)
    in_order = apply(None, logged(*past, *live), SETTINGS)
    assert row.recent == in_order.recent
    assert row.recent.items == ["past0", "past1", "tea"]
    assert (row.summary.first_seen, row.summary.last_seen) == (NOON - 60 * DAY_MS, NOON)
    assert (row.summary.totals, row.summary.late) == ({"view": 3}, 0)
    assert row.summary.kinds == pytest.approx(in_order.summary.kinds)
    assert row.summary.categories == pytest.approx(in_order.summary.categories)
    assert (row.summary.session.started_at, row.summary.session.events) == (NOON, 1)  # the current one stays


def test_a_backfill_is_bounded_by_the_length_of_the_history() -> None:
    live = [view(n, NOON + n, f"live{n}") for n in range(4)]
    row = apply(None, [*logged(*live), *logged(view(9, NOON - DAY_MS, "past"), start=4, backfill=True)], SETTINGS)
    assert row.recent.items == ["live0", "live1", "live2", "live3"]
    assert row.summary.totals == {"view": 5}


def test_a_backfill_does_not_push_out_the_ids_of_live_events() -> None:
    """A client that sends its event again after a long import is still counted once; so is the import's last event."""
    past = logged(*[view(n, NOON - DAY_MS + n) for n in range(10, 40)], start=1, backfill=True)
    again = logged(view(1), view(39, NOON - DAY_MS + 39), start=31)
    row = apply(None, [*logged(view(1)), *past, *again], SETTINGS)
    assert row.summary.totals == {"view": 31}
    assert len(row.applied.event_ids) == 1
    assert len(row.applied.backfilled_ids) == 6


def test_backfilled_dislikes_and_likes_are_weighed_by_their_times() -> None:
    liked = logged(act(0, "like", "tea"))
    older = logged(act(1, "dislike", "tea", -60 * DAY_MS), start=1, backfill=True)
    assert apply(None, [*liked, *older], SETTINGS).unwanted == {}
    hidden = logged(act(0, "hide", "tea"))
    viewed = logged(act(1, "view", "tea", -60 * DAY_MS), start=1, backfill=True)
    assert apply(None, [*hidden, *viewed], SETTINGS).unwanted == {"tea": NOON}


def test_late_events_are_counted_by_domain() -> None:
    late: dict[str, int] = {}
    old = NOON - 31 * DAY_MS
    log = [*logged(view(1), view(2, old), view(3, old)), *logged(view(4, old), start=3, backfill=True)]
    apply_batch({}, log, SETTINGS, late=late)
    assert late == {"shop": 2}


def test_the_history_keeps_the_newest() -> None:
    row = apply(None, logged(*[view(n, NOON + n, str(n)) for n in range(6)], view(9, NOON - 1, "older")), SETTINGS)
    assert row.recent.items == ["2", "3", "4", "5"]
    assert row.summary.totals == {"view": 7}


def test_half_of_a_count_is_left_after_a_half_life() -> None:
    row = apply(
        None, logged(view(1, NOON, category="x"), view(2, NOON + SETTINGS.half_life_ms, category="x")), SETTINGS
    )
    from features.decay import value_at

    now = NOON + SETTINGS.half_life_ms
    assert value_at(row.summary.kinds["view"], row.summary.landmark, now, SETTINGS.half_life_ms) == pytest.approx(1.5)
    assert value_at(row.summary.categories["x"], row.summary.landmark, now, SETTINGS.half_life_ms) == pytest.approx(1.5)


def test_the_smallest_category_goes_first() -> None:
    shelves = ["a", "a", "b", "b", "b", "c"]
    row = apply(None, logged(*[view(n, category=shelf) for n, shelf in enumerate(shelves)]), SETTINGS)
    assert set(row.summary.categories) == {"a", "b"}


def test_a_session_ends_after_half_an_hour_or_by_name() -> None:
    near = apply(None, logged(view(1), view(2, NOON + 30 * MINUTE)), SETTINGS).summary.session
    assert (near.started_at, near.events) == (NOON, 2)
    far = apply(None, logged(view(1), view(2, NOON + 30 * MINUTE + 1)), SETTINGS).summary.session
    assert (far.started_at, far.events) == (NOON + 30 * MINUTE + 1, 1)
    named = apply(None, logged(view(1, session_id="a"), view(2, NOON + 1, session_id="b")), SETTINGS).summary.session
    assert (named.id, named.events) == ("b", 1)


def test_searches_and_impressions_are_known_but_no_history() -> None:
    def search(n: int) -> Search:
        return Search(event_id=f"q{n}", user_id="ann", query=f"tea {n}", at=NOON)

    shown = Impression(event_id="i", user_id="ann", item_ids=["x"], at=NOON)
    row = apply(None, logged(search(1), search(2), search(3), shown), SETTINGS)
    assert row.summary.queries == ["tea 2", "tea 3"]
    assert row.summary.totals == {"search": 3, "impression": 1}
    assert row.recent.items == []


def act(number: int, kind: str, item: str, after_ms: int = 0) -> Interaction:
    return Interaction(event_id=f"e{number}", user_id="ann", item_id=item, kind=kind, at=NOON + after_ms)  # type: ignore[arg-type]


def test_a_hidden_item_is_remembered_when_its_event_has_left_the_history() -> None:
    later = [view(n, NOON + n, f"other{n}") for n in range(1, 6)]
    row = apply(None, logged(act(0, "hide", "tea"), *later), SETTINGS)
    assert "tea" not in row.recent.items
    assert row.unwanted == {"tea": NOON}


def test_the_newest_event_by_time_decides_whether_an_item_is_unwanted() -> None:
    assert apply(None, logged(act(0, "hide", "tea"), act(1, "like", "tea", 1)), SETTINGS).unwanted == {}
    assert apply(None, logged(act(0, "hide", "tea", 5), act(1, "view", "tea", 1)), SETTINGS).unwanted == {
        "tea": NOON + 5
    }
    assert apply(None, logged(act(0, "like", "tea", 5), act(1, "hide", "tea", 1)), SETTINGS).unwanted == {}
    assert apply(None, logged(act(0, "hide", "tea"), act(1, "skip", "tea", 1)), SETTINGS).unwanted == {"tea": NOON}


def test_the_oldest_unwanted_item_goes_first() -> None:
    log = logged(*[act(n, "dislike", item, at) for n, (item, at) in enumerate(zip("abcd", [7, 3, 9, 8], strict=True))])
    assert apply(None, log, SETTINGS).unwanted == {"a": NOON + 7, "c": NOON + 9, "d": NOON + 8}


def test_a_row_from_before_unwanted_items_were_kept_can_be_read() -> None:
    old = msgspec.to_builtins(apply(None, logged(view(1)), SETTINGS))
    del old["unwanted"]
    row = msgspec.json.decode(msgspec.json.encode(old), type=Activity)
    assert (row.recent.items, row.unwanted) == (["tea"], {})


def test_an_event_sent_twice_counts_once_and_a_replay_changes_nothing() -> None:
    log = logged(view(1), view(1), view(2))
    row = apply(None, log, SETTINGS)
    assert row.summary.totals == {"view": 2}
    assert msgspec.json.encode(apply(row, log, SETTINGS)) == msgspec.json.encode(row)


def test_the_given_state_is_left_as_it_was() -> None:
    before = apply(None, logged(view(1, category="x")), SETTINGS)
    frozen = msgspec.json.encode(before)
    apply(before, logged(view(2, NOON + 90 * DAY_MS, category="y"), start=1), SETTINGS)
    assert msgspec.json.encode(before) == frozen


times = st.integers(NOON - 40 * DAY_MS, NOON + 40 * DAY_MS)
interactions = st.builds(
    Interaction,
    event_id=st.integers(0, 20).map(str),
    user_id=st.sampled_from(["ann", "bob", "cid"]),
    item_id=st.sampled_from("abcdef"),
    kind=st.sampled_from(["view", "purchase", "skip", "hide", "dislike"]),
    at=times,
    domain=st.sampled_from(["shop", "news"]),
    value=st.none() | st.floats(0, 100),
    session_id=st.none() | st.sampled_from(["s", "t"]),
    category=st.none() | st.sampled_from("xyz"),
)
searches = st.builds(
    Search,
    event_id=st.integers(0, 20).map(str),
    user_id=st.sampled_from(["ann", "bob"]),
    query=st.text(max_size=5),
    at=times,
)
logs = st.lists(st.tuples(interactions | searches, st.booleans()), max_size=40).map(
    lambda events: [LoggedEvent(event, "events/0", n, backfill) for n, (event, backfill) in enumerate(events)]
)


def folded(log: list[LoggedEvent], cuts: list[int]) -> bytes:
    states: dict[tuple[str, str], Activity] = {}
    bounds = [0, *sorted(cuts), len(log)]
    for start, stop in pairwise(bounds):
        states |= apply_batch(states, log[start:stop], SETTINGS, in_place=True)
    return msgspec.json.encode({"/".join(key): states[key] for key in sorted(states)})


@settings(max_examples=150, deadline=None)
@given(logs, st.data())
def test_any_cut_into_batches_gives_the_same_bytes(log: list[LoggedEvent], data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(log)), max_size=5))
    assert folded(log, cuts) == folded(log, [])


@settings(max_examples=150, deadline=None)
@given(logs, st.data())
def test_going_back_in_the_log_changes_nothing(log: list[LoggedEvent], data: st.DataObject) -> None:
    """A consumer that died after a write reads the same stretch again, from any place before."""
    reached = data.draw(st.integers(0, len(log)))
    back = data.draw(st.integers(0, reached))
    states = apply_batch({}, log[:reached], SETTINGS)
    states |= apply_batch(states, log[back:], SETTINGS)
    again = msgspec.json.encode({"/".join(key): states[key] for key in sorted(states)})
    assert again == folded(log, [])


@settings(max_examples=100, deadline=None)
@given(logs)
def test_the_columns_of_a_history_stay_equally_long_and_in_order_of_time(log: list[LoggedEvent]) -> None:
    for row in apply_batch({}, log, SETTINGS).values():
        recent = row.recent
        assert len(recent.items) == len(recent.kinds) == len(recent.times) == len(recent.values) <= 4
        assert recent.times == sorted(recent.times)
        assert len(row.applied.event_ids) <= 6
        assert len(row.applied.backfilled_ids) <= 6
        assert len(row.summary.categories) <= 2
        assert len(row.unwanted) <= 3
