"""Synthetic profiles: pairs as in the data, exact conditioning, no rare combination."""

import numpy as np
import pytest

from models.arrays import Int32
from models.data.interactions import Interactions
from models.data.profiles import Attribute, ProfileSchema
from models.synthesizers.conditions import ANYTHING
from models.synthesizers.markov import Markov
from models.synthesizers.profiles import FREE, FREQUENT, ProfileModel
from models.synthesizers.streams import RandomStreams
from testing.interactions import tastes
from testing.synthesizer_contract import sample

SCHEMA = ProfileSchema([Attribute(name, ("x", "y", "z")) for name in "abc"])


@pytest.fixture(scope="module")
def codes() -> Int32:
    """b follows a in 80% of the users, c follows b in 80%."""
    rng = np.random.default_rng(0)
    columns = [rng.integers(1, 4, 3_000)]
    for _ in range(2):
        columns.append(np.where(rng.random(3_000) < 0.8, columns[-1], rng.integers(1, 4, 3_000)))
    return np.column_stack(columns).astype(np.int32)


@pytest.fixture(scope="module")
def model(codes: Int32) -> ProfileModel:
    model = ProfileModel()
    model.fit_codes(SCHEMA, codes)
    return model


def streams(rows: int) -> RandomStreams:
    return RandomStreams(np.arange(rows, dtype=np.int64), 1)


def pairs(codes: Int32, left: int, right: int) -> np.ndarray:
    table = np.zeros((4, 4))
    np.add.at(table, (codes[:, left], codes[:, right]), 1 / len(codes))
    return table


def test_the_tree_is_the_chain_and_pairs_are_those_of_the_data(model: ProfileModel, codes: Int32) -> None:
    edges = {frozenset((child, parent)) for child, parent in enumerate(model.parents.tolist()) if parent >= 0}
    assert edges == {frozenset((0, 1)), frozenset((1, 2))}
    drawn = model.draw(streams(20_000))
    for left, right in ((0, 1), (1, 2), (0, 2)):
        assert 0.5 * np.abs(pairs(drawn, left, right) - pairs(codes, left, right)).sum() < 0.03


def test_what_is_given_stays_and_decides_the_rest(model: ProfileModel, codes: Int32) -> None:
    given = np.full((20_000, 3), FREE, np.int32)
    given[:, 2] = 1
    drawn = model.sample(given, streams(20_000))
    assert (drawn[:, 2] == 1).all()
    real = np.bincount(codes[codes[:, 2] == 1, 0], minlength=4) / (codes[:, 2] == 1).sum()
    np.testing.assert_allclose(np.bincount(drawn[:, 0], minlength=4) / 20_000, real, atol=0.03)


def test_no_rare_combination_comes_back() -> None:
    rng = np.random.default_rng(0)
    schema = ProfileSchema([Attribute(name, tuple("12345678")) for name in "abcd"])
    codes = rng.integers(1, 9, (400, 4)).astype(np.int32)  # of 4096 combinations: nearly all are unique
    codes = np.concatenate([codes, np.ones((FREQUENT, 4), np.int32)])
    model = ProfileModel()
    model.fit_codes(schema, codes)
    real, counts = np.unique(codes, axis=0, return_counts=True)
    rare = {tuple(row) for row in real[counts < FREQUENT].tolist()}
    drawn = model.draw(streams(5_000))
    assert not rare & {tuple(row) for row in drawn.tolist()}
    assert (drawn > 0).all(axis=1).mean() > 0.95


def test_a_loaded_model_draws_the_same(model: ProfileModel) -> None:
    loaded = ProfileModel.from_arrays(model.arrays())
    np.testing.assert_array_equal(model.draw(streams(50)), loaded.draw(streams(50)))


def test_histories_have_profiles_that_fit_their_events() -> None:
    frame, profiles = tastes("profile")
    markov = Markov()
    markov.fit(Interactions.from_frame(frame, profiles=profiles))
    histories = sample(markov, [ANYTHING], 300)
    assert {profile["group"] for profile in histories.profiles if profile} == {"young", "old"}
    young = markov.vocabulary.index["a"]
    took = [young in histories.take(np.array([row])).items for row in range(300)]
    groups = np.array([profile is not None and profile["group"] == "young" for profile in histories.profiles])
    assert groups[took].mean() > 0.6
