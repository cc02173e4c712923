"""Positions that go on over several logs, and marks that say whether a log is the one that was read before."""

import pytest

from stream.log_epochs import LogEpochs, OffsetShift
from stream.log_marks import LogMark, mark_problem
from stream.log_watch import LogState

LOG = LogState("c1", {"events": "t1"}, {"events/0": 100, "events/1": 0})


def test_in_the_first_epoch_positions_are_offsets() -> None:
    epochs = LogEpochs()
    assert (epochs.position("events/0", 7), epochs.offset("events/0", 7)) == (7, 7)
    assert epochs.shift_between("events/0", 0, 10**9) == 0


def test_a_new_log_begins_behind_every_position_of_the_old_one() -> None:
    epochs = LogEpochs(1).with_shift("events/0", 0, 1_000)
    assert [epochs.position("events/0", offset) for offset in (0, 5)] == [1_000, 1_005]
    assert [epochs.offset("events/0", position) for position in (0, 999, 1_000, 1_005)] == [0, 0, 0, 5]
    assert epochs.position("events/1", 5) == 5


def test_a_restored_log_keeps_its_positions_up_to_where_it_ended() -> None:
    epochs = LogEpochs(1).with_shift("events/0", 100, 1_000)
    assert [epochs.position("events/0", offset) for offset in (99, 100, 101)] == [99, 1_000, 1_001]
    assert [epochs.offset("events/0", position) for position in (99, 100, 150, 999, 1_000)] == [99, 100, 100, 100, 100]
    assert epochs.shift_between("events/0", 90, 99) == 0
    assert epochs.shift_between("events/0", 99, 100) is None
    assert epochs.shift_between("events/0", 100, 200) == 900


def test_later_epochs_keep_earlier_ones_and_replace_what_begins_behind_them() -> None:
    epochs = LogEpochs(1).with_shift("events/0", 100, 1_000).with_shift("events/0", 200, 5_000)
    assert [epochs.position("events/0", offset) for offset in (50, 150, 250)] == [50, 1_050, 5_050]
    assert [epochs.offset("events/0", position) for position in (50, 1_050, 1_500, 5_050)] == [50, 150, 200, 250]
    assert epochs.with_shift("events/0", 0, 9_000).shifts["events/0"] == [OffsetShift(0, 9_000)]


@pytest.mark.parametrize("offset", [-1, 0, 99])
def test_a_mark_within_the_same_log_fits(offset: int) -> None:
    marks = {"events/0": LogMark("c1", "t1", offset, 5)}
    assert mark_problem(marks, LOG, 0, {"events/0": 5}) is None
    assert mark_problem(marks, LOG, 0) is None


@pytest.mark.parametrize(
    ("mark", "words"),
    [
        (LogMark("c2", "t1"), "the cluster is c1, but what was read before came from cluster c2"),
        (LogMark("c1", "t2"), "the topic events was deleted and created again"),
        (LogMark("c1", "t1", 100, 5), "events/0 ends at offset 100, but offset 100 was read before"),
        (LogMark("c1", "t1", 50, 4), "events/0 has another record at offset 50"),
        (LogMark("c1", "t1", 50, 5, epoch=1), "the log is in epoch 0, but events/0 was read before in epoch 1"),
    ],
)
def test_a_mark_of_another_log_says_why(mark: LogMark, words: str) -> None:
    assert words in str(mark_problem({"events/0": mark}, LOG, 0, {"events/0": 5}))


def test_what_the_broker_does_not_know_now_is_no_reason() -> None:
    starting = LogState("c1", {}, {})
    assert mark_problem({"events/0": LogMark("c1", "t1", 50, 5)}, starting, 0) is None
