"""Assertions of every experiment: each is made to fail."""

import msgspec
import pandas as pd
import pytest

from models.data.interactions import Interactions
from models.evaluation.cold_users import ColdUserFolds, FoldPlan, Holdout
from models.experiments.errors import ExperimentError
from models.experiments.guards import check_canary, check_counts, check_fold, check_volumes
from models.synthesizers.base import Synthesizer
from models.synthesizers.registry import create
from testing.small_shops import random_shop


def test_folds_pass_and_a_leak_of_any_kind_fails() -> None:
    frame = random_shop(fewest=6)
    fold = ColdUserFolds(frame, FoldPlan(folds=2)).fold(0)
    check_fold(fold, frame)

    def with_test(**changed: object) -> Holdout:
        return msgspec.structs.replace(fold.test, **changed)

    cold = fold.test.cold[0].user_id
    leaked = with_test(training=pd.concat([fold.test.training, frame[frame["user_id"] == cold]]))
    with pytest.raises(AssertionError, match="a cold user's events are in training"):
        check_fold(msgspec.structs.replace(fold, test=leaked), frame)
    warm = fold.test.warm[0]
    late = pd.DataFrame([(warm.user_id, "i1", "purchase", warm.times[0] + 1)], columns=frame.columns)
    leaked = with_test(training=pd.concat([fold.test.training, late]))
    with pytest.raises(AssertionError, match="events after the target"):
        check_fold(msgspec.structs.replace(fold, test=leaked), frame)
    invented = with_test(cold=[msgspec.structs.replace(fold.test.cold[0], targets=["x"] * 6)])
    with pytest.raises(AssertionError, match="no real event"):
        check_fold(msgspec.structs.replace(fold, test=invented), frame)
    seen = msgspec.structs.replace(fold.tuning, cold=fold.test.cold)
    with pytest.raises(AssertionError, match="among the tuning users"):
        check_fold(msgspec.structs.replace(fold, tuning=seen), frame)


def test_a_synthetic_event_in_a_popularity_count_fails() -> None:
    frame = random_shop(fewest=6)
    check_counts(Interactions.from_frame(frame), frame)
    with pytest.raises(AssertionError, match="more events than are real"):
        check_counts(Interactions.from_frame(pd.concat([frame, frame[:1]])), frame)


def test_arms_with_different_numbers_of_events_fail() -> None:
    check_volumes({"A1s": [64, 12], "A2a": [64, 12]})
    with pytest.raises(AssertionError, match="A2a inject another number of events than A1s"):
        check_volumes({"A1s": [64, 12], "A2a": [64, 11]})


def test_a_generator_that_copies_users_is_refused() -> None:
    frame = random_shop(12, fewest=6)

    def canary(name: str, generator: Synthesizer) -> None:
        check_canary(name, lambda: generator, Interactions.from_frame, frame)

    canary("walk", create("walk", {}))
    with pytest.raises(ExperimentError, match="knn-copy gives back a planted user's sequence"):
        canary("knn-copy", create("knn-copy", {}))
