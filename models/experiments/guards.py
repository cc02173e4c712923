"""Assertions that run with every experiment: nobody learns from test users, nothing synthetic counts as real."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd

from models.data.interactions import Interactions
from models.evaluation.cold_users import ColdFold, Episode, Holdout
from models.experiments.errors import ExperimentError
from models.privacy.canaries import plant_canaries, returned_canaries
from models.synthesizers.base import Synthesizer
from models.synthesizers.conditions import Conditions

CANARY_USERS: Final = 2_000
"""Users among whom a canary is planted."""
SAMPLED: Final = 500
"""Histories that are searched for a planted sequence."""


def check_fold(fold: ColdFold, frame: pd.DataFrame) -> None:
    """Of a fold on all real events `frame`: nothing is fitted on cold users, or on users that weights are tuned on."""
    check_holdout(fold.test, frame)
    check_holdout(fold.tuning, frame)
    test = _users(fold.test.cold)
    assert not test & _users([*fold.tuning.cold, *fold.tuning.warm]), "a test user is among the tuning users"
    assert not test & set(fold.tuning.training["user_id"].unique()), "weights are tuned on a test user's events"


def check_holdout(holdout: Holdout, frame: pd.DataFrame) -> None:
    """Cold users have no event in training, warm users none of or after their target; every target is a real event."""
    training = holdout.training
    assert not _users(holdout.cold) & set(training["user_id"].unique()), "a cold user's events are in training"
    newest = training.groupby("user_id")["at"].max()
    late = [episode.user_id for episode in holdout.warm if newest.get(episode.user_id, 0) > episode.times[0]]
    assert not late, f"events after the target of {late[:1]} are in training"
    real = set(zip(frame["user_id"], frame["item_id"], frame["at"], strict=True))
    targets = {
        (episode.user_id, item, at)
        for episode in [*holdout.cold, *holdout.warm]
        for item, at in zip(episode.targets, episode.times, strict=True)
    }
    assert targets <= real, "a target is no real event"


def check_counts(interactions: Interactions, training: pd.DataFrame) -> None:
    """What popularity counts are real events: no item has more of them than there are in `training`."""
    counts = np.bincount(interactions.items, minlength=len(interactions.vocabulary))
    real = training["item_id"].value_counts().reindex(interactions.vocabulary.item_ids, fill_value=0).to_numpy()
    assert (counts <= real).all(), "a popularity count has more events than are real"


def check_volumes(events: Mapping[str, Sequence[int]]) -> None:
    """Every arm that injects has as many events as the others; `events`: how many for each history, by arm."""
    first = next(iter(events.values()), [])
    others = [name for name, counts in events.items() if list(counts) != list(first)]
    assert not others, f"{', '.join(others)} inject another number of events than {next(iter(events))}"


def check_canary(
    name: str,
    create: Callable[[], Synthesizer],
    interactions_of: Callable[[pd.DataFrame], Interactions],
    frame: pd.DataFrame,
    seed: int = 0,
) -> None:
    """A user with a sequence that nobody else has, planted among the first users, does not come back from a generator.

    Raises:
        ExperimentError: it comes back.
    """
    rng = np.random.default_rng(seed)
    few = frame[frame["user_id"].isin(frame["user_id"].drop_duplicates().iloc[:CANARY_USERS])]
    planted, sequences = plant_canaries(few[["user_id", "item_id", "kind", "at"]], 1, rng)
    synthesizer = create()
    synthesizer.fit(interactions_of(planted))
    index = synthesizer.vocabulary.index
    histories = synthesizer.sample([Conditions()], SAMPLED, rng)
    if returned_canaries(histories, [[index.get(item, -1) for item in sequence] for sequence in sequences]):
        raise ExperimentError(f"{name} gives back a planted user's sequence: it memorizes users; leave it out")


def _users(episodes: Sequence[Episode]) -> set[str]:
    return {episode.user_id for episode in episodes}
