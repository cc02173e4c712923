"""Sequential rules: the items that follow an item within a few events."""

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from msgspec import Meta
from scipy import sparse

from models.arrays import Float32, Int32
from models.data.interactions import Interactions
from models.recommenders import tuning_space
from models.recommenders.base import TuningContext
from models.recommenders.item_item import ItemItem, largest_in_rows, stack_blocks

if TYPE_CHECKING:
    from optuna import Trial


class SequentialRules(ItemItem):
    """Which items follow which within `steps` events of a user, nearer ones counting 1 / distance.

    similarity(i, j) = f_ij / (f_i + shrink) * (f_j + shrink)^-discount: f_ij is the sum over the times that j followed
    i (Ludewig & Jannach, UMUAI 2018, section 3.1), with `discount` against what follows everything.
    """

    name = "sequential-rules"

    class Params(ItemItem.Params, frozen=True, kw_only=True):
        """Parameters of the formula above, and those of `ItemItem`."""

        neighbors: Annotated[int, Meta(ge=1)] = 100
        decay: Annotated[float, Meta(ge=0, le=1)] = 0.6
        steps: Annotated[int, Meta(ge=1)] = 5
        shrink: Annotated[float, Meta(ge=0)] = 1.0
        discount: Annotated[float, Meta(ge=0)] = 0.2
        half_life_ms: Annotated[float, Meta(gt=0)] | None = None

    def relate(self, interactions: Interactions) -> tuple[Int32, Float32]:
        params, users, items = self.params, interactions.users, interactions.items
        size = len(interactions.vocabulary)
        weights = interactions.event_weights(params.half_life_ms)
        total: Any = 0 * sparse.eye_array(size, dtype=np.float32, format="csr")
        for step in range(1, min(params.steps, len(interactions) - 1) + 1):
            pair = (users[:-step] == users[step:]) & (items[:-step] != items[step:])
            pairs = (items[:-step][pair], items[step:][pair])
            total = total + sparse.csr_matrix(((weights[step:][pair] / step).astype(np.float32), pairs), (size, size))
        followed = np.asarray(total.sum(axis=1)).ravel() + params.shrink
        discounts = (np.asarray(total.sum(axis=0)).ravel() + params.shrink) ** -params.discount
        weighted = sparse.diags(1 / np.maximum(followed, 1e-9)) @ total @ sparse.diags(discounts)
        return stack_blocks([largest_in_rows(weighted.tocsr(), params.neighbors)], params.neighbors)

    @classmethod
    def space(cls, trial: "Trial", context: TuningContext) -> dict[str, Any]:
        return {
            "neighbors": trial.suggest_int("neighbors", 50, 300, log=True),
            "steps": trial.suggest_int("steps", 1, 15),
            "shrink": trial.suggest_float("shrink", 0.1, 50.0, log=True),
            "discount": trial.suggest_float("discount", 0.0, 0.6),
            "half_life_ms": tuning_space.half_life(trial, context),
            **tuning_space.history_weights(trial, context, min_decay=0.1),
        }
