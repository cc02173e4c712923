"""Popularity: weighted counts of events, the same answer for everyone."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

from models.arrays import AnyArray, Float32
from models.data.batch import Batch
from models.data.interactions import Interactions
from models.data.vocabulary import Vocabulary
from models.recommenders import tuning_space
from models.recommenders.base import ArrayRecommender, TuningContext
from models.recommenders.sparse import popularity_of
from models.recommenders.tuning_space import DAY_MS

if TYPE_CHECKING:
    from optuna import Trial


class Popularity(ArrayRecommender):
    """Sums of kind weights per item, each event counting 2^(-age / half-life)."""

    name = "popularity"
    is_personalized = False

    class Params(msgspec.Struct, frozen=True, kw_only=True):
        """`half_life_ms`: None counts all events alike."""

        half_life_ms: Annotated[float, msgspec.Meta(gt=0)] | None = 28.0 * DAY_MS

    def __init__(self, params: Params | None = None) -> None:
        self.params = params or self.Params()
        self.vocabulary = Vocabulary.from_items([])
        self.popularity: Float32 = np.zeros(0, np.float32)

    def fit(self, interactions: Interactions) -> None:
        self.vocabulary = interactions.vocabulary
        self.popularity = popularity_of(interactions, self.params.half_life_ms)

    def score(self, batch: Batch) -> Float32:
        return np.tile(self.popularity, (len(batch), 1))

    def arrays(self) -> dict[str, AnyArray]:
        return {"popularity": self.popularity}

    def restore(self, arrays: Mapping[str, Any]) -> None:
        self.popularity = arrays["popularity"]

    @classmethod
    def space(cls, trial: "Trial", context: TuningContext) -> dict[str, Any]:
        return {"half_life_ms": tuning_space.half_life(trial, context)}
