"""Items without events: a fifth of the items is hidden, and users' newest events that have them are the targets.

Items fall into folds by a seed; a fold hides its items: none of their events is in its training set. Of each user the
newest fifth of the events (1 to 10) is asked, so no training set has them: hidden items among them are the targets of
new items, the others those of warm items. What the user took before is no target. The history is what training has.
"""

from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np
import pandas as pd

from features.activity import History
from models.arrays import Bool, Int64, Objects
from models.data.interactions import Interactions
from models.data.item_features import ItemFeatures
from models.data.vocabulary import DEFAULT_KIND_WEIGHTS, Vocabulary
from models.errors import TrainingError
from stream.events import KIND_CODES

ASKED_SHARE: Final = 0.2
MOST_ASKED: Final = 10
FEWEST_QUESTIONS: Final = 20
"""With fewer users who took hidden items nothing can be tuned or shown."""


class HidingPlan(msgspec.Struct, frozen=True, kw_only=True):
    """`folds`: each hides one in so many items. `min_count`: items with fewer events are left out. `weights`: kind
    weights by event code. `length`: newest events of a history. `warm_users`: at most so many users have warm
    items alone."""

    folds: int = 5
    seed: int = 0
    min_count: int = 1
    weights: tuple[float, ...] = DEFAULT_KIND_WEIGHTS
    length: int = 50
    warm_users: int = 3_000


class NewItemsQuestion(msgspec.Struct, frozen=True):
    """A user's `history` of warm items, oldest first, and the items that the user took next: `new` and `warm`."""

    user_id: str
    history: History
    new: list[str]
    warm: list[str]


class NewItemsHoldout(msgspec.Struct, frozen=True):
    """`training` has `warm_items` items with events, and the hidden ones after them, by id. `rows` are its events."""

    training: Interactions
    rows: pd.DataFrame
    hidden: frozenset[str]
    questions: list[NewItemsQuestion]

    @property
    def known(self) -> int:
        """The number of items with events."""
        return self.training.warm_items or 0


class NewItemsFold(msgspec.Struct, frozen=True):
    """A fold. `tuning` hides other items, and asks for the newest events, of `test.training` alone."""

    number: int
    test: NewItemsHoldout
    tuning: NewItemsHoldout


class NewItemsFolds:
    """The folds of a frame [user_id, item_id, kind, at] whose items `features` describe; iterate over them.

    Raises:
        TrainingError: items have neither titles nor categories, or too few users took hidden items.
    """

    def __init__(self, frame: pd.DataFrame, features: ItemFeatures, plan: HidingPlan | None = None) -> None:
        self.plan, self.features = plan or HidingPlan(), features
        kinds = frame["kind"].map(KIND_CODES).to_numpy(np.int64)
        frame = frame[np.array(self.plan.weights)[kinds] > 0]
        counts = frame["item_id"].value_counts()
        frame = frame[frame["item_id"].map(counts) >= self.plan.min_count]
        self.frame = frame.sort_values("at", kind="stable").reset_index(drop=True)
        self.items = sorted(self.frame["item_id"].astype(str).unique().tolist())
        described = set(features.titles) | set(features.categories)
        if not any(item in described for item in self.items):
            raise TrainingError(
                "new items: no item has a title or a category, so there is nothing to learn from; give a catalogue "
                "with --items FILE (--map-items title=COLUMN,category=COLUMN), or another data set"
            )

    def __len__(self) -> int:
        return self.plan.folds

    def __iter__(self) -> Iterator[NewItemsFold]:
        return (self.fold(number) for number in range(len(self)))

    def hidden_in(self, number: int) -> frozenset[str]:
        """The items that a fold hides: each item is in one fold."""
        return _every_nth(self.items, self.plan.folds, number, [self.plan.seed])

    def fold(self, number: int) -> NewItemsFold:
        """The fold of a number from 0."""
        hidden = self.hidden_in(number)
        rng = np.random.default_rng([self.plan.seed, number])
        test = self._holdout(self.frame, hidden, frozenset(), rng)
        known = sorted(set(self.items) - hidden)
        held_out = _every_nth(known, self.plan.folds, 0, [self.plan.seed, number, 1])
        tuning = self._holdout(test.rows, held_out, hidden, rng)
        return NewItemsFold(number, test, tuning)

    def _holdout(
        self, frame: pd.DataFrame, hidden: frozenset[str], unknown: frozenset[str], rng: np.random.Generator
    ) -> NewItemsHoldout:
        """Hide items of a frame; items that are `unknown` are in no vocabulary."""
        is_hidden = frame["item_id"].isin(hidden).to_numpy()
        is_newest = _newest(frame["user_id"].to_numpy(object))
        rows = frame[~is_newest & ~is_hidden].reset_index(drop=True)
        warm = Vocabulary.fit(rows, 1, len(self.items), self.plan.weights)
        described = set(self.features.titles) | set(self.features.categories)
        new = [item for item in sorted(hidden - unknown) if item in described]
        vocabulary = Vocabulary.from_items([*warm.item_ids, *new], warm.kind_weights)
        training = Interactions.from_frame(rows, vocabulary, item_features=self.features)
        holdout = NewItemsHoldout(
            training, rows, frozenset(new), self._questions(frame, is_newest, vocabulary, new, rng)
        )
        check_holdout(holdout)
        if sum(bool(question.new) for question in holdout.questions) < FEWEST_QUESTIONS:
            raise TrainingError(
                f"new items: fewer than {FEWEST_QUESTIONS} users took a hidden item that has a text or a category; "
                "give more events, or fewer folds"
            )
        return holdout

    def _questions(
        self, frame: pd.DataFrame, is_newest: Bool, vocabulary: Vocabulary, new: list[str], rng: np.random.Generator
    ) -> list[NewItemsQuestion]:
        """Every user who took a new item, and some who did not."""
        order = np.argsort(pd.factorize(frame["user_id"])[0], kind="stable")
        users, items = frame["user_id"].to_numpy(object)[order], frame["item_id"].to_numpy(object)[order]
        kinds, times = frame["kind"].map(KIND_CODES).to_numpy(np.int64)[order], frame["at"].to_numpy(np.int64)[order]
        is_newest, is_new = is_newest[order], set(new)
        warm = set(vocabulary.item_ids) - is_new
        bounds = np.flatnonzero(np.append(True, users[1:] != users[:-1])) if len(users) else np.zeros(0, np.int64)
        with_new, without = [], []
        for start, stop in zip(bounds, [*bounds[1:], len(users)], strict=True):
            own = np.arange(start, stop)
            before = own[~is_newest[start:stop]]
            known = before[[items[place] in warm for place in before]][-self.plan.length :]
            if not len(known):
                continue
            taken = set(_strings(items[before]))
            later = [item for item in dict.fromkeys(_strings(items[own[is_newest[start:stop]]])) if item not in taken]
            history = History(_strings(items[known]), kinds[known].tolist(), times[known].tolist(), [None] * len(known))
            question = NewItemsQuestion(
                str(users[start]),
                history,
                [item for item in later if item in is_new],
                [item for item in later if item in warm],
            )
            if question.new:
                with_new.append(question)
            elif question.warm:
                without.append(question)
        kept = np.sort(rng.permutation(len(without))[: self.plan.warm_users])
        return [*with_new, *(without[place] for place in kept)]


