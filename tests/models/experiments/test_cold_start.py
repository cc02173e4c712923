"""What arms add to, and what is chosen on tuning users."""

import numpy as np
import pytest

from models.evaluation.opponent import BLEND, BY_HORIZON
from models.experiments.cold_start import base_weights, best_by_k, tuning_values
from models.recommenders.blend import BUCKETS
from models.recommenders.blend_weights import Evidence, EvidenceBuilder


def evidence(cases: int = 60) -> tuple[Evidence, np.ndarray]:
    """Member a knows the next event of users of one event, member b the second one; c and its scale know nothing."""
    rng = np.random.default_rng(0)
    builder = EvidenceBuilder(("a", "b", "c"))
    horizons = np.arange(cases) % 2 + 1
    for case, horizon in enumerate(horizons):
        tables = rng.random((3, 40)).astype(np.float32)
        tables[2] *= 5
        target = int(rng.integers(40))
        tables[horizon - 1, target] = 2.0
        builder.add(tables, [target], target_count=1, length=1, user=case)
    return builder.build(), horizons


def test_the_base_is_the_mean_of_both_blends_on_one_scale() -> None:
    known, _ = evidence()
    rng = np.random.default_rng(1)
    blends = {BLEND: rng.dirichlet(np.ones(3), BUCKETS), BY_HORIZON: rng.dirichlet(np.ones(3), (5, BUCKETS))}
    base = base_weights(blends, known)
    assert (base @ known.scales).ravel().tolist() == pytest.approx([1.0] * 5 * BUCKETS)
    pooled = blends[BLEND][1] / (blends[BLEND][1] @ known.scales)
    own = blends[BY_HORIZON][2, 1] / (blends[BY_HORIZON][2, 1] @ known.scales)
    assert base[2, 1].tolist() == pytest.approx(((pooled + own) / 2).tolist())
    longest = blends[BLEND][-1] / (blends[BLEND][-1] @ known.scales)
    assert base[:, -1].tolist() == [pytest.approx(longest.tolist())] * 5


def test_values_on_tuning_users_by_number_of_known_events_and_the_best_arm() -> None:
    known, horizons = evidence()
    by_horizon = np.tile(np.eye(3)[0], (5, BUCKETS, 1))
    by_horizon[1:] = np.eye(3)[1]
    tuned = tuning_values(known, horizons, {BY_HORIZON: by_horizon}, [0, 1])
    assert tuned[BY_HORIZON] == {0: 0.0, 1: 1.0}
    assert 0.5 < tuned["a"][1] < 0.7
    assert tuned["c"][1] < 0.4
    assert best_by_k(tuned, ["a", "c", BY_HORIZON])[1] == BY_HORIZON
    assert best_by_k(tuned, ["c", "a"])[1] == "a"
