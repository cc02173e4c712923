"""Changes to histories that leave what they say: events hidden or replaced, beginnings cut, stretches shuffled.

The operations are those of CL4SRec (Xie et al., ICDE 2022: crop, mask, reorder) and CoSeRec (Liu et al., 2021:
substitute), as plain augmentation of what is learned from; no contrastive loss. Each takes a batch of histories and
`drawn` int64 [batch, length], what follows each place (-1: nothing), and returns both, changed.
"""

from typing import Final

import numpy as np

from models.arrays import Bool, Int32, Int64
from models.data.batch import FIRST_GAP, START, Batch
from models.recommenders.neural.params import Params

SHUFFLED: Final = 0.3
"""Length of a shuffled stretch, as a share of the history."""
LONGEST_PREFIX: Final = 3


def augmented(
    batch: Batch, drawn: Int64, params: Params, near: Int32 | None, rng: np.random.Generator
) -> tuple[Batch, Int64]:
    """What `params` switch on, in the order prefix, crop, reorder, substitute, mask; `near`: see `substitute`."""
    if params.prefixes:
        batch, drawn = prefix(batch, drawn, params.prefixes, rng)
    if params.crop:
        batch, drawn = crop(batch, drawn, params.crop, rng)
    if params.reorder:
        batch, drawn = reorder(batch, drawn, params.reorder, rng)
    if params.substitute and near is not None:
        batch = substitute(batch, near, params.substitute, rng)
    if params.mask:
        batch = mask(batch, params.mask, rng)
    return batch, drawn


def prefix(batch: Batch, drawn: Int64, share: float, rng: np.random.Generator) -> tuple[Batch, Int64]:
    """A share of histories ends after its first 1 to 3 events, or after its start token.

    Where some of the batch have start tokens, only those do: the others are later parts of histories. What is left
    stands on the right, where look-ups have it, and is learned from at each of its places.
    """
    n, length = batch.items.shape
    begins = (batch.kinds == START).any(axis=1)
    kept = rng.integers(0 if begins.any() else 1, LONGEST_PREFIX + 1, n)
    chosen = (rng.random(n) < share) & (begins | ~begins.any())
    shifts = np.where(chosen, np.maximum(batch.lengths - kept, 0), 0)[:, None]
    sources = np.arange(length) - shifts
    arrays = (batch.items, batch.kinds, batch.gaps)
    moved = [np.where(sources >= 0, np.take_along_axis(array, np.maximum(sources, 0), axis=1), 0) for array in arrays]
    items, kinds, gaps = (array.astype(np.int32) for array in moved)
    return Batch(items, kinds, gaps), np.where(
        sources >= 0, np.take_along_axis(drawn, np.maximum(sources, 0), axis=1), -1
    )


def crop(batch: Batch, drawn: Int64, share: float, rng: np.random.Generator) -> tuple[Batch, Int64]:
    """A share of histories begins later, anywhere; nothing is learned from the places before that."""
    length = batch.items.shape[1]
    first = length - batch.lengths
    start = first + (rng.random(len(batch)) * batch.lengths).astype(np.int64)
    start = np.where(rng.random(len(batch)) < share, start, first)[:, None]
    kept = np.arange(length) >= np.where(start > first[:, None], start, 0)
    gaps = np.where((np.arange(length) == start) & (batch.items > 0), FIRST_GAP, batch.gaps)
    items, kinds, gaps = (np.where(kept, column, 0).astype(np.int32) for column in (batch.items, batch.kinds, gaps))
    return Batch(items, kinds, gaps), np.where(kept, drawn, -1)


def reorder(batch: Batch, drawn: Int64, share: float, rng: np.random.Generator) -> tuple[Batch, Int64]:
    """A stretch of a share of histories is shuffled; nothing is learned within it but what follows its last place.

    Within it a place's next event could stand at or before the place itself.
    """
    n, length = batch.items.shape
    width = np.maximum(2, (SHUFFLED * batch.lengths).astype(np.int64))
    free = np.maximum(batch.lengths - width, 0)
    start = length - batch.lengths + (rng.random(n) * (free + 1)).astype(np.int64)
    chosen = (rng.random(n) < share) & (batch.lengths >= width)
    places = np.arange(length)[None]
    inside = chosen[:, None] & (places >= start[:, None]) & (places < (start + width)[:, None])
    keys = np.where(inside, start[:, None] + rng.random((n, length)) * width[:, None], places)
    order = np.argsort(keys, axis=1, kind="stable")
    items, kinds = (np.take_along_axis(column, order, axis=1) for column in (batch.items, batch.kinds))
    last = places == (start + width - 1)[:, None]
    return Batch(items, kinds, batch.gaps), np.where(inside & ~last, -1, drawn)


def substitute(batch: Batch, near: Int32, share: float, rng: np.random.Generator) -> Batch:
    """A share of events is of a similar item instead: near int32 [items + 1, n] by number, 0 where there is none."""
    shape = batch.items.shape
    other = near[batch.items, rng.integers(0, near.shape[1], shape)]
    chosen = (rng.random(shape) < share) & (other > 0)
    return Batch(np.where(chosen, other, batch.items).astype(np.int32), batch.kinds, batch.gaps)


def mask(batch: Batch, share: float, rng: np.random.Generator) -> Batch:
    """A share of events is hidden; what follows their places is still learned."""
    kept: Bool = rng.random(batch.items.shape) >= share
    return Batch((batch.items * kept).astype(np.int32), batch.kinds, batch.gaps)
