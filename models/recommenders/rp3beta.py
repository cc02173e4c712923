"""RP3beta: items that a random walk of three steps reaches, less popular ones raised."""

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from msgspec import Meta
from scipy import sparse

from models.arrays import Float32, Int32
from models.data.interactions import Interactions
from models.recommenders import tuning_space
from models.recommenders.base import TuningContext
from models.recommenders.item_item import ItemItem, nearest_by_product

if TYPE_CHECKING:
    from optuna import Trial


class RP3Beta(ItemItem):
    """From an item to one of its users, from there to one of the user's items.

    similarity(i, j) = c_j^-beta * sum over users u of both of (1 / c_i)^alpha (1 / n_u)^alpha, for c_i the users of
    item i and n_u the items of user u (Paudel, Christoffel, Newell & Bernstein, TiiS 2017, sections 3 and 4; a history
    is the first of the three steps).
    """

    name = "rp3beta"

    class Params(ItemItem.Params, frozen=True, kw_only=True):
        """Parameters of the formula above, and those of `ItemItem`."""

        neighbors: Annotated[int, Meta(ge=1)] = 200
        decay: Annotated[float, Meta(ge=0, le=1)] = 0.9
        alpha: Annotated[float, Meta(ge=0)] = 0.7
        beta: Annotated[float, Meta(ge=0)] = 0.1

    def relate(self, interactions: Interactions) -> tuple[Int32, Float32]:
        params, matrix = self.params, interactions.user_item_matrix()
        users = np.maximum(np.asarray(matrix.sum(axis=0)).ravel(), 1.0)
        items = np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1.0)
        to_users = sparse.diags(users**-params.alpha) @ matrix.T.tocsr()
        to_items = sparse.diags(items**-params.alpha) @ matrix @ sparse.diags(users**-params.beta)
        to_users, to_items = to_users.tocsr().astype(np.float32), to_items.tocsr().astype(np.float32)
        return nearest_by_product(to_users, to_items, params.neighbors)

    @classmethod
    def space(cls, trial: "Trial", context: TuningContext) -> dict[str, Any]:
        return {
            "neighbors": trial.suggest_int("neighbors", 50, 300, log=True),
            "alpha": trial.suggest_float("alpha", 0.3, 1.5),
            "beta": trial.suggest_float("beta", 0.0, 0.8),
            **tuning_space.history_weights(trial, context, min_decay=0.3),
        }
