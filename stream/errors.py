"""Everything that can go wrong in the stream room, as one tree.

Every message says what was wrong, where, and the cure.
"""


class ColdstreamError(Exception):
    """Root of every error that Coldstream raises on purpose."""


class StreamError(ColdstreamError):
    """Root of the errors of the stream room."""


class EventError(StreamError):
    """An event that must not enter the system.

    `reason` is one of `stream.events.REASONS`: short, stable, and safe to use as a metric label.
    `detail` is the sentence for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class BrokerError(StreamError):
    """The embedded broker cannot be installed, started, or reached."""


class SourceError(StreamError):
    """A data set or an imported file cannot be read as asked."""


class FileError(StreamError, OSError):
    """A file cannot be written: the disk is full, or access is denied. Nothing half-written is left."""