def check_holdout(holdout: NewItemsHoldout) -> None:
    """Assert that no event of a hidden item, and no asked event, is in what arms learn from."""
    training, known = holdout.training, holdout.known
    names = training.vocabulary.item_ids
    assert set(names[known:]) == holdout.hidden
    assert not set(names[:known]) & holdout.hidden
    assert not len(training.items) or int(training.items.max()) < known
    assert not np.bincount(training.items, minlength=len(names))[known:].any()
    assert not holdout.rows["item_id"].isin(holdout.hidden).any()
    pairs = set(zip(holdout.rows["user_id"].astype(str), holdout.rows["item_id"].astype(str), strict=True))
    for question in holdout.questions:
        assert not holdout.hidden & set(question.history.items)
        assert not any((question.user_id, item) in pairs for item in (*question.new, *question.warm))


def check_planted(folds: NewItemsFolds, fold: NewItemsFold) -> None:
    """Assert that further events of hidden items change nothing that arms learn from: a planted user takes them all."""
    hidden = sorted(fold.test.hidden)[:100]
    planted = pd.DataFrame({"user_id": "planted", "item_id": hidden, "kind": folds.frame["kind"].iloc[0], "at": 0})
    frame = pd.concat([planted, folds.frame[["user_id", "item_id", "kind", "at"]]], ignore_index=True)
    other = folds._holdout(frame, folds.hidden_in(fold.number), frozenset(), np.random.default_rng(0)).training
    for name in ("users", "items", "kinds", "at", "categories", "texts"):
        assert np.array_equal(getattr(other, name), getattr(fold.test.training, name)), name
    assert other.vocabulary.item_ids == fold.test.training.vocabulary.item_ids


def _every_nth(items: list[str], folds: int, number: int, seed: list[int]) -> frozenset[str]:
    order = np.random.default_rng(seed).permutation(len(items))
    return frozenset(items[place] for place in np.flatnonzero(order % folds == number))


def _newest(users: Objects) -> Bool:
    """bool [events]: whether an event is among its user's newest fifth; `users` in time order."""
    codes = pd.factorize(users)[0]
    sizes = np.bincount(codes)
    most = np.clip(np.round(ASKED_SHARE * sizes), 1, MOST_ASKED).astype(np.int64)
    order = np.argsort(codes, kind="stable")
    starts = np.append(0, np.cumsum(sizes)[:-1])
    position: Int64 = np.empty(len(codes), np.int64)
    position[order] = np.arange(len(codes)) - starts[codes[order]]
    newest: Bool = position >= (sizes - most)[codes]
    return newest


def _strings(items: Objects) -> list[str]:
    return [str(item) for item in items]
