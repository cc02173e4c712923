"""Batches that readers pass over: an operator decided so with `coldstream dead-letters skip`.

They stand on the compacted topic `skips`, so every reader of the log, now or later, passes over the same offsets.
"""

import time
from collections.abc import Iterable, Mapping

import msgspec

from stream import topics
from stream.control_topic import read_values, send_value


class Skip(msgspec.Struct, frozen=True):
    """Offsets `first` (inclusive) to `next` (exclusive) of `partition` (`events/3`) are not read; `at` is epoch ms."""

    partition: str
    first: int
    next: int
    reason: str
    at: int

    def covers(self, partition: str, offset: int) -> bool:
        """Whether a reader of `partition` that stands at `offset` continues at `next`."""
        return partition == self.partition and self.first <= offset < self.next


_decoder = msgspec.json.Decoder(Skip)


def covering(skips: Iterable[Skip], partition: str, offset: int) -> Skip | None:
    """The skip that covers `offset` of `partition`."""
    return next((skip for skip in skips if skip.covers(partition, offset)), None)


def read(bootstrap: str, security: Mapping[str, str] | None = None) -> list[Skip]:
    """Every skip. Raises BrokerError."""
    skips: list[Skip] = []
    for value in read_values(bootstrap, security, topics.SKIPS):
        try:
            skips.append(_decoder.decode(value))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue  # not from this project
    return skips


def send(
    bootstrap: str, security: Mapping[str, str] | None, partition: str, first: int, following: int, why: str
) -> Skip:
    """Make every reader of `partition` pass over the offsets from `first` to before `following`. Raises BrokerError."""
    skip = Skip(partition, first, following, why, int(time.time() * 1000))
    send_value(bootstrap, security, topics.SKIPS, f"{partition}:{first}".encode(), msgspec.json.encode(skip))
    return skip
