"""Personal: what the user took before, newer and repeated items first; then what is popular."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

from models.arrays import AnyArray, Float32, Int32, Int64
from models.data.batch import Batch
from models.data.interactions import Interactions
from models.data.vocabulary import Vocabulary
from models.recommenders import tuning_space
from models.recommenders.base import TuningContext
from models.recommenders.sparse import SparseScorer, popularity_of
from models.recommenders.tuning_space import DAY_MS

if TYPE_CHECKING:
    from optuna import Trial


class Personal(SparseScorer):
    """Each event of the history adds its weight to its own item."""

    name = "personal"
    needs_repeats = True

    class Params(msgspec.Struct, frozen=True, kw_only=True):
        """`decay`: weight of an event against the one after it. `half_life_ms` of popularity; None: no decay."""

        decay: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.9
        half_life_ms: Annotated[float, msgspec.Meta(gt=0)] | None = 28.0 * DAY_MS

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params or self.Params())
        self.vocabulary = Vocabulary.from_items([])

    def fit(self, interactions: Interactions) -> None:
        self.vocabulary = interactions.vocabulary
        self.popularity = popularity_of(interactions, self.params.half_life_ms)

    def event_scores(self, items: Int32, weights: Float32) -> tuple[Int32, Float32]:
        real = items > 0
        return items[real] - 1, weights[real]

    def contributions(self, batch: Batch, items: Int64) -> Float32:
        weights = batch.event_weights(self.params.decay)[0]
        own: Float32 = np.where(batch.items[0][None] == items[:, None] + 1, weights, np.float32(0.0)).astype(np.float32)
        return own

    def score_sum(self, batch: Batch) -> float:
        return float(self.prior.sum() + batch.event_weights(self.params.decay)[0][batch.items[0] > 0].sum())

    def arrays(self) -> dict[str, AnyArray]:
        return {"popularity": self.popularity}

    def restore(self, arrays: Mapping[str, Any]) -> None:
        self.popularity = arrays["popularity"]

    @classmethod
    def space(cls, trial: "Trial", context: TuningContext) -> dict[str, Any]:
        return {
            "decay": trial.suggest_float("decay", 0.5, 1.0),
            "half_life_ms": tuning_space.half_life(trial, context),
        }
