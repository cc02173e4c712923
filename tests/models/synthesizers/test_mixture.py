"""Weights by segment, and what a mixture does with them."""

import numpy as np
import pytest

from features.activity import History
from models.data.interactions import Interactions
from models.synthesizers.conditions import ANYTHING, Conditions, SynthesisError
from models.synthesizers.mixture import Mixture
from models.synthesizers.segment_weights import SegmentWeights, learn_weights, mixture_weights, segment_of
from testing.interactions import history, ring


def test_weights_are_those_of_the_likeliest_mixture() -> None:
    """Three of four cases come from the first member alone: the likelihood (w)^3 (1 - w) is largest at w = 3/4."""
    likelihoods = np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    assert mixture_weights(likelihoods, np.full(2, 0.5), 0.0) == pytest.approx([0.75, 0.25], abs=1e-6)
    assert mixture_weights(likelihoods, np.full(2, 0.5), 4.0) == pytest.approx([0.625, 0.375], abs=1e-3)


def test_a_segment_without_gain_gets_no_synthesis() -> None:
    """With nothing known the member is as likely as popularity; with an event known ten times as likely."""
    logs = np.log(np.array([[0.1, 0.1], [0.5, 0.05]] * 40))
    segments, users = ["0", "1"] * 40, np.repeat(np.arange(40), 2)
    learned = learn_weights(logs, segments, users, shrink=1.0)
    assert learned["0"].weights == [0.0, 1.0]
    assert learned["1"].weights[0] > 0.9
    assert learned["1"].gain == pytest.approx(np.log(10), abs=0.2)
    assert learned["1"].cases == 40


def test_a_segment_is_the_number_of_known_events_and_a_profile_value() -> None:
    known = Conditions(first=history(*"abcdefg"), profile={"group": "young", "age": 30})
    assert segment_of(known, "") == "5"
    assert segment_of(known, "group") == "5 group=young"
    assert segment_of(ANYTHING, "group") == "0"


@pytest.fixture(scope="module")
def mixture() -> Mixture:
    fitted = Mixture(Mixture.Params(members=("markov", "article-gan"), member_params={"article-gan": {"steps": 5}}))
    fitted.fit(Interactions.from_frame(ring()))
    return fitted


def test_the_better_member_gets_the_weight_and_the_report_says_so(mixture: Mixture) -> None:
    row = next(row for row in mixture.report() if row["segment"] == "2")
    assert row["markov"] > 0.9
    assert row["gain"] > row["lower_bound"] > 0


def test_expectations_are_the_weighted_mean_of_the_members(mixture: Mixture) -> None:
    markov, gan = mixture.members
    mixture.segments["0"] = SegmentWeights([0.2, 0.3, 0.5])
    parts = [member.expected([ANYTHING]) for member in (markov, gan, mixture.none)]
    np.testing.assert_allclose(
        mixture.expected([ANYTHING]), 0.2 * parts[0] + 0.3 * parts[1] + 0.5 * parts[2], atol=1e-6
    )


def test_a_condition_goes_to_the_members_that_read_it(mixture: Mixture) -> None:
    mixture.segments["1"] = SegmentWeights([0.1, 0.9, 0.0])
    assert mixture.weights([Conditions(first=history("i1"))])[0].tolist() == [1.0, 0.0, 0.0]
    with pytest.raises(SynthesisError, match=r"no member of the mixture reads context together"):
        mixture.weights([Conditions(at=1_000, first=History())])
