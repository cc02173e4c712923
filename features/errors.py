"""Errors of the features package."""

from stream.errors import ColdstreamError


class FeatureError(ColdstreamError):
    """Base class of these errors."""


class StoreError(FeatureError):
    """The online store cannot be read or written at the moment: wait and try again."""


class StoreDamagedError(StoreError):
    """The online store is missing or damaged: waiting does not help, the message names the cure."""


class ArchiveError(FeatureError):
    """The archive cannot be read or written."""
