"""The exceptions of `stream`, as one tree.

Every message says what was wrong, where, and how to fix it.
"""


class ColdstreamError(Exception):
    """Root of every error that Coldstream raises on purpose."""


class StreamError(ColdstreamError):
    """Root of the errors of the stream room."""


class EventError(StreamError):
    """An invalid event, which is not accepted.

    `reason` is one of `stream.events.REASONS`: short, stable, and safe as a metric label.
    `detail` is the message for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class BrokerError(StreamError):
    """The embedded broker cannot be installed, started, or reached."""


class SourceError(StreamError):
    """A data set or an imported file cannot be read."""
