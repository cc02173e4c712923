"""Open live streams, and the signals that let them look up again."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from serving import metrics
from serving.http.problems import Problem

RETRY_S: Final = 30
"""When a client that was refused a stream may try again."""


TURNS: Final = 4
"""Streams that look up at the same time: a change that concerns all of them must not keep others waiting."""


class StreamLimits(msgspec.Struct, frozen=True):
    """How many streams may be open: in all, of one address, of one user."""

    total: int = 4_000
    per_address: int = 2_000
    per_user: int = 20


class StreamSignal(asyncio.Event):
    """Set when a user's recommendations may differ.

    `certain`: the user's features or the release changed, so that a new list is sent even if it is the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.certain = True

    def set_certain(self) -> None:
        """Set the signal because of the user's features or the release."""
        self.certain = True
        self.set()

    def consume(self) -> bool:
        """Clear the signal; whether it was certain."""
        certain, self.certain = self.certain, False
        self.clear()
        return certain


class LiveStream:
    """One open stream; it counts until `close`, or until nothing refers to it any more: a client may leave before its
    stream begins."""

    def __init__(self, streams: "LiveStreams", domain: str, user_id: str, address: str) -> None:
        self.signal = StreamSignal()
        self.address = address
        self.user = (domain, user_id)
        self._streams: LiveStreams | None = streams

    def close(self) -> None:
        """Forget the stream."""
        if self._streams is not None:
            self._streams.remove(self)
            self._streams = None

    def __del__(self) -> None:
        self.close()


class LiveStreams:
    """The open streams by domain and user. Used on the event loop only."""

    def __init__(self, limits: StreamLimits | None = None) -> None:
        self._limits = limits or StreamLimits()
        self._signals: dict[tuple[str, str], set[StreamSignal]] = {}
        self._of_address: Counter[str] = Counter()
        self._total = 0
        self.turns = asyncio.Semaphore(TURNS)

    def open(self, domain: str, user_id: str, address: str = "") -> LiveStream:
        """A new stream, whose signal is certain at first; `close` it.

        Raises:
            Problem: a limit is reached.
        """
        self._check("max_streams", self._total, self._limits.total)
        self._check("max_streams_per_address", self._of_address[address], self._limits.per_address)
        self._check("max_streams_per_user", len(self._signals.get((domain, user_id), ())), self._limits.per_user)
        stream = LiveStream(self, domain, user_id, address)
        self._signals.setdefault(stream.user, set()).add(stream.signal)
        self._of_address[address] += 1
        self._total += 1
        metrics.open_streams.inc()
        return stream

    def remove(self, stream: LiveStream) -> None:
        """Forget a stream; called by its `close`."""
        signals = self._signals.get(stream.user, set())
        signals.discard(stream.signal)
        if not signals:
            self._signals.pop(stream.user, None)
        self._of_address[stream.address] -= 1
        if self._of_address[stream.address] <= 0:
            del self._of_address[stream.address]
        self._total -= 1
        metrics.open_streams.dec()

    def _check(self, setting: str, number: int, limit: int) -> None:
        if number >= limit:
            metrics.streams_refused.labels(setting).inc()
            detail = f"{number} live streams are open, as many as the setting {setting} allows; close one, or try later"
            raise Problem(429, "too-many-streams", detail, headers={"Retry-After": str(RETRY_S)})

    def on_features(self, users: Iterable[tuple[str, str]] | None) -> None:
        """The features of these (domain, user) pairs changed; None: of too many to list."""
        if users is None:
            self.on_release()
            return
        for user in users:
            for signal in self._signals.get(user, ()):
                signal.set_certain()

    def on_release(self) -> None:
        """A release was swapped in: every stream looks up again."""
        for signals in self._signals.values():
            for signal in signals:
                signal.set_certain()

    def on_catalogue(self, domain: str) -> None:
        """Items or rules of a domain changed: its streams look up again, and send only a list that differs."""
        for (name, _), signals in self._signals.items():
            if name == domain:
                for signal in signals:
                    signal.set()

    def count(self) -> int:
        """How many streams are open."""
        return self._total
