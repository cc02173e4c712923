"""Everything that can go wrong in the features room."""

from stream.errors import ColdstreamError


class FeatureError(ColdstreamError):
    """Root of the errors of the features room."""


class StoreError(FeatureError):
    """The online store cannot be read or written at the moment; waiting and trying again is right."""


class ArchiveError(FeatureError):
    """The archive cannot be read or written."""
