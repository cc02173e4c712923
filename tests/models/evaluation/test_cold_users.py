"""Folds of cold users: who is cold when, what is known, what is asked and when."""

import numpy as np
import pandas as pd
import pytest

from models.data.batch import Batch
from models.data.interactions import Interactions
from models.data.profiles import ProfileHistory
from models.data.vocabulary import DEFAULT_KIND_WEIGHTS
from models.errors import TrainingError
from models.evaluation.cold_ranking import MISSED, evidence_of_episodes, rank_episodes
from models.evaluation.cold_users import ColdUserFolds, Episode, FoldPlan, short_histories
from models.evaluation.cold_values import UserValues, tail_of
from models.recommenders.base import Scorer
from models.recommenders.blend import BUCKETS
from models.recommenders.live_popularity import RequestTimePopularity
from models.recommenders.popularity import Popularity
from testing.small_shops import random_shop


def numbered(events: int, kind: str = "purchase", user: str = "u") -> list[tuple[str, str, str, int]]:
    return [(user, f"i{number}", kind, 10 * number) for number in range(events)]


def folds_of(rows: list[tuple[str, str, str, int]], plan: FoldPlan) -> ColdUserFolds:
    return ColdUserFolds(pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "at"]), plan)


def test_every_user_of_six_events_is_cold_once_and_then_not_trained_on() -> None:
    frame = random_shop()
    folds = ColdUserFolds(frame)
    counts = frame["user_id"].value_counts()
    cold: list[str] = []
    for fold in folds:
        users = {episode.user_id for episode in fold.test.cold}
        cold += users
        trained = set(fold.test.training["user_id"])
        assert not users & trained
        assert trained == set(frame["user_id"]) - users
        tuning = {episode.user_id for episode in fold.tuning.cold}
        assert tuning
        assert not tuning & (users | set(fold.tuning.training["user_id"]))
    assert sorted(cold) == sorted(counts[counts >= 6].index) == sorted(folds.users)


def test_the_known_events_and_the_targets_at_their_own_moments() -> None:
    rows = [*numbered(8), *(row for user in "abcd" for row in numbered(6, user=user))]
    folds = folds_of(rows, FoldPlan(ks=(0, 2, 5), folds=5))
    episodes = {episode.k: episode for fold in folds for episode in fold.test.cold if episode.user_id == "u"}
    first, second, third = episodes[0], episodes[2], episodes[5]
    assert first.history.items == []
    assert first.targets == ["i0", "i1", "i2", "i3", "i4", "i5"]  # the sixth is the same for every k
    assert first.horizons == [1, 2, 3, 4, 5, 6]
    assert second.history.items == ["i0", "i1"]
    assert second.targets == ["i2", "i3", "i4", "i5", "i6"]
    assert second.times == [20, 30, 40, 50, 60]
    assert second.seen == {"i0", "i1"}
    assert third.targets == ["i5", "i6", "i7"]
    assert third.horizons == [1, 2, 3]


def test_views_without_weight_are_neither_known_nor_asked() -> None:
    skips = [("u", "x", "skip", 5), ("u", "y", "skip", 55)]
    rows = [*numbered(6), *skips, *(row for user in "abcd" for row in numbered(6, user=user))]
    folds = folds_of(rows, FoldPlan(ks=(1,)))
    (episode,) = [episode for fold in folds for episode in fold.test.cold if episode.user_id == "u"]
    assert episode.history.items == ["i0"]
    assert episode.targets == ["i1", "i2", "i3", "i4", "i5"]


def test_events_of_one_time_keep_their_order() -> None:
    rows = [("u", f"i{number}", "purchase", 0) for number in (3, 1, 2, 0, 5, 4)]
    rows += [row for user in "abcd" for row in numbered(6, user=user)]
    folds = folds_of(rows, FoldPlan(ks=(3,)))
    (episode,) = [episode for fold in folds for episode in fold.test.cold if episode.user_id == "u"]
    assert episode.history.items == ["i3", "i1", "i2"]
    assert episode.targets == ["i0", "i5", "i4"]


