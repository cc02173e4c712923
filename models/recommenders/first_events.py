"""First events: popularity among what users took first, the same answer for everyone."""

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

from models.data.interactions import Interactions
from models.recommenders import tuning_space
from models.recommenders.base import TuningContext
from models.recommenders.popularity import Popularity
from models.recommenders.sparse import popularity_of, popularity_prior

if TYPE_CHECKING:
    from optuna import Trial


class FirstEvents(Popularity):
    """Sums of kind weights per item over each user's first `events` events, each counting 2^(-age / half-life).

    New users take other items than those who have been there for long. Items of equal score are ordered by all events.
    """

    name = "first-events"

    class Params(msgspec.Struct, frozen=True, kw_only=True):
        """`events` of each user. `half_life_ms`: None counts all events alike."""

        events: Annotated[int, msgspec.Meta(ge=1)] = 10
        half_life_ms: Annotated[float, msgspec.Meta(gt=0)] | None = None

    params: Params

    def __init__(self, params: Params | None = None) -> None:
        super().__init__()
        self.params = params or self.Params()

    @property
    def answers_empty_histories(self) -> bool:
        return True

    def fit(self, interactions: Interactions) -> None:
        self.vocabulary = interactions.vocabulary
        starts = np.searchsorted(interactions.users, np.arange(interactions.user_count))
        places = np.arange(len(interactions)) - starts[interactions.users]
        weights = interactions.event_weights(self.params.half_life_ms) * (places < self.params.events)
        counts = np.bincount(interactions.items, weights, len(interactions.vocabulary)).astype(np.float32)
        self.popularity = counts + popularity_prior(popularity_of(interactions, self.params.half_life_ms))

    @classmethod
    def space(cls, trial: "Trial", context: TuningContext) -> dict[str, Any]:
        return {
            "events": trial.suggest_int("events", 1, 100, log=True),
            "half_life_ms": tuning_space.half_life(trial, context),
        }
