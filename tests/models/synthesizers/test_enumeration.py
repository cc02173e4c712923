"""The most probable continuations, against chains whose powers are known."""

import numpy as np

from models.data.interactions import Interactions
from models.synthesizers.conditions import Conditions
from models.synthesizers.enumeration import enumerate_continuations, expected_after
from models.synthesizers.markov import Markov
from testing.interactions import history, ring
from testing.synthesizer_contract import started


def fitted() -> Markov:
    markov = Markov()
    markov.fit(Interactions.from_frame(started(ring(24, 8))))
    return markov


def test_one_event_is_the_distribution_itself() -> None:
    markov, conditions = fitted(), [Conditions(first=history("i3")), Conditions(first=history("i7"))]
    continuations = enumerate_continuations(markov, conditions, 1)
    shares = np.zeros((2, 12))
    np.put_along_axis(shares, continuations.items[:, :, 0].astype(np.int64), continuations.probabilities, axis=1)
    np.testing.assert_allclose(shares, markov.expected(conditions), atol=1e-5)


def test_two_events_ahead_is_the_square_of_the_chain() -> None:
    markov, conditions = fitted(), [Conditions(first=history("i3")), Conditions(first=history("i7"))]
    np.testing.assert_allclose(expected_after(markov, conditions, 1), markov.expected(conditions, 2), atol=1e-4)


def test_the_most_probable_pasts_go_round_the_ring() -> None:
    markov = fitted()
    continuations = enumerate_continuations(markov, [Conditions(later=history("i5"))], 2, backward=True, most=4)
    assert continuations.items.shape == (1, 4, 2)
    assert [markov.vocabulary.item_ids[item] for item in continuations.items[0, 0]] == ["i4", "i3"]
    np.testing.assert_allclose(continuations.probabilities.sum(), 1.0, atol=1e-5)