def test_warm_users_are_asked_once_for_their_last_event_which_nothing_was_fitted_on() -> None:
    frame = random_shop(80)
    counts = frame["user_id"].value_counts()
    warm: list[str] = []
    for fold in ColdUserFolds(frame):
        for episode in fold.test.warm:
            warm.append(episode.user_id)
            own = frame[frame["user_id"] == episode.user_id]
            trained = fold.test.training
            trained = trained[trained["user_id"] == episode.user_id]
            assert len(trained) == len(own) - 1
            assert episode.targets == [own["item_id"].iloc[-1]]
            assert episode.history.items == own["item_id"].tolist()[:-1]
    assert sorted(warm) == sorted(counts[counts >= 20].index)


def test_users_who_are_held_out_for_short_histories_are_not_learned_from() -> None:
    frame = random_shop(400)
    learned, episodes = short_histories(frame, DEFAULT_KIND_WEIGHTS, 0)
    users = {episode.user_id for episode in episodes}
    assert 20 <= len(users) <= 40
    assert set(learned["user_id"]) == set(frame["user_id"]) - users
    assert {episode.k for episode in episodes} == {0, 1, 2, 3, 4, 5}


def test_of_few_users_nobody_is_held_out_for_short_histories() -> None:
    frame = random_shop(60)
    learned, episodes = short_histories(frame, DEFAULT_KIND_WEIGHTS, 0)
    assert learned is frame
    assert episodes == []


def test_folds_are_the_same_for_the_same_seed() -> None:
    frame = random_shop()
    users = [[episode.user_id for episode in fold.test.cold] for fold in ColdUserFolds(frame, FoldPlan(seed=3))]
    again = [[episode.user_id for episode in fold.test.cold] for fold in ColdUserFolds(frame, FoldPlan(seed=3))]
    other = [[episode.user_id for episode in fold.test.cold] for fold in ColdUserFolds(frame, FoldPlan(seed=4))]
    assert users == again != other


def test_too_few_users_are_an_error_that_says_so() -> None:
    with pytest.raises(TrainingError, match="1 users have 6 or more events; 5 folds of cold users need more"):
        folds_of(numbered(6), FoldPlan())


class Fixed(Scorer):
    """Gives the items of its vocabulary these probabilities."""

    name = "fixed"

    def __init__(self, log: Interactions, shares: dict[str, float]) -> None:
        self.vocabulary = log.vocabulary
        self.row = np.array([shares.get(item, 0.0) for item in log.vocabulary.item_ids], np.float32)

    def score(self, batch: Batch) -> np.ndarray:
        return np.tile(self.row, (len(batch), 1))


LOG = Interactions.from_frame(pd.DataFrame(numbered(4), columns=["user_id", "item_id", "kind", "at"]))


def episode_of(history: list[str], targets: list[str], k: int) -> Episode:
    rows = [("u", item, "purchase", 10 * number) for number, item in enumerate([*history, *targets])]
    rows += [row for user in "abcd" for row in numbered(6, user=user)]
    folds = folds_of(rows, FoldPlan(ks=(k,)))
    return next(episode for fold in folds for episode in fold.test.cold if episode.user_id == "u")


def test_ranks_by_hand() -> None:
    """Of equal scores the lower index is ahead. An unknown item is missed; a masked item is not asked."""
    members = {"a": Fixed(LOG, {"i0": 0.4, "i1": 0.3, "i2": 0.3}), "b": Fixed(LOG, {"i3": 1.0})}
    episode = episode_of(["i0"], ["i2", "i3", "i0", "elsewhere", "i1"], 1)
    half = {"blend": np.full((BUCKETS, 2), 0.5)}
    masked = rank_episodes(members, half, [episode], masked=True, length=50, lists=True)
    assert masked.horizons.tolist() == [1, 2, 4, 5]
    assert masked.ranks.tolist() == [[1, 2, 2], [2, 0, 0], [MISSED] * 3, [0, 1, 1]]
    kept = rank_episodes(members, half, [episode], masked=False, length=50)
    assert kept.horizons.tolist() == [1, 2, 3, 4, 5]
    assert kept.ranks[2].tolist() == [0, 1, 1]
    assert masked.lists is not None
    names = [[LOG.vocabulary.item_ids[item] for item in row if item >= 0] for row in masked.lists[0]]
    assert names == [["i1", "i2", "i3"], ["i3", "i1", "i2"], ["i3", "i1", "i2"]]


