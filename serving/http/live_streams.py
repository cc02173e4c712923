"""Open live streams, and the signals that let them look up again."""

import asyncio
from collections.abc import Iterable

from serving import metrics


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


class LiveStreams:
    """The open streams by domain and user. Used on the event loop only."""

    def __init__(self) -> None:
        self._signals: dict[tuple[str, str], set[StreamSignal]] = {}

    def open(self, domain: str, user_id: str) -> StreamSignal:
        """The signal of a new stream, certain at first; `close` it."""
        signal = StreamSignal()
        self._signals.setdefault((domain, user_id), set()).add(signal)
        metrics.open_streams.inc()
        return signal

    def close(self, domain: str, user_id: str, signal: StreamSignal) -> None:
        """Forget a stream."""
        signals = self._signals.get((domain, user_id), set())
        if signal in signals:
            signals.discard(signal)
            metrics.open_streams.dec()
        if not signals:
            self._signals.pop((domain, user_id), None)

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
        return sum(len(signals) for signals in self._signals.values())
