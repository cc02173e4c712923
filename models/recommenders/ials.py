"""Implicit alternating least squares: factors by the package `implicit`, users folded in at look-up."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from models.arrays import AnyArray, Float32, Int64
from models.data.batch import Batch
from models.data.interactions import Interactions
from models.data.vocabulary import Vocabulary
from models.recommenders.base import ArrayRecommender, TuningContext
from models.recommenders.sparse import popularity_of, popularity_prior

if TYPE_CHECKING:
    from optuna import Trial


class IALS(ArrayRecommender):
    """Weighted matrix factorization of who took what (Hu, Koren & Volinsky, ICDM 2008).

    A history's vector is the least-squares solution against the item factors (their eq. 4), so that a user who came
    after training is served as one who was there. Confidence of an event is `alpha` times its weight in the history.
    """

    name = "ials"
    reads_imagined_events = True

    class Params(msgspec.Struct, frozen=True, kw_only=True):
        """`decay`: weight of an event against the one after it; the others as in the paper."""

        factors: Annotated[int, Meta(ge=1)] = 64
        reg: Annotated[float, Meta(gt=0)] = 0.05
        alpha: Annotated[float, Meta(gt=0)] = 10.0
        iterations: Annotated[int, Meta(ge=1)] = 12
        decay: Annotated[float, Meta(ge=0, le=1)] = 0.95
        seed: int = 0

    def __init__(self, params: Params | None = None) -> None:
        self.params = params or self.Params()
        self.vocabulary = Vocabulary.from_items([])
        self.popularity: Float32 = np.zeros(0, np.float32)
        self.item_factors: Float32 = np.zeros((0, self.params.factors), np.float32)
        self._gram: Float32 | None = None

    def fit(self, interactions: Interactions) -> None:
        from implicit.cpu.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits

        params = self.params
        self.vocabulary = interactions.vocabulary
        self.popularity = popularity_of(interactions, interactions.vocabulary.popularity_half_life_ms)
        settings = {"regularization": params.reg, "alpha": params.alpha, "iterations": params.iterations}
        with threadpool_limits(1, "blas"):  # implicit runs its own threads
            model = AlternatingLeastSquares(params.factors, random_state=params.seed, **settings)
            model.fit(interactions.user_item_matrix(), show_progress=False)
        self.item_factors = np.asarray(model.item_factors, np.float32)
        self._gram = None

    def score(self, batch: Batch) -> Float32:
        params, factors = self.params, self.item_factors
        if self._gram is None:
            self._gram = (factors.T @ factors + params.reg * np.eye(params.factors)).astype(np.float32)
        confidences = params.alpha * batch.event_weights(params.decay)
        users = np.zeros((len(batch), params.factors), np.float32)
        for row in np.flatnonzero(batch.has_history):
            real = batch.items[row] > 0
            taken, confidence = factors[batch.items[row][real] - 1], confidences[row][real]
            excess = taken.T * (confidence - _background(batch)[real])
            users[row] = np.linalg.solve(self._gram + excess @ taken, taken.T @ confidence)
        scores: Float32 = users @ factors.T
        scores += popularity_prior(self.popularity)
        return scores

    def contributions(self, batch: Batch, items: Int64) -> Float32:
        """float32 [items, length]: exact, since a score is a sum over the user's events (the paper's section 5)."""
        params, numbers = self.params, batch.items[0]
        out = np.zeros((len(items), len(numbers)), np.float32)
        columns = np.flatnonzero(numbers > 0)
        if not len(columns):
            return out
        taken = self.item_factors[numbers[columns] - 1]
        confidence = params.alpha * batch.event_weights(params.decay)[0, columns]
        gram = self.item_factors.T @ self.item_factors + params.reg * np.eye(params.factors)
        gram = gram + (taken.T * (confidence - _background(batch)[columns])) @ taken
        out[:, columns] = self.item_factors[items] @ np.linalg.solve(gram, taken.T * confidence)
        return out

    def arrays(self) -> dict[str, AnyArray]:
        return {"popularity": self.popularity, "factors": self.item_factors}

    def restore(self, arrays: Mapping[str, Any]) -> None:
        self.popularity, self.item_factors = arrays["popularity"], arrays["factors"]
        self._gram = None

    @classmethod
    def space(cls, trial: "Trial", context: TuningContext) -> dict[str, Any]:  # noqa: ARG003 - the space is the same in every context
        return {
            "factors": trial.suggest_int("factors", 32, 192, log=True),
            "reg": trial.suggest_float("reg", 1e-3, 3.0, log=True),
            "alpha": trial.suggest_float("alpha", 1.0, 50.0, log=True),
            "iterations": trial.suggest_int("iterations", 6, 20),
            "decay": trial.suggest_float("decay", 0.7, 1.0),
        }


def _background(batch: Batch) -> Float32:
    """float32 [length]: the confidence that an event replaces: 1, that of all items; 0 for imagined events, which add
    to it, so that little weight changes little."""
    background = np.ones(batch.items.shape[1], np.float32)
    if batch.imagined is not None:
        background[: batch.imagined.shape[1]] = 0.0
    return background
