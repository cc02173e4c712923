"""What constraints cost: how far the generated events move away from those without constraints."""

from collections.abc import Sequence

import msgspec
import numpy as np

from models.synthesizers.base import SamplingOptions, Synthesizer
from models.synthesizers.conditions import Conditions
from models.synthesizers.decoding import ItemConstraint
from models.synthesizers.fidelity import Reference, overlap, statistics_of


class ConstraintCost(msgspec.Struct, frozen=True):
    """Total variation distance of two distributions, 0 to 1.

    `distance`: between samples with and without the constraints. `noise`: between two samples without them, as large
    and of different seeds; only what is above it is the constraints' doing.
    """

    distance: float
    noise: float


def constraint_cost(
    synthesizer: Synthesizer,
    conditions: Sequence[Conditions],
    n: int,
    constraints: Sequence[ItemConstraint],
    reference: Reference,
    seed: int = 0,
) -> dict[str, ConstraintCost]:
    """The cost by aspect: `items`, `transitions` between items, `group-transitions`, `lengths`.

    `n` histories are sampled for each condition, three times.
    """
    options = (SamplingOptions(constraints=tuple(constraints)), SamplingOptions(), SamplingOptions())
    with_them, without, again = (
        statistics_of(synthesizer.sample(conditions, n, np.random.default_rng(seed + number), each), reference)
        for number, each in enumerate(options)
    )
    return {
        name: ConstraintCost(
            distance=1 - overlap(without.distributions[name], with_them.distributions[name]),
            noise=1 - overlap(without.distributions[name], again.distributions[name]),
        )
        for name in ("items", "transitions", "group-transitions", "lengths")
    }
