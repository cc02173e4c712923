"""Errors of the serving room, as one tree. Every message says what was wrong, where, and the cure."""

from stream.errors import ColdstreamError


class ServingError(ColdstreamError):
    """Root of the errors of the serving room."""


class SettingsError(ServingError):
    """A setting that does not exist or has a value out of its range."""


class MessageError(ServingError):
    """A message on a control topic that cannot be decoded."""


class SupervisorError(ServingError):
    """`coldstream up` cannot start the system."""


class StateFolderError(ServingError):
    """The state folder was written in another format."""


class LogError(ServingError):
    """The log is not the one that was read before: it was lost, restored from a backup, or is another cluster's."""


class ConsumerError(ServingError):
    """The consumer cannot continue."""


class InstanceError(ConsumerError):
    """The consumer's name in its consumer groups is not usable, or another process has it."""
