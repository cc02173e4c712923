"""Item-kNN: the items that the same users took, by a shrunk cosine."""

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from msgspec import Meta

from models.arrays import AnyArray, Float32, Int32
from models.data.interactions import Interactions
from models.recommenders import tuning_space
from models.recommenders.base import TuningContext
from models.recommenders.item_item import ItemItem, by_user_power, nearest_by_product

if TYPE_CHECKING:
    from optuna import Trial


class ItemKNN(ItemItem):
    """Shrunk, asymmetric cosine over the users that share two items.

    similarity(i, j) = c_ij / (c_i^alpha c_j^(1 - alpha) + shrink), with c_ij the users who took both, each weighing
    n_u^-user_power for the n_u items it took, and events 2^(-age / half-life) where a half-life is given (Sarwar et
    al., WWW 2001, section 3; alpha as in Aiolli, RecSys 2013; shrinkage as in Dacrema et al., RecSys 2019).
    """

    name = "item-knn"

    class Params(ItemItem.Params, frozen=True, kw_only=True):
        """Parameters of the formula above, and those of `ItemItem`."""

        shrink: Annotated[float, Meta(ge=0)] = 10.0
        alpha: Annotated[float, Meta(ge=0, le=1)] = 0.5
        user_power: Annotated[float, Meta(ge=0)] = 0.0
        half_life_ms: Annotated[float, Meta(gt=0)] | None = None

    def relate(self, interactions: Interactions) -> tuple[Int32, Float32]:
        params = self.params
        matrix = by_user_power(interactions.user_item_matrix(params.half_life_ms), params.user_power)
        totals = np.asarray(matrix.power(2).sum(axis=0)).ravel()
        from_powers, to_powers = totals**params.alpha, totals ** (1 - params.alpha)

        def shrunk(items: AnyArray, others: AnyArray, shared: AnyArray) -> AnyArray:
            weighed: AnyArray = shared / (from_powers[items] * to_powers[others] + params.shrink)
            return weighed

        return nearest_by_product(matrix.T.tocsr(), matrix, params.neighbors, shrunk)

    @classmethod
    def space(cls, trial: "Trial", context: TuningContext) -> dict[str, Any]:
        return {
            "neighbors": trial.suggest_int("neighbors", 20, 300, log=True),
            "shrink": trial.suggest_float("shrink", 0.01, 50.0, log=True),
            "alpha": trial.suggest_float("alpha", 0.3, 1.0),
            "user_power": trial.suggest_float("user_power", 0.0, 1.0),
            "half_life_ms": tuning_space.half_life(trial, context),
            **tuning_space.history_weights(trial, context, min_decay=0.3),
        }
