"""Read-your-writes: tokens that writes return, and look-ups that wait until the features contain them.

A token is `PARTITION:OFFSET` of the topic `events` (`3:120`), or `TOPIC/PARTITION:OFFSET` of another topic
(`items/0:7`). Tokens are joined by commas.
"""

import asyncio
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from serving.http.problems import Problem
from stream import topics
from stream.producer import Position

TOKEN: Final = re.compile(r"(?:[a-z-]+/)?\d{1,9}:\d{1,18}")


TOPICS: Final = (topics.EVENTS, topics.ITEMS, topics.USERS, topics.RULES)
"""Topics whose records have tokens."""


def format_token(topic: str, position: Position) -> str:
    """The token of one record."""
    prefix = "" if topic == topics.EVENTS else f"{topic}/"
    return f"{prefix}{position.partition}:{position.offset}"


def newest_token(topic: str, positions: Iterable[Position]) -> str:
    """The token of several records: the newest offset of each partition."""
    newest: dict[int, int] = {}
    for position in positions:
        newest[position.partition] = max(position.offset, newest.get(position.partition, -1))
    return ",".join(format_token(topic, Position(partition, newest[partition])) for partition in sorted(newest))


def parse_tokens(text: str) -> list[tuple[str, int]]:
    """Partitions (`events/3`) and offsets.

    Raises:
        Problem: the text is not a token.
    """
    return [_parse_token(part) for part in text.split(",")]


def _parse_token(text: str) -> tuple[str, int]:
    if not TOKEN.fullmatch(text):
        raise Problem(400, "bad-token", f"after={text!r} is not a token; give what POST /v1/events answered")
    partition, _, offset = text.rpartition(":")
    if "/" not in partition:
        return f"{topics.EVENTS}/{partition}", int(offset)
    if partition.partition("/")[0] not in TOPICS:
        raise Problem(400, "bad-token", f"after={text!r}: tokens are of the topics {', '.join(TOPICS)}")
    return partition, int(offset)


class AppliedOffsets:
    """How far each partition (`events/3`) is visible to look-ups, and who waits for it. Used on the event loop only."""

    def __init__(self) -> None:
        self.by_partition: dict[str, int] = {}
        self._waiting: dict[str, list[tuple[int, asyncio.Future[None]]]] = {}
        self._behind: dict[str, deque[tuple[int, Mapping[str, int]]]] = {}

    def advance_with(self, partition: str, offset: int, behind: Mapping[str, int]) -> None:
        """Everything of `partition` through `offset` is visible once the offsets `behind` of other partitions are.

        Events of this partition were forwarded there. Later positions of it wait behind earlier ones.
        """
        if behind or partition in self._behind:
            self._behind.setdefault(partition, deque()).append((offset, behind))
        else:
            self.advance(partition, offset)
        self._follow()

    def _follow(self) -> None:
        """Advance the partitions whose forwarded events have become visible."""
        for partition, positions in list(self._behind.items()):
            while positions and all(self.contains(*place) for place in positions[0][1].items()):
                self.advance(partition, positions.popleft()[0])
            if not positions:
                del self._behind[partition]

    def advance(self, partition: str, offset: int) -> None:
        """Everything of `partition` through `offset` is visible from now on."""
        if offset <= self.by_partition.get(partition, -1):
            return
        self.by_partition[partition] = offset
        still_waiting: list[tuple[int, asyncio.Future[None]]] = []
        for expected, future in self._waiting.pop(partition, []):
            if expected > offset:
                still_waiting.append((expected, future))
            elif not future.done():
                future.set_result(None)
        if still_waiting:
            self._waiting[partition] = still_waiting

    def contains(self, partition: str, offset: int) -> bool:
        """Whether `offset` of `partition` is known to be visible."""
        return self.by_partition.get(partition, -1) >= offset

    async def wait(self, partition: str, offset: int, timeout_s: float) -> bool:
        """Whether `offset` of `partition` is visible now or within the timeout."""
        if self.contains(partition, offset):
            return True
        if timeout_s <= 0:
            return False
        entry = (offset, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(partition, []).append(entry)
        try:
            await asyncio.wait_for(entry[1], timeout_s)
        except TimeoutError:
            return False
        finally:
            self._remove(partition, entry)
        return True

    def _remove(self, partition: str, entry: tuple[int, asyncio.Future[None]]) -> None:
        waiting = self._waiting.get(partition, [])
        if entry in waiting:
            waiting.remove(entry)
        if not waiting:
            self._waiting.pop(partition, None)


async def wait_until_applied(
    token: str,
    applied: AppliedOffsets,
    read_positions: Callable[[], Awaitable[Mapping[str, int]]],
    timeout_ms: int,
) -> None:
    """Wait until look-ups see everything that `token` names.

    `read_positions` reads the positions that the user's features contain: they may be ahead of what this process knows.

    Raises:
        Problem: the text is not a token, or its offsets are not visible within the timeout.
    """
    deadline = time.monotonic() + timeout_ms / 1000
    missing = [entry for entry in parse_tokens(token) if not applied.contains(*entry)]
    if not missing:
        return
    positions = await read_positions()
    for partition, offset in missing:
        if positions.get(partition, -1) >= offset:
            continue
        if not await applied.wait(partition, offset, max(0.0, deadline - time.monotonic())):
            raise Problem(504, "not-yet", f"token {token} is not in the features after {timeout_ms} ms; ask again")
