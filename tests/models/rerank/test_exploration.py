"""Propensities against how often things are really drawn, and estimates from a simulated log against the truth."""

import numpy as np
import pytest

from models.errors import ModelError
from models.rerank.exploration import (
    MIX,
    ExplorationDraw,
    draw_probabilities,
    explore,
    ips,
    propensities_of,
    seed_from,
    snips,
)
from stream.events import Impression


def test_draw_probabilities_by_hand() -> None:
    even = MIX / 2
    assert draw_probabilities(np.array([3.0, 1.0], np.float32), False) == pytest.approx(
        [0.8 * 0.75 + even, 0.8 * 0.25 + even]
    )
    logits = np.log(np.array([3.0, 1.0])).astype(np.float32)
    assert draw_probabilities(logits, True) == pytest.approx([0.8 * 0.75 + even, 0.8 * 0.25 + even])
    new = draw_probabilities(np.array([3.0, 1.0, np.nan], np.float32), False)
    assert new == pytest.approx([0.8 * x / 1.5 + MIX / 3 for x in (0.75, 0.25, 0.5)])
    assert draw_probabilities(np.array([np.nan, np.nan], np.float32), False) == pytest.approx([0.5, 0.5])
    assert draw_probabilities(np.zeros(4, np.float32), False) == pytest.approx([0.25] * 4)


def test_propensities_match_observed_frequencies() -> None:
    pools = [[3.0, 1.0], [], [1.0]]  # the first with MIX: .7 and .3
    share, times = 0.3, 20_000
    seen: dict[tuple[int, int | None], int] = {}
    propensities: dict[tuple[int, int | None], float] = {}
    for number in range(times):
        for slot, draw in enumerate(
            explore(pools, False, share, np.random.default_rng(seed_from(f"request-{number}")))
        ):
            seen[slot, draw.place] = seen.get((slot, draw.place), 0) + 1
            propensities[slot, draw.place] = draw.propensity
    assert propensities == pytest.approx(
        {(0, 0): 0.21, (0, 1): 0.09, (0, None): 0.7, (1, None): 1.0, (2, 0): 0.3, (2, None): 0.7}
    )
    for key, count in seen.items():
        assert count / times == pytest.approx(propensities[key], abs=0.012)  # three standard errors of the widest


def test_draws_are_reproducible_and_slots_are_independent() -> None:
    pool = [0.02] * 50
    first, again = (explore([pool] * 9, False, 0.5, np.random.default_rng(seed_from("r1"))) for _ in range(2))
    assert first == again
    other = explore([pool, [], *[pool] * 7], False, 0.5, np.random.default_rng(seed_from("r1")))
    assert other[2:] == first[2:]
    assert explore([pool] * 3, False, 0.0, np.random.default_rng(0)) == [ExplorationDraw(None, 1.0)] * 3


def test_off_policy_estimates_are_unbiased_and_the_plain_mean_is_not() -> None:
    """1,000 logs of a policy that shows item 0 in 80% of cases; the target shows the rare items."""
    rng = np.random.default_rng(5)
    logging, target = np.array([0.8, 0.1, 0.1]), np.array([0.1, 0.2, 0.7])
    clicks = np.array([0.05, 0.2, 0.5])
    truth = float(target @ clicks)  # .395
    estimates, weighed, inside, plain = [], [], 0, []
    for _ in range(1_000):
        shown = rng.choice(3, 400, p=logging)
        rewards = (rng.random(400) < clicks[shown]).astype(np.float64)
        estimate = ips(rewards, logging[shown], target[shown])
        estimates.append(estimate.value)
        inside += abs(estimate.value - truth) <= 1.96 * estimate.error
        weighed.append(snips(rewards, logging[shown], target[shown]).value)
        plain.append(rewards.mean())
    spread = float(np.std(estimates)) / np.sqrt(1_000)
    assert abs(np.mean(estimates) - truth) < 3 * spread
    assert abs(np.mean(weighed) - truth) < 0.01
    assert np.std(weighed) < np.std(estimates)
    assert 900 <= inside <= 990
    assert abs(np.mean(plain) - truth) > 0.25


def test_the_effective_number_of_observations() -> None:
    estimate = ips(np.ones(4), np.full(4, 0.5), np.full(4, 0.5))
    assert (estimate.value, estimate.effective) == (1.0, 4.0)
    with pytest.raises(ModelError, match="above zero"):
        ips(np.ones(1), np.zeros(1), np.ones(1))


def test_propensities_are_read_from_an_impression() -> None:
    def shown(text: object) -> Impression:
        return Impression(event_id="i", user_id="u", item_ids=["a", "b"], at=0, context={"propensities": text})  # type: ignore[dict-item]

    assert propensities_of(shown("[1.0, 0.05]")).tolist() == [1.0, 0.05]
    for bad in ("[1.0]", "[1.0, 0]", "[1.0, 2]", "many", None):
        with pytest.raises(ModelError, match="impression i"):
            propensities_of(shown(bad))
