"""EASE: an item-item autoencoder in closed form."""

from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
from msgspec import Meta
from scipy.linalg import lapack

from models.arrays import Float32, Int32
from models.data.interactions import Interactions
from models.recommenders import tuning_space
from models.recommenders.base import TuningContext
from models.recommenders.item_item import BLOCK, ItemItem, by_user_power, stack_blocks

if TYPE_CHECKING:
    from optuna import Trial

MAX_ITEMS: Final = 8_000
"""A dense matrix of this many items is inverted: 256 MB, and seconds; the other items have no neighbors."""


class EASE(ItemItem):
    """Embarrassingly shallow autoencoder: B = I - P diag(P)^-1 with P = (X'X + reg I)^-1 (Steck, WWW 2019, eq. 8).

    Over the `most` most popular items; of each row the largest weights by absolute value are kept.
    """

    name = "ease"

    class Params(ItemItem.Params, frozen=True, kw_only=True):
        """Parameters of the formula above, and those of `ItemItem`."""

        neighbors: Annotated[int, Meta(ge=1)] = 200
        decay: Annotated[float, Meta(ge=0, le=1)] = 0.9
        reg: Annotated[float, Meta(gt=0)] = 100.0
        user_power: Annotated[float, Meta(ge=0)] = 0.0
        most: Annotated[int, Meta(ge=1)] = MAX_ITEMS

    def relate(self, interactions: Interactions) -> tuple[Int32, Float32]:
        params, items = self.params, len(interactions.vocabulary)
        size = min(items, params.most)
        matrix = by_user_power(interactions.user_item_matrix(), params.user_power)[:, :size]
        gram = np.asfortranarray((matrix.T @ matrix).toarray(), np.float32)
        gram[np.diag_indices(size)] += params.reg
        inverse = _inverse(gram)
        diagonal = np.diag(inverse).copy()
        parts: list[tuple[Int32, Any]] = []
        for start in range(0, size, BLOCK):
            block = -inverse[start : start + BLOCK] / diagonal[None]
            rows = np.arange(len(block))
            block[rows, rows + start] = 0.0
            parts.append(_largest_absolute(block, params.neighbors))
        rest = (items - size, params.neighbors)
        parts.append((np.full(rest, -1, np.int32), np.zeros(rest)))
        return stack_blocks(parts, params.neighbors)

    @classmethod
    def space(cls, trial: "Trial", context: TuningContext) -> dict[str, Any]:
        return {
            "reg": trial.suggest_float("reg", 2.0, 3_000.0, log=True),
            "user_power": trial.suggest_float("user_power", 0.0, 1.0),
            **tuning_space.history_weights(trial, context, min_decay=0.5),
        }


def _largest_absolute(block: Float32, k: int) -> tuple[Int32, Float32]:
    """Columns int32 [rows, k] and values float32 [rows, k] of the largest |values|, by falling value; -1 for zeros."""
    width = min(k, block.shape[1])
    columns = np.argpartition(-np.abs(block), width - 1, axis=1)[:, :width]
    values = np.take_along_axis(block, columns, axis=1)
    order = np.lexsort((columns, -values), axis=1)
    neighbors = np.full((len(block), k), -1, np.int32)
    similarities = np.zeros((len(block), k), np.float32)
    neighbors[:, :width] = np.take_along_axis(columns, order, axis=1)
    similarities[:, :width] = np.take_along_axis(values, order, axis=1)
    neighbors[similarities == 0] = -1
    return neighbors, similarities


def _inverse(gram: Float32) -> Float32:
    """The inverse of a symmetric positive definite matrix float32 [n, n], in place, by Cholesky."""
    factor, failed = lapack.spotrf(gram, lower=1, overwrite_a=1, clean=0)
    if failed:
        raise ValueError(f"the item matrix is not positive definite (LAPACK spotrf: {failed}); give a larger reg")
    inverse, failed = lapack.spotri(factor, lower=1, overwrite_c=1)
    if failed:
        raise ValueError(f"the item matrix cannot be inverted (LAPACK spotri: {failed}); give a larger reg")
    lower: Float32 = np.tril(inverse)
    lower += np.tril(inverse, -1).T
    return lower
