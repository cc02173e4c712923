"""SVD filter: a history projected onto the leading directions of who took what, as two small matrix products."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import numpy as np
from msgspec import Meta
from scipy import sparse
from scipy.sparse.linalg import svds

from models.arrays import AnyArray, Float32, Int64
from models.data.batch import Batch
from models.data.interactions import Interactions
from models.data.vocabulary import Vocabulary
from models.recommenders.base import ArrayRecommender, TuningContext
from models.recommenders.item_item import by_user_power
from models.recommenders.item_product import Product
from models.recommenders.sparse import popularity_of, popularity_prior

if TYPE_CHECKING:
    from optuna import Trial

MAX_ITEMS: Final = 32_000
"""In a look-up the product with so many items costs about as much as that of an encoder with 100,000."""
RANK_SHARE: Final = 0.25
"""Of the smaller side of the matrix: a projection of nearly full rank gives every history back as it was."""


class SVDFilter(ArrayRecommender):
    """Scores h V F V' D^item_power of a history h, V the leading right singular vectors of the matrix A.

    A is the matrix of who took what, each user of n items scaled by n^(-user_power / 2), each column by its length D to
    the power -`item_power` (PureSVD: Cremonesi, Koren & Turrin, RecSys 2010, eq. 6; the scaling as in EigenRec:
    Nikolakopoulos et al., KAIS 2019, section 3). F weighs direction r by s_r^2 / (s_r^2 + `ridge` s_last^2), s being
    the singular values. Over the `most` most popular items; the others have the popularity prior alone.
    """

    name = "svd-filter"
    reads_imagined_events = True

    class Params(msgspec.Struct, frozen=True, kw_only=True):
        """Parameters of the formula above. `decay`: weight of an event against the one after it."""

        rank: Annotated[int, Meta(ge=1)] = 256
        user_power: Annotated[float, Meta(ge=0)] = 0.5
        item_power: Annotated[float, Meta(ge=0)] = 0.8
        ridge: Annotated[float, Meta(ge=0)] = 2.0
        decay: Annotated[float, Meta(ge=0, le=1)] = 0.9
        most: Annotated[int, Meta(ge=1)] = MAX_ITEMS
        seed: int = 0

    def __init__(self, params: Params | None = None) -> None:
        self.params = params or self.Params()
        self.vocabulary = Vocabulary.from_items([])
        self._set(np.zeros(0, np.float32), np.zeros((0, 1), np.float32), np.zeros((0, 1), np.float32))

    def _set(self, popularity: Float32, inputs: Float32, outputs: Float32) -> None:
        """float32 [items], and two of [items of the filter, rank]: scores are sums of `inputs` rows times `outputs`."""
        self.popularity, self.prior = popularity, popularity_prior(popularity)
        self.inputs, self.outputs = inputs, outputs
        self._product: Product | None = None

    def fit(self, interactions: Interactions) -> None:
        params = self.params
        self.vocabulary = interactions.vocabulary
        matrix = interactions.user_item_matrix()[:, : params.most]
        matrix = by_user_power(matrix, params.user_power)
        lengths = np.sqrt(np.asarray(matrix.power(2).sum(axis=0), np.float64).ravel())
        powers = np.maximum(lengths, 1e-6) ** params.item_power
        values, directions = _leading_directions((matrix @ sparse.diags(1 / powers)).tocsr(), params.rank, params.seed)
        squares = values**2
        weights = squares / np.maximum(squares + params.ridge * squares.min(initial=np.inf), 1e-12)
        outputs = np.ascontiguousarray(directions * powers[:, None], np.float32)
        popularity = popularity_of(interactions, interactions.vocabulary.popularity_half_life_ms)
        self._set(popularity, np.ascontiguousarray(directions * weights, np.float32), outputs)

    def score(self, batch: Batch) -> Float32:
        scores = np.tile(self.prior, (len(batch), 1))
        scores[:, : len(self.outputs)] += self._projected(batch)
        return scores

    def add(self, out: Float32, batch: Batch, weights: Float32) -> None:
        used = np.flatnonzero(weights)
        inside, outside = self.prior[: len(self.outputs)], self.prior[len(self.outputs) :]
        scores = self._projected(batch if len(used) == len(batch) else batch.take(used))
        scores += inside
        np.maximum(scores, 0.0, out=scores)
        factors = weights[used] / np.maximum(scores.sum(axis=1) + outside.sum(), np.float32(1e-12))
        scores *= factors[:, None]
        for place, row in enumerate(used):
            out[row, : len(inside)] += scores[place]
            out[row, len(inside) :] += factors[place] * outside

    def contributions(self, batch: Batch, items: Int64) -> Float32:
        """float32 [items, length]: exact, since a score is a sum over the history's events."""
        numbers, weights = batch.items[0], batch.event_weights(self.params.decay)[0]
        out = np.zeros((len(items), len(numbers)), np.float32)
        size = len(self.inputs)
        columns, rows = np.flatnonzero((numbers > 0) & (numbers <= size)), np.flatnonzero(items < size)
        added = self.outputs[items[rows]] @ (self.inputs[numbers[columns] - 1] * weights[columns, None]).T
        out[np.ix_(rows, columns)] = added
        return out

    def _projected(self, batch: Batch) -> Float32:
        """float32 [batch, items of the filter]: scores without the prior."""
        if self._product is None:
            self._product = Product(self.outputs)
        weights = batch.event_weights(self.params.decay)
        users = np.zeros((len(batch), self.inputs.shape[1]), np.float32)
        for row, (numbers, weight) in enumerate(zip(batch.items, weights, strict=True)):
            known = (numbers > 0) & (numbers <= len(self.inputs))
            users[row] = weight[known] @ self.inputs[numbers[known] - 1]
        return self._product(users)

    def arrays(self) -> dict[str, AnyArray]:
        return {"popularity": self.popularity, "inputs": self.inputs, "outputs": self.outputs}

    def restore(self, arrays: Mapping[str, Any]) -> None:
        popularity, inputs, outputs = arrays["popularity"], arrays["inputs"], arrays["outputs"]
        if inputs.ndim != 2 or inputs.shape != outputs.shape or len(inputs) > len(popularity):
            raise ValueError(
                f"{self.name}: inputs {inputs.shape} and outputs {outputs.shape} do not fit {len(popularity)} items"
            )
        self._set(popularity, inputs, outputs)

    @classmethod
    def space(cls, trial: "Trial", context: TuningContext) -> dict[str, Any]:  # noqa: ARG003 - the space is the same in every context
        return {
            "rank": trial.suggest_categorical("rank", [64, 128, 256]),
            "user_power": trial.suggest_float("user_power", 0.0, 1.0),
            "item_power": trial.suggest_float("item_power", 0.2, 1.0),
            "ridge": trial.suggest_float("ridge", 0.1, 10.0, log=True),
            "decay": trial.suggest_float("decay", 0.5, 1.0),
        }


def _leading_directions(matrix: sparse.csr_matrix, rank: int, seed: int) -> tuple[Float32, Float32]:
    """The largest singular values [r] and their right singular vectors [columns, r] of a matrix; the same for a seed.

    r is `rank`, or less where the matrix is small (`RANK_SHARE`).
    """
    smaller = min(matrix.shape)
    rank = min(rank, max(1, int(RANK_SHARE * smaller)))
    if smaller <= 1 or not matrix.nnz:
        return np.zeros(1, np.float32), np.zeros((matrix.shape[1], 1), np.float32)
    start = np.random.default_rng(seed).standard_normal(smaller).astype(np.float32)
    _, values, rows = svds(matrix.astype(np.float32), k=rank, v0=start)
    return values.astype(np.float32), rows.T
