"""Freshness by hand: ages, live shares, and a replay in the order of time."""

import numpy as np
import pandas as pd
import pytest

from features.activity import History
from models.data.batch import Batch, batch_histories
from models.data.interactions import Interactions
from models.data.item_features import ItemFeatures
from models.data.profiles import RequestContext
from models.evaluation.progressive import LogReplay, ReplayWindow, ScoreMix, mean_interval
from models.recommenders.freshness import FLOOR, Fresh, first_seen, mix, prior_of
from models.recommenders.live_popularity import RequestTimePopularity
from models.recommenders.popularity import Popularity

HOUR = 60 * 60 * 1000


def frame(*rows: tuple[str, str, int]) -> pd.DataFrame:
    return pd.DataFrame([(*row[:2], "click", row[2]) for row in rows], columns=["user_id", "item_id", "kind", "at"])


def fresh_of(half_life_ms: float, live: float) -> Fresh:
    """Freshness around all-time popularity, with live popularity of an hour's half-life."""
    inside = Popularity(Popularity.Params(half_life_ms=None))
    return Fresh(inside, Fresh.Params(half_life_ms=half_life_ms, live_half_life_ms=HOUR, live=live))


def test_an_item_loses_half_with_every_half_life_of_its_age() -> None:
    first = np.array([200 * HOUR, 194 * HOUR, 188 * HOUR, 0])
    assert prior_of(first, 6 * HOUR).tolist() == pytest.approx([1.0, 0.5, 0.25, FLOOR])
    assert prior_of(np.zeros(0, np.int64), HOUR).tolist() == []


def test_an_item_is_as_old_as_its_first_event() -> None:
    log = frame(("u", "a", 5), ("v", "b", 7), ("v", "a", 9))
    vocabulary = Interactions.from_frame(log).vocabulary
    assert dict(zip(vocabulary.item_ids, first_seen(log, vocabulary).tolist(), strict=True)) == {"a": 5, "b": 7}


def test_an_item_that_nobody_took_is_as_new_as_the_newest() -> None:
    rows = frame(("u", "a", 2 * HOUR), ("v", "b", 8 * HOUR))
    log = Interactions.from_frame(rows, item_features=ItemFeatures(["c"]))
    assert log.vocabulary.item_ids == ["a", "b", "c"]
    assert first_seen(rows, log.vocabulary).tolist() == [2 * HOUR, 8 * HOUR, 8 * HOUR]
    fresh = fresh_of(6 * HOUR, 0.0)
    fresh.fit(log)
    assert fresh.prior is not None
    assert fresh.prior.tolist() == [0.5, 1.0, 1.0]


def test_shares_times_age_and_what_is_popular_now() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2]], np.float32)
    prior, live = np.array([0.2, 1.0, 0.5], np.float32), np.array([0.0, 0.0, 1.0], np.float32)
    mixed = mix(probabilities.copy(), prior, live, 0.5)
    assert mixed[0].tolist() == pytest.approx([0.1 / 0.5 / 2, 0.3 / 0.5 / 2, 0.1 / 0.5 / 2 + 0.5])
    assert mix(probabilities.copy(), None, live, 0.0)[0].tolist() == pytest.approx([0.5, 0.3, 0.2])


def live_scores(log: Interactions, *times: int) -> list[dict[str, float]]:
    recommender = RequestTimePopularity(RequestTimePopularity.Params(half_life_ms=float(HOUR)))
    recommender.fit(log)
    contexts = tuple(RequestContext(None, at) for at in times)
    nothing = np.zeros((len(times), 1), np.int32)
    scores = recommender.score(Batch(nothing, nothing, nothing, contexts=contexts))
    return [dict(zip(log.vocabulary.item_ids, row, strict=True)) for row in scores.tolist()]


