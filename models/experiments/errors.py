"""What goes wrong in an experiment."""

from models.errors import ModelError


class ExperimentError(ModelError):
    """An experiment cannot be run as requested."""
