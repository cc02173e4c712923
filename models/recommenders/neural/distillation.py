"""Distillation: an encoder learns what a teacher answers to the first events of users (Hinton, Vinyals & Dean 2015).

The teacher may be a blend with imagined events, which a look-up then needs no more. Its answers to the first 1 to 3
events of training users are computed once: the most probable items, and the probability of all others together.
"""

from typing import Any, Final

import msgspec
import numpy as np

from models.arrays import Float32, Int32, Int64
from models.data.batch import FIRST_GAP, Batch, gap_buckets, with_start_token
from models.data.interactions import Interactions
from models.errors import TrainingError
from models.recommenders.base import Scorer
from models.recommenders.neural.augmentation import LONGEST_PREFIX
from models.recommenders.neural.params import Params
from models.recommenders.top_k import top_k

TOP: Final = 100
"""Items of an answer."""
MOST: Final = 20_000
"""Beginnings that the teacher answers, at most: a random part of them."""
BLOCK: Final = 256


class Lessons(msgspec.Struct, frozen=True):
    """Beginnings of histories, and the teacher's answer to each.

    `batch` [n, length]. `answers` int64 [n]: the row of each one's answer. Of each answer, `items` int32 [answers, top]
    (item numbers, 0 for none), their probabilities `shares` float32 [answers, top], and `rest` float32 [answers], the
    probability of all other items. The beginning's own items are left out of it.
    """

    batch: Batch
    answers: Int64
    items: Int32
    shares: Float32
    rest: Float32

    def __len__(self) -> int:
        return len(self.answers)


def lessons_of(teacher: Scorer, interactions: Interactions, params: Params, most: int = MOST) -> Lessons | None:
    """The teacher's answers to at most `most` beginnings of the users' histories; None where no user has two events.

    Raises:
        TrainingError: the teacher scores other items.
    """
    if teacher.vocabulary.item_ids != interactions.vocabulary.item_ids:
        raise TrainingError(
            f"the teacher ({teacher.name}) scores {len(teacher.vocabulary)} items and the interactions have "
            f"{len(interactions.vocabulary)}, not the same ones; fit it on the same interactions"
        )
    batch = beginnings(interactions, params.length, most, np.random.default_rng(params.seed))
    if not len(batch):
        return None
    trained = len(interactions.vocabulary) if interactions.warm_items is None else interactions.warm_items
    columns = np.concatenate([batch.items[:, -LONGEST_PREFIX:], batch.kinds[:, -LONGEST_PREFIX:]], axis=1)
    _, first, answers = np.unique(columns, axis=0, return_index=True, return_inverse=True)
    parts = [
        _answer(teacher, batch.take(rows), params.distill_temperature, trained)
        for rows in np.split(first, range(BLOCK, len(first), BLOCK))
    ]
    items, shares, rest = (np.concatenate(column) for column in zip(*parts, strict=True))
    if params.start_token:
        batch = msgspec.structs.replace(batch, kinds=with_start_token(batch))
    return Lessons(batch, answers.ravel().astype(np.int64), items, shares, rest)


def beginnings(interactions: Interactions, length: int, most: int, rng: np.random.Generator) -> Batch:
    """The first 1 to 3 events of each user who has more of them: at most `most`, drawn evenly."""
    starts = np.searchsorted(interactions.users, np.arange(interactions.user_count + 1))
    sizes = np.diff(starts)
    pairs = [(start, k) for k in range(1, min(LONGEST_PREFIX, length) + 1) for start in starts[:-1][sizes > k].tolist()]
    chosen = np.sort(rng.permutation(len(pairs))[:most])
    first, known = np.array(pairs, np.int64).reshape(-1, 2)[chosen].T
    places = np.arange(length)[None] - (length - known)[:, None]
    events = np.minimum(first[:, None] + np.maximum(places, 0), max(0, len(interactions) - 1))
    real = places >= 0
    items = np.where(real, interactions.items[events] + 1, 0).astype(np.int32)
    kinds = np.where(real, interactions.kinds[events] + 1, 0).astype(np.int32)
    gaps = gap_buckets(np.where(real, interactions.at[events], 0), items)
    return Batch(items, kinds, np.where(places == 0, FIRST_GAP, gaps), interactions.vocabulary.kind_weights)


def add_lessons(x: dict[str, Any], lessons: Lessons, params: Params, rng: np.random.Generator) -> None:
    """Add to a batch the histories of random lessons after all others, and the teacher's answers to them."""
    rows = rng.integers(0, len(lessons), params.distill_batch)
    batch, answers = lessons.batch.take(rows), lessons.answers[rows]
    for name, more in (("items", batch.items), ("kinds", batch.kinds), ("gaps", batch.gaps)):
        x[name] = np.concatenate([x[name], more])
    for name in ("profile", "time_features"):  # the teacher's answer is for everyone
        if name in x:
            x[name] = np.concatenate([x[name], np.zeros((len(rows), *x[name].shape[1:]), x[name].dtype)])
    x["lesson_items"], x["lesson_shares"] = lessons.items[answers], lessons.shares[answers]
    x["lesson_rest"] = lessons.rest[answers]


def _answer(teacher: Scorer, batch: Batch, temperature: float, trained: int) -> tuple[Int32, Float32, Float32]:
    """`items`, `shares` and `rest` of Lessons for some histories."""
    shares = np.maximum(teacher.probabilities(batch)[:, :trained], 0.0)
    rows, columns = np.nonzero(batch.items)
    inside = batch.items[rows, columns] <= trained
    shares[rows[inside], batch.items[rows, columns][inside] - 1] = 0.0
    shares **= np.float32(1 / temperature)
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), np.float32(1e-12))
    best, values = top_k(shares, TOP)
    used = (best >= 0) & (values > 0)
    values = np.where(used, values, np.float32(0.0)).astype(np.float32)
    rest = np.maximum(1 - values.sum(axis=1), 0).astype(np.float32)
    return np.where(used, best + 1, 0).astype(np.int32), values, rest
