"""Imagined histories on the ring, where what follows is known."""

from typing import Any

import numpy as np
import pytest

from features.activity import History
from models.data.batch import Batch, batch_histories
from models.data.interactions import Interactions
from models.injection.injection import Injection
from models.injection.sampled import Enumerated, Sampled
from models.recommenders.item_knn import ItemKNN
from models.synthesizers.markov import Markov
from testing.interactions import RING, history, ring

LOG = Interactions.from_frame(ring())


@pytest.fixture(scope="module")
def markov() -> Markov:
    """Certain of what follows: its back-off is negligible."""
    synthesizer = Markov(Markov.Params(back_off=1e-6, category_back_off=1e-6))
    synthesizer.fit(LOG)
    return synthesizer


def batch_for(*histories: History) -> Batch:
    return batch_histories(histories, LOG.vocabulary, 8)


def names(paths: Any) -> list[list[str]]:
    return [[LOG.vocabulary.item_ids[number - 1] for number in path if number] for path in paths]


def test_samples_follow_the_known_events_or_precede_them(markov: Markov) -> None:
    batch = batch_for(history("i3", "i4"))
    after = Sampled(markov, paths=3, events=2).of(batch)
    before = Sampled(markov, paths=2, events=2, before=True).of(batch)
    assert names(after.items[0]) == [["i5", "i6"]] * 3
    assert names(before.items[0]) == [["i1", "i2"]] * 2
    assert after.shares.tolist() == [[pytest.approx(1 / 3)] * 3]
    assert before.before
    assert not after.before


def test_enumerated_pasts_are_oldest_first(markov: Markov) -> None:
    imagined = Enumerated(markov, events=2, most=2, before=True).of(batch_for(history("i3")))
    assert names(imagined.items[0])[0] == ["i1", "i2"]
    assert imagined.shares[0, 0] == pytest.approx(1.0, abs=1e-4)


def test_seeds_give_other_samples_and_equal_histories_the_same(markov: Markov) -> None:
    synthesizer = Markov(Markov.Params(back_off=1_000.0))
    synthesizer.fit(LOG)
    batch = batch_for(history("i3"), history("i8"), history("i3"))
    first, again, other = (Sampled(synthesizer, paths=8, events=3, seed=seed).of(batch) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.items, again.items)
    np.testing.assert_array_equal(first.items[0], first.items[2])
    assert (first.items != other.items).any()


def test_a_linear_recommender_gives_the_mean_of_its_answers_to_each_path() -> None:
    """Each path's two events weigh a half of .6 each; answers are shares, so the mean is over shares."""
    synthesizer = Markov(Markov.Params(back_off=1_000.0))
    synthesizer.fit(LOG)
    member = ItemKNN()
    member.fit(LOG)
    imagination, batch = Sampled(synthesizer, paths=4, events=2), batch_for(history("i3"))
    answers = []
    for path in imagination.of(batch).items[0]:
        scores = member.prior + 0.3 * row(member, LOG.vocabulary.index["i3"])
        for number in path:
            scores = scores + 0.3 * 0.6 / 2 * row(member, int(number) - 1)
        answers.append(scores / scores.sum())
    arm = Injection(member, imagination, weight=(0.0, 0.6))
    np.testing.assert_allclose(arm.probabilities(batch)[0], np.mean(answers, axis=0), rtol=1e-4)
    assert arm.injected_events(batch).tolist() == [8]


def row(member: ItemKNN, item: int) -> Any:
    out = np.zeros(RING)
    np.add.at(out, member.neighbors[item], member.similarities[item] * (member.neighbors[item] >= 0))
    return out
