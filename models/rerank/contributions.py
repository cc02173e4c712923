"""What each event of a history adds to an item's score, where the recommender can say so exactly."""

import numpy as np

from models.arrays import Float32, Int32, Int64
from models.data.batch import Batch
from models.recommenders.base import Recommender
from models.recommenders.blend import Blend, bucket_of
from models.recommenders.ials import IALS
from models.recommenders.item_item import ItemItem
from models.recommenders.popularity import Personal, tie_of


def contributions(recommender: Recommender, batch: Batch, places: Int64) -> Float32 | None:
    """float32 [items asked for, length]: what each event of a history adds to the scores at `places`.

    `batch` holds one history, as the recommender is asked with. Exact for item-to-item weights, for what was taken
    before, and for least squares (Hu, Koren & Volinsky, ICDM 2008, section 5: the score is a sum over the user's
    events). For a blend: of those members that can say so, weighed as the blend weighs them. None where nothing can be
    said, as of encoders.
    """
    if isinstance(recommender, Blend):
        return _of_blend(recommender, batch, places)
    numbers = batch.items[0]
    if isinstance(recommender, ItemItem):
        weights = batch.event_weights(recommender.decay)[0]
        return _of_neighbours(recommender, numbers, weights, places)
    if isinstance(recommender, Personal):
        weights = batch.event_weights(recommender.decay)[0]
        own: Float32 = np.where(numbers[None] == places[:, None] + 1, weights, np.float32(0.0)).astype(np.float32)
        return own
    if isinstance(recommender, IALS):
        return _of_factors(recommender, numbers, batch, places)
    return None


def _of_neighbours(one: ItemItem, numbers: Int32, weights: Float32, places: Int64) -> Float32:
    out = np.zeros((len(places), len(numbers)), np.float32)
    columns = np.flatnonzero(numbers > 0)
    known = numbers[columns] - 1
    near, amounts = one.near[known], one.amounts[known]
    for row, place in enumerate(places.tolist()):
        found = np.where(near == place, amounts, 0.0).sum(axis=1) + one.own * (known == place)
        out[row, columns] = weights[columns] * found
    return out


def _of_factors(one: IALS, numbers: Int32, batch: Batch, places: Int64) -> Float32:
    out = np.zeros((len(places), len(numbers)), np.float32)
    columns = np.flatnonzero(numbers > 0)
    if not len(columns):
        return out
    taken = one.item_factors[numbers[columns] - 1]
    sure = one.alpha * batch.event_weights(one.decay)[0, columns]
    gram = one.item_factors.T @ one.item_factors + one.reg * np.eye(one.factors) + (taken.T * (sure - 1)) @ taken
    out[:, columns] = one.item_factors[places] @ np.linalg.solve(gram, taken.T * sure)
    return out


def _of_blend(blend: Blend, batch: Batch, places: Int64) -> Float32 | None:
    """A member's scores enter a blend as shares: what it scores, over the sum of all that is positive."""
    each = blend.weights[bucket_of(batch.lengths)][0]
    total: Float32 | None = None
    for member, weight in zip(blend.members, each.tolist(), strict=True):
        part = contributions(member, batch, places) if weight else None
        if part is None:
            continue
        part *= np.float32(weight / max(_positive(member, batch), 1e-12))
        total = part if total is None else total + part
    return total


def _positive(member: Recommender, batch: Batch) -> float:
    """The sum that turns a member's scores into shares."""
    if isinstance(member, Personal):
        return float(tie_of(member.popularity).sum() + batch.event_weights(member.decay)[0][batch.items[0] > 0].sum())
    if isinstance(member, Blend):
        return 1.0
    return float(np.maximum(member.score(batch)[0], 0.0).sum())
