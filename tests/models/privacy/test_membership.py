"""Membership attacks find a generator that copies its users, and find nothing in one that never saw them."""

import numpy as np
import pandas as pd
import pytest

from models.data.interactions import Interactions
from models.privacy.canaries import EVENTS, exposure, histories_of, plant_canaries, returned_canaries
from models.privacy.membership import CandidateUsers, attacks, exact_copies, true_positive_rate
from models.synthesizers.fidelity import Reference
from models.synthesizers.markov import Markov

ITEMS = 300


def users(seed: int, number: int = 150) -> list[list[int]]:
    """Users with a taste for one part of the items, each in an order of their own."""
    rng = np.random.default_rng(seed)
    parts = rng.integers(0, 10, number)
    return [(30 * part + rng.choice(30, 8, replace=False)).tolist() for part in parts]


def interactions_of(sequences: list[list[int]]) -> Interactions:
    rows = [
        (f"u{user}", f"i{item:03d}", "view", 1_600_000_000_000 + 1_000 * user + 60_000 * step)
        for user, sequence in enumerate(sequences)
        for step, item in enumerate(sequence)
    ]
    rows += [(f"x{item}", f"i{item:03d}", "view", 1_600_000_000_000) for item in range(ITEMS)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "at"]).sort_values("at", kind="stable")
    return Interactions.from_frame(frame)


MEMBERS, OTHERS, PUBLIC = (histories_of(users(seed)) for seed in (1, 2, 3))
REFERENCE = Reference.fit(interactions_of(users(3)))
CANDIDATES = CandidateUsers(MEMBERS, OTHERS, PUBLIC)


def markov(sequences: list[list[int]], back_off: float) -> Markov:
    """A chain whose items have the same indices as those of `users`."""
    synthesizer = Markov(Markov.Params(back_off=back_off, smoothing=1.0))
    interactions = interactions_of(sequences)
    order = [f"i{item:03d}" for item in range(ITEMS)]
    vocabulary = type(interactions.vocabulary).from_items(order)
    numbers = np.array([vocabulary.index[item] for item in interactions.vocabulary.item_ids], np.int32)
    columns = {name: getattr(interactions, name) for name in ("users", "kinds", "at", "categories")}
    synthesizer.fit(Interactions(vocabulary=vocabulary, items=numbers[interactions.items], **columns))
    return synthesizer


def test_a_generator_that_copies_its_users_is_found() -> None:
    results = attacks(None, None, MEMBERS, CANDIDATES, REFERENCE)
    assert results[0].auc > 0.95
    assert results[0].tpr_at_1_percent > 0.8
    assert exact_copies(MEMBERS, MEMBERS) == 1.0


def test_a_generator_that_never_saw_the_members_reveals_nothing() -> None:
    synthetic = histories_of(users(4))
    for result in attacks(None, None, synthetic, CANDIDATES, REFERENCE):
        assert 0.4 < result.auc < 0.6
    assert exact_copies(synthetic, MEMBERS) == 0.0


def test_likelihoods_betray_an_overfitted_chain_and_not_a_smooth_one() -> None:
    calibration = markov(users(3), back_off=5.0)

    def auc(back_off: float) -> float:
        results = attacks(markov(users(1), back_off), calibration, PUBLIC, CANDIDATES, REFERENCE)
        return next(result.auc for result in results if result.attack == "likelihood-ratio")

    assert auc(0.1) > 0.9
    assert auc(1e5) < auc(0.1)


def test_the_curve_of_an_attack_begins_and_ends_in_the_corners() -> None:
    curve = attacks(None, None, MEMBERS, CANDIDATES, REFERENCE)[0].curve
    assert curve[0] == (0.0, 0.0)
    assert curve[-1] == (1.0, 1.0)


@pytest.mark.parametrize(("members", "rate"), [([2.0, 0.5], 0.5), ([-1.0, -2.0], 0.0)])
def test_the_true_positive_rate_counts_members_above_almost_all_others(members: list[float], rate: float) -> None:
    assert true_positive_rate(np.array(members), np.linspace(0, 1, 200)) == rate


def test_planted_canaries_stand_in_the_events_and_only_a_copy_gives_them_back() -> None:
    rng = np.random.default_rng(0)
    rows = [(f"u{user}", f"i{user % 20}", "view", 10 * user) for user in range(100)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "at"])
    whole, sequences = plant_canaries(frame, 3, rng)
    assert len(whole) == 100 + 3 * EVENTS
    assert whole["at"].is_monotonic_increasing
    planted = whole[whole["user_id"] == "canary-1"]["item_id"].tolist()
    assert planted == sequences[1]
    indices = [[int(item[1:]) for item in sequence] for sequence in sequences]
    assert returned_canaries(histories_of(indices[:2]), indices) == 2
    assert returned_canaries(histories_of([list(range(8))]), indices) == 0


def test_exposure_is_high_for_what_was_memorized() -> None:
    rng = np.random.default_rng(1)
    sequences = rng.integers(0, ITEMS, (5, 8)).tolist()
    memorizing = markov([*users(1), *sequences], back_off=0.5)
    high = exposure(memorizing, sequences, rng)
    low = exposure(memorizing, rng.integers(0, ITEMS, (5, 8)).tolist(), rng)
    assert high is not None
    assert low is not None
    assert high > 5
    assert low < 3