def test_a_blend_may_have_weights_by_horizon() -> None:
    members = {"a": Fixed(LOG, {"i1": 1.0}), "b": Fixed(LOG, {"i2": 1.0})}
    weights = np.zeros((2, BUCKETS, 2))
    weights[0, :, 0] = weights[1, :, 1] = 1.0
    ranked = rank_episodes(
        members, {"blend": weights}, [episode_of(["i0"], ["i1", "i2", "i2", "i2", "i2"], 1)], masked=True, length=50
    )
    assert ranked.ranks[:, 2].tolist() == [0] * 5


def test_the_clock_is_that_of_each_question() -> None:
    """i1 was taken by others before the second question, after the first."""
    rows = [("a", "i0", "purchase", 1), ("b", "i1", "purchase", 15), ("c", "i1", "purchase", 16)]
    log = Interactions.from_frame(pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "at"]))
    clock = RequestTimePopularity()
    clock.fit(log)
    episode = episode_of([], ["i1", "i1", "i1", "i1", "i1", "i1"], 0)  # at 0, 10, 20, ...
    before, now, later = rank_episodes({"live": clock}, {}, [episode], masked=False, length=50).ranks[:3, 0].tolist()
    assert (before, now, later) == (0, 1, 0)  # at 0 nothing was taken: the order of the catalogue, i1 first


def test_evidence_has_a_case_for_each_question_and_the_ranks_of_the_members() -> None:
    folds = ColdUserFolds(random_shop(60))
    fold = folds.fold(0)
    log = Interactions.from_frame(fold.tuning.training, profiles=ProfileHistory({}))
    members: dict[str, Scorer] = {"popularity": Popularity(), "live": RequestTimePopularity()}
    for member in members.values():
        member.fit(log)  # type: ignore[attr-defined]
    episodes = fold.tuning.cold
    evidence, horizons = evidence_of_episodes(members, episodes, masked=True, length=50, most=25)
    weights = np.array([0.6, 0.4])
    blends = {"blend": np.tile(weights, (BUCKETS, 1))}
    ranks = rank_episodes(members, blends, episodes, masked=True, length=50).ranks[:, 2]
    assert len(evidence) == len(horizons) == sum(len(episode.targets) for episode in episodes)
    assert evidence.ndcg(weights).sum() == pytest.approx(np.where(ranks < 10, 1 / np.log2(ranks + 2), 0).sum())


def test_values_of_each_user() -> None:
    members = {"a": Fixed(LOG, {"i1": 0.6, "i2": 0.3, "i3": 0.1})}
    episode = episode_of(["i0"], ["i1", "i2", "elsewhere", "i0", "i3"], 1)
    values = UserValues(["u"], [1], ["a"])
    ranked = rank_episodes(members, {}, [episode], masked=True, length=50, lists=True)
    values.add(ranked, [episode], tail_of(np.array([4, 3, 2, 1])))
    gains = [1, 1 / np.log2(3), 0, 0.5]  # i0 may not be shown and is not asked
    assert values.mean("a", 1) == pytest.approx(np.mean(gains))
    assert values.mean("a", 1, "next ndcg@10") == 1
    assert values.mean("a", 1, "same ndcg@10") == pytest.approx(0.5)
    assert values.mean("a", 1, "hr@10") == pytest.approx(0.75)
    assert values.mean("a", 1, "recall@20") == pytest.approx(3 / 5)
    assert values.coverage("a", 1, 4) == pytest.approx(3 / 4)
    assert values.tail[0, 0, 0] == 1.0  # of four items the first is the head, and it was not shown
