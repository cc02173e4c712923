"""An encoder that learns from a teacher."""

from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from models.arrays import Float32
from models.data.batch import START, Batch, batch_histories
from models.data.interactions import Interactions
from models.data.vocabulary import Vocabulary
from models.data.windows import cut_windows
from models.errors import TrainingError
from models.recommenders.base import Scorer
from models.recommenders.neural.batches import Batches
from models.recommenders.neural.distillation import lessons_of
from models.recommenders.neural.losses import distillation_loss
from models.recommenders.neural.params import Params
from models.recommenders.neural.recommender import Neural
from testing.interactions import RING, history, ring

LOG = Interactions.from_frame(ring())
SHOP = Interactions.from_frame(
    pd.DataFrame(
        [
            (user, item, "view", at)
            for user, items in {"a": "pqrs", "b": "pq", "c": "s"}.items()
            for at, item in enumerate(items)
        ],
        columns=["user_id", "item_id", "kind", "at"],
    )
)


class Teacher(Scorer):
    """Answers by the newest event: the probability of item j after item i is `table[i, j]`."""

    name = "teacher"

    def __init__(self, vocabulary: Vocabulary, table: Any) -> None:
        self.vocabulary, self.table, self.histories = vocabulary, np.asarray(table, np.float32), 0

    def score(self, batch: Batch) -> Float32:
        self.histories += len(batch)
        scores: Float32 = self.table[batch.items[:, -1] - 1]
        return scores


def two_ahead() -> Teacher:
    """After item n it says n + 2, while everyone takes n + 1."""
    table = np.zeros((RING, RING))
    for item in range(RING):
        table[LOG.vocabulary.index[f"i{item}"], LOG.vocabulary.index[f"i{(item + 2) % RING}"]] = 1.0
    return Teacher(LOG.vocabulary, table)


def loss_of(q: list[float], items: list[int], shares: list[float], rest: float, temperature: float = 1.0) -> float:
    arrays = (np.log([q]).astype(np.float32), np.array([items], np.int32), np.array([shares], np.float32))
    losses = distillation_loss(*arrays, np.array([rest], np.float32), temperature)
    return float(keras.ops.convert_to_numpy(losses)[0])


def test_the_loss_is_the_divergence_over_the_best_items_and_the_rest() -> None:
    expected = 0.6 * np.log(0.6 / 0.3) + 0.4 * np.log(0.4 / 0.7)
    assert loss_of([0.5, 0.3, 0.2], [2, 0], [0.6, 0.0], 0.4) == pytest.approx(expected, abs=1e-5)
    assert loss_of([0.5, 0.3, 0.2], [1, 2], [0.5, 0.3], 0.2) == pytest.approx(0.0, abs=1e-5)


def test_a_temperature_flattens_the_student_and_keeps_gradients_as_large() -> None:
    """At temperature 2 shares of .64 and .36 are .8 and .6 of 1.4; the loss is four times the divergence."""
    expected = 4 * (0.5 * np.log(0.5 / (0.8 / 1.4)) + 0.5 * np.log(0.5 / (0.6 / 1.4)))
    assert loss_of([0.64, 0.36], [1, 2], [0.5, 0.5], 0.0, temperature=2.0) == pytest.approx(expected, abs=1e-5)


def test_lessons_are_the_beginnings_that_something_follows() -> None:
    """Of pqrs its first one to three events; of pq its first; of s nothing. The teacher is asked once for p."""
    teacher = Teacher(SHOP.vocabulary, np.full((4, 4), 0.25))
    lessons = lessons_of(teacher, SHOP, Params(length=5))
    assert lessons is not None
    names = ["".join(SHOP.vocabulary.item_ids[number - 1] for number in row if number) for row in lessons.batch.items]
    assert sorted(names) == ["p", "p", "pq", "pqr"]
    assert teacher.histories == len(lessons.items) == 3
    assert len({lessons.answers[place] for place, name in enumerate(names) if name == "p"}) == 1


def test_answers_leave_out_the_beginning_and_have_the_temperature() -> None:
    order = [SHOP.vocabulary.index[item] for item in "pqrs"]
    table = np.zeros((4, 4))
    table[order[0], order] = 0.19, 0.64, 0.16, 0.01
    lessons = lessons_of(Teacher(SHOP.vocabulary, table), SHOP, Params(length=5, distill_temperature=2.0))
    assert lessons is not None
    row = lessons.answers[[int((numbers > 0).sum()) for numbers in lessons.batch.items].index(1)]
    assert [SHOP.vocabulary.item_ids[number - 1] for number in lessons.items[row] if number] == ["q", "r", "s"]
    assert lessons.shares[row, :3].tolist() == pytest.approx([0.8 / 1.3, 0.4 / 1.3, 0.1 / 1.3])
    assert lessons.rest[row] == pytest.approx(0.0, abs=1e-6)


def test_no_more_beginnings_are_asked_than_allowed() -> None:
    teacher = two_ahead()
    lessons = lessons_of(teacher, LOG, Params(length=5), most=7)
    assert lessons is not None
    assert len(lessons) == 7
    assert lessons_of(Teacher(SHOP.vocabulary, np.eye(4)), SHOP.of_users(np.array([2])), Params()) is None


def test_histories_of_lessons_follow_the_windows_of_a_batch() -> None:
    params = Params(length=5, distill=1.0, distill_batch=4, batch_size=8, start_token=True)
    windows = cut_windows(LOG, 5, 4, start_token=True)
    x, y = Batches(windows, params, lessons=lessons_of(two_ahead(), LOG, params))[0]
    assert x["items"].shape == x["kinds"].shape == x["gaps"].shape == (12, 5)
    assert x["lesson_items"].shape[0] == x["lesson_rest"].shape[0] == 4
    assert (x["places"] < 8 * 5).all()
    assert (x["kinds"][8:] == START).any(axis=1).all()
    assert len(y) == len(x["places"])


def test_an_encoder_answers_beginnings_as_its_teacher_does_and_longer_histories_as_users_do() -> None:
    params = Params(
        encoder="cnn", embedding_size=16, blocks=1, length=8, dropout=0.0, epochs=30, learning_rate=2e-2,
        compiled=False, adversarial=0.0, loss="sampled", negatives=8, distill=3.0,
    )  # fmt: skip
    student = Neural(params)
    student.teacher = two_ahead()
    student.fit(LOG)
    batch = batch_histories([history("i4"), history(*[f"i{n}" for n in range(8)])], LOG.vocabulary, 8)
    best = student.score(batch).argmax(axis=1)
    assert [LOG.vocabulary.item_ids[item] for item in best] == ["i6", "i8"]


def test_distillation_without_a_teacher_is_refused() -> None:
    with pytest.raises(TrainingError, match="needs a teacher"):
        Neural(Params(distill=1.0)).fit(SHOP)


def test_a_teacher_of_other_items_is_refused() -> None:
    with pytest.raises(TrainingError, match="fit it on the same interactions"):
        lessons_of(two_ahead(), SHOP, Params())
