"""What is held out, by hand and as laws."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.data.splits import SplitError, SplitProtocol, evaluation_cases, repeat_share, split

DAY = 24 * 60 * 60 * 1000
PROTOCOLS = ["leave-one-out", "last-days:2", "last-share:0.3", "random:0.4"]


def frame(*rows: tuple[str, str, str, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "at"]).assign(value=None)


@pytest.mark.parametrize("text", PROTOCOLS)
def test_a_protocol_is_written_as_it_is_read(text: str) -> None:
    assert str(SplitProtocol.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "leave-two-out", "last-days", "last-days:0", "random:1", "last-share:x", "random:nan"]
)
def test_no_split_is_said_to_be_none(text: str) -> None:
    with pytest.raises(SplitError, match="is no split; give leave-one-out"):
        SplitProtocol.parse(text)


events = st.lists(
    st.tuples(
        st.sampled_from("uvw"),
        st.sampled_from("abcd"),
        st.sampled_from(["view", "skip", "purchase"]),
        st.integers(0, 9),
    ),
    min_size=1,
    max_size=40,
)


@given(events, st.sampled_from(PROTOCOLS), st.integers(0, 3))
def test_each_event_is_on_one_side_and_the_past_knows_no_future(
    rows: list[tuple[str, str, str, int]], text: str, seed: int
) -> None:
    whole = frame(*sorted(rows, key=lambda row: row[3])).assign(at=lambda table: table["at"] * DAY)
    before, after = split(whole, SplitProtocol.parse(text), seed)
    assert sorted([*before.index, *after.index]) == list(whole.index)
    if text.startswith("last"):
        assert before["at"].max() < after["at"].min() or not len(before)
    for user, held in after.groupby("user_id"):
        mine = before[before["user_id"] == user]
        if text == "leave-one-out":
            assert mine.index.max() < held.index.min()
            assert (held["kind"] != "skip").sum() == 1


@given(st.lists(st.sampled_from(["view", "skip", "dislike"]), min_size=1, max_size=40), st.integers(0, 3))
def test_a_random_split_draws_events_against_items_as_it_draws_the_others(kinds: list[str], seed: int) -> None:
    protocol = SplitProtocol.parse("random:0.4")
    whole = frame(*[("u", f"i{n}", kind, n) for n, kind in enumerate(kinds)])
    _, after = split(whole, protocol, seed)
    _, same = split(whole.assign(kind="view"), protocol, seed)
    assert after.index.tolist() == same.index.tolist()


def test_leave_one_out_takes_the_last_that_speaks_for_an_item() -> None:
    whole = frame(
        ("u", "a", "view", 1),
        ("u", "b", "view", 2),
        ("v", "a", "view", 2),
        ("u", "c", "view", 3),
        ("u", "d", "skip", 4),
    )
    before, after = split(whole, SplitProtocol.parse("leave-one-out"))
    assert before["item_id"].tolist() == ["a", "b", "a"]
    assert after["item_id"].tolist() == ["c", "d"]
    (only,) = evaluation_cases(before, after)
    assert (only.user_id, only.history.items, only.targets, only.negatives) == ("u", ["a", "b"], ["c"], ["d"])
    assert (only.at, only.seen) == (3, frozenset({"a", "b"}))


def test_cases_are_users_of_both_sides_with_what_speaks_for_an_item() -> None:
    before = frame(("u", "a", "view", 1), ("u", "b", "view", 2), ("w", "a", "view", 1))
    after = frame(
        ("u", "c", "purchase", 5),
        ("u", "c", "view", 6),
        ("u", "a", "view", 7),
        ("w", "d", "skip", 5),
        ("new", "a", "view", 5),
    )
    (only,) = evaluation_cases(before, after, length=1)
    assert (only.history.items, only.targets, only.seen) == (["b"], ["c", "a"], frozenset({"a", "b"}))
    assert repeat_share([only]) == 0.5


def test_a_sample_of_users_is_the_same_for_the_same_seed() -> None:
    before = frame(*[(f"u{n}", "a", "view", 1) for n in range(50)])
    after = frame(*[(f"u{n}", "b", "view", 2) for n in range(50)])
    drawn = [case.user_id for case in evaluation_cases(before, after, max_users=5, seed=3)]
    assert drawn == [case.user_id for case in evaluation_cases(before, after, max_users=5, seed=3)]
    assert drawn != [case.user_id for case in evaluation_cases(before, after, max_users=5, seed=4)]
