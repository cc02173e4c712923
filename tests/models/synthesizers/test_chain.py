"""Chains of items: expectations are powers of the transition matrix, and samples follow them."""

import numpy as np
import pandas as pd
from scipy import sparse

from models.data.interactions import Interactions
from models.synthesizers.conditions import Conditions
from models.synthesizers.markov import STRENGTHS, Markov, deleted_strength, observed_pairs
from models.synthesizers.walk import Walk
from testing.interactions import clubs, history, ring
from testing.synthesizer_contract import expected_of, labelled, sample, started


def test_the_walk_h_steps_away_is_a_power_of_its_matrix() -> None:
    walk = Walk()
    walk.fit(Interactions.from_frame(clubs()))
    matrix = walk.forward.links[0].matrix.toarray()
    known = [walk.vocabulary.index[item] for item in ("i1", "i4")]
    start = np.zeros(len(matrix))
    start[known] = np.array([0.85, 1.0]) / 1.85
    for steps in (1, 2, 5):
        expected = walk.expected([Conditions(first=history("i1", "i4"))], steps)[0]
        np.testing.assert_allclose(expected, start @ np.linalg.matrix_power(matrix, steps), atol=1e-5)


def test_expectations_with_a_preference_agree_with_samples_of_two_steps() -> None:
    markov = Markov()
    markov.fit(labelled())
    condition = Conditions(first=history("i1", "i7"), category="left", events=2)
    drawn = sample(markov, [condition], 4_000).items.reshape(-1, 2)[:, 1]
    shares = np.bincount(drawn, minlength=len(markov.vocabulary)) / len(drawn)
    assert 0.5 * np.abs(shares - markov.expected([condition], 2)[0]).sum() < 0.05


def test_direct_draws_follow_the_dense_distribution() -> None:
    markov = Markov(Markov.Params(back_off=50.0))
    markov.fit(Interactions.from_frame(started(ring())))
    condition = Conditions(first=history("i3"), events=1)
    drawn = sample(markov, [condition], 5_000).items
    shares = np.bincount(drawn, minlength=len(markov.vocabulary)) / len(drawn)
    assert 0.5 * np.abs(shares - markov.expected([condition])[0]).sum() < 0.05


def test_a_rare_item_backs_off_to_its_category() -> None:
    rows = [(f"u{user}", item, user) for user in range(40) for item in ("a1", "b1", "a2", "b2")]
    rows += [("x", "a3", 100)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "at"]).assign(kind="view")
    categories = {item: item[0] for item in ("a1", "a2", "a3", "b1", "b2")}
    markov = Markov()
    markov.fit(Interactions.from_frame(frame.sort_values("at", kind="stable"), categories=categories))
    after = [Conditions(first=history("a3"))]
    shares = {item: float(expected_of(markov, item, after)[0]) for item in categories}
    assert shares["b1"] + shares["b2"] > 0.95  # a3 was never followed by anything; items of its category are by b


def test_the_deleted_estimate_is_the_most_likely_strength() -> None:
    markov = Markov()
    interactions = Interactions.from_frame(started(clubs()))
    markov.fit(interactions)
    counts = np.zeros((12, 12))
    same = np.diff(interactions.users) == 0
    np.add.at(counts, (interactions.items[:-1][same], interactions.items[1:][same]), 1)
    popularity = np.full(12, 1 / 12)
    likelihood = []
    for strength in STRENGTHS:
        shares = (counts - 1 + strength * popularity) / (counts.sum(axis=1, keepdims=True) - 1 + strength)
        likelihood.append((counts[counts > 0] * np.log(shares[counts > 0])).sum())
    pairs = observed_pairs(sparse.csr_matrix(counts))
    assert deleted_strength(pairs, popularity[pairs.targets]) == STRENGTHS[int(np.argmax(likelihood))]
