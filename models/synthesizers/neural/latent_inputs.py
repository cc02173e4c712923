"""What a network with a latent vector reads besides: whole stretches, which of their events are known, and noise."""

from typing import Final

import numpy as np

from models.arrays import AnyArray, Int32, Int64
from models.synthesizers.neural.windows import SequenceData

FIRST_EVENTS: Final = 5
"""The prior is trained to know up to so many first events."""


def with_latent(
    data: SequenceData, x: dict[str, AnyArray], targets: Int32, known: Int64, latent: int, rng: np.random.Generator
) -> tuple[dict[str, AnyArray], Int32]:
    """Inputs with `targets`, `known` and `noise`, and the targets without those that are known (-1).

    `known` int64 [rows]: how many of each stretch's first events come with the conditions.
    """
    events = data.histories.items[targets] + 1
    place = np.arange(targets.shape[1])[None] - (targets < 0).sum(axis=1)[:, None]
    among = (place >= 0) & (place <= known[:, None]) & (x["items"] > 0) & (x["items"] <= data.size)
    more: dict[str, AnyArray] = {"targets": np.where(targets >= 0, events, 0).astype(np.int32)}
    more["known"] = among.astype(np.float32)
    more["noise"] = rng.standard_normal((len(targets), latent)).astype(np.float32)
    return {**x, **more}, np.where(place >= known[:, None], targets, -1).astype(np.int32)


def drawn_prefixes(targets: Int32, rng: np.random.Generator) -> Int64:
    """int64 [rows]: for each stretch, from 0 to FIRST_EVENTS known events, fewer than it has."""
    lengths = (targets >= 0).sum(axis=1)
    drawn: Int64 = np.minimum(rng.integers(0, FIRST_EVENTS + 1, len(targets)), np.maximum(lengths - 1, 0))
    return drawn
