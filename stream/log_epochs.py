"""Positions go on where an earlier log ended: what is added to the offsets of a log that began again.

Rows, archive and tokens hold positions, which never go back. In a system's first log a position is the offset. Where
`coldstream new-epoch` begins an epoch, the offsets of each partition get a shift that puts them behind every position
of the log before. The shifts stand on the compacted topic `log-epochs` of the log that they are about.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from stream import topics
from stream.control_topic import read_values, send_value

KEY: Final = b"epochs"


class OffsetShift(msgspec.Struct, frozen=True):
    """From the offset `start` of a partition on, positions are offsets plus `shift`."""

    start: int
    shift: int


class LogEpochs(msgspec.Struct, frozen=True):
    """How many epochs began so far, and the shifts of each partition (`events/3`), by their start."""

    number: int = 0
    shifts: dict[str, list[OffsetShift]] = {}

    def position(self, partition: str, offset: int) -> int:
        """The position of an offset."""
        return offset + self.shift(partition, offset)

    def shift(self, partition: str, offset: int) -> int:
        """What is added to an offset."""
        shifts: Sequence[OffsetShift] = self.shifts.get(partition, ())
        return next((shift.shift for shift in reversed(shifts) if offset >= shift.start), 0)

    def shift_between(self, partition: str, first: int, last: int) -> int | None:
        """What is added to every offset from `first` to `last`; None where an epoch begins between them."""
        shift = self.shift(partition, first)
        return shift if shift == self.shift(partition, last) else None

    def offset(self, partition: str, position: int) -> int:
        """The offset of a position; for one that the log does not have, the next offset that it has."""
        shifts: list[OffsetShift] = [OffsetShift(0, 0), *self.shifts.get(partition, ())]
        for shift, following in pairwise(shifts):
            if position < following.start + following.shift:
                return min(position - shift.shift, following.start)
        return position - shifts[-1].shift

    def with_shift(self, partition: str, start: int, position: int) -> "LogEpochs":
        """The same, with `position` at the offset `start` of a partition; shifts from `start` on are replaced."""
        earlier = [shift for shift in self.shifts.get(partition, ()) if shift.start < start]
        shifts = self.shifts | {partition: [*earlier, OffsetShift(start, position - start)]}
        return msgspec.structs.replace(self, shifts=shifts)


FIRST_EPOCH: Final = LogEpochs()
"""Of a log that is the system's first: positions are offsets."""


def read(bootstrap: str, security: Mapping[str, str] | None = None) -> LogEpochs:
    """The epochs of a log. Raises BrokerError."""
    epochs = FIRST_EPOCH
    for value in read_values(bootstrap, security, topics.LOG_EPOCHS):
        try:
            epochs = msgspec.json.decode(value, type=LogEpochs)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue  # not from this project
    return epochs


def send(bootstrap: str, security: Mapping[str, str] | None, epochs: LogEpochs) -> None:
    """Store the epochs of a log. Raises BrokerError."""
    send_value(bootstrap, security, topics.LOG_EPOCHS, KEY, msgspec.json.encode(epochs))
