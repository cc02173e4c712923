"""A small transformer for a process of its own in which JAX trains, and a batch to score with it."""

from typing import Any

from models.data.batch import Batch, batch_histories
from models.data.interactions import Interactions
from models.recommenders.neural.recommender import Neural, Params
from testing.interactions import history, ring


def trained_by_jax(ahead: int = 0) -> Neural:
    """A transformer trained for three epochs, `ahead` steps in one execution."""
    shape: dict[str, Any] = {
        "embedding_size": 16,
        "blocks": 1,
        "heads": 1,
        "length": 8,
        "learning_rate": 1e-2,
        "batch_size": 16,
    }
    model = Neural(Params(encoder="transformer", epochs=3, steps_per_execution=ahead, **shape))
    model.fit(Interactions.from_frame(ring()))
    return model


def query_batch(model: Neural) -> Batch:
    """Three histories: short, of one item, and longer than the encoder reads."""
    return batch_histories([history("i1", "i2"), history("i5"), history(*["i3", "i4", "i7"] * 5)], model.vocabulary, 8)