def test_live_popularity_counts_what_came_before_each_request() -> None:
    """Times in any order; an event at the time of the request itself does not count."""
    log = Interactions.from_frame(
        frame(("u", "a", 0), ("v", "b", HOUR), ("w", "a", 2 * HOUR), ("u", "b", 2 * HOUR)), kind_weights=(1.0,) * 20
    )
    late, early, middle, same = live_scores(log, 3 * HOUR, HOUR, 2 * HOUR, HOUR)
    assert early == same == {"a": 0.5, "b": 0.0}
    assert middle == {"a": 0.25, "b": 0.5}
    assert late == {"a": 0.125 + 0.5, "b": 0.25 + 0.5}


def test_live_popularity_without_a_time_is_that_after_the_last_event() -> None:
    log = Interactions.from_frame(frame(("u", "a", 0), ("v", "b", HOUR)))
    (now,) = live_scores(log, 0)
    assert now["b"] == pytest.approx(2 * now["a"])


def test_a_fresh_recommender_prefers_the_new_and_the_popular_of_now() -> None:
    log = Interactions.from_frame(
        frame(*[(f"u{n}", "old", n) for n in range(8)], ("u8", "new", 48 * HOUR), ("u9", "new", 48 * HOUR))
    )
    plain, fresh = Popularity(Popularity.Params(half_life_ms=None)), fresh_of(12 * HOUR, 0.5)
    batch = batch_histories([History()], log.vocabulary, 5)
    old, new = log.vocabulary.index["old"], log.vocabulary.index["new"]
    for model in (plain, fresh):
        model.fit(log)
    assert plain.score(batch)[0][old] > plain.score(batch)[0][new]
    scores = fresh.score(batch)[0]
    aged = 0.8 / 16  # 48 hours are four half-lives
    assert scores[new] == pytest.approx(0.5 * 0.2 / (0.2 + aged) + 0.5, rel=1e-3)
    assert scores.sum() == pytest.approx(1.0)
    described = {"inside": "popularity", "half_life_ms": 12 * HOUR, "live_half_life_ms": HOUR, "live": 0.5}
    assert fresh.describe() == described


def test_a_replay_knows_only_what_came_before() -> None:
    """Everyone reads `a` and then, from the second hour on, `b`; who is asked has read something before."""
    rows = [("u0", "x", 0), ("u1", "x", 1), ("u2", "x", 2), ("u3", "a", 3), ("u0", "a", 4), ("u1", "a", HOUR)]
    replay = LogReplay(frame(*rows, ("u2", "b", HOUR + 1), ("u3", "b", HOUR + 2)))
    window = ReplayWindow(HOUR, 2 * HOUR, HOUR)
    live = ScoreMix(None, HOUR, 1.0)
    assert replay.sampled_events(window).tolist() == [5, 6, 7]
    with_live = replay.run(window, None, [live])
    # u1 -> a: read twice, x is masked; u2 -> b: nobody read it, a stands before it; u3 -> b: read once, x is ahead
    assert with_live.ranks[live].tolist() == [0, 1, 1]
    ndcg, hits = with_live.metrics(live, 1)
    assert (ndcg.tolist(), hits.tolist()) == ([1.0, 0.0, 0.0], [1.0, 0.0, 0.0])
    by_popularity = replay.run(window, lambda: Popularity(Popularity.Params(half_life_ms=None)), [ScoreMix()])
    # the release ends before the window: x, a, and b unknown to it
    assert by_popularity.ranks[ScoreMix()].tolist() == [0, 1, 1]


def test_an_interval_is_over_users() -> None:
    values, users = np.array([1.0] * 50 + [0.0] * 50), np.array([0] * 50 + [1] * 50)
    low, high = mean_interval(values, users, np.random.default_rng(0))
    assert low < 0.1  # two users say little, however many cases they have
    assert high > 0.9
    low, high = mean_interval(values, np.arange(100), np.random.default_rng(0))
    assert 0.38 < low < 0.44
    assert 0.56 < high < 0.62
