"""Everything that can go wrong in the models room."""

from stream.errors import ColdstreamError


class ModelError(ColdstreamError):
    """Root of the errors of the models room."""


class ReleaseError(ModelError):
    """A release that must not serve. `reason` is short and stable, safe as a metric label."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class TrainingError(ModelError):
    """A training run cannot start or finish."""


class PresetError(ModelError):
    """A preset file that cannot be used."""
