"""Freshness at a look-up: what is popular right now, how old items are, and items that came after the release.

An open release has places to spare behind its items, so that a new item is an answer like any other: filters, rules and
diversity see it, with arrays of one length. Changed on the event loop, read from any thread.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from features.activity import History
from models.arrays import Float32
from models.data.profiles import NOBODY, Asking
from models.recommenders.base import Vocabulary
from models.recommenders.freshness import mix, prior_of
from models.releases.release import Release

if TYPE_CHECKING:
    from serving.catalogue.domain import Aligned

SPARE: Final = 1_024
"""New items between two releases; the next release knows them by itself."""
NAMELESS: Final = "\x00"
"""What the id of a place that nobody has yet begins with: no item may be called so."""
UNREAD: Final = 0.5
"""An item that was published and not taken yet counts as this share of the least popular one, less as it ages."""
NEWEST: Final = 200
"""At least so many items are remembered by their times of publication."""


class Freshness(msgspec.Struct, frozen=True):
    """A domain's: the half-life of an item's age, and the weight of what is popular now, 0..1."""

    half_life_ms: int
    live: float


class Now(msgspec.Struct, frozen=True):
    """float32 [items] in the release's order: `prior` by age (None: no ages known), `live` shares; the weight of
    live; and how many places are taken. `unread` are items that have their share for being published, not taken."""

    prior: Float32 | None
    live: Float32
    weight: float
    taken: int
    unread: frozenset[str] = frozenset()


class OpenRelease(Release):
    """A release with places to spare for items that came after it."""

    def __init__(self, base: Release, half_life_ms: int, spare: int = SPARE) -> None:
        self.__dict__.update(base.__dict__)
        self.base = base
        self.taken = len(base.item_ids)
        names = [*base.item_ids, *(f"{NAMELESS}{number}" for number in range(spare))]
        self.vocabulary = Vocabulary.of(names, base.vocabulary.weights, base.vocabulary.recency_ms)
        known = prior_of(base.first_seen, half_life_ms) if base.first_seen is not None else None
        self.prior = np.concatenate([known, np.ones(spare, np.float32)]) if known is not None else None

    def admit(self, item_id: str) -> bool:
        """Give a new item a place; False where none is left."""
        if self.taken == len(self.item_ids):
            return False
        del self.index[self.item_ids[self.taken]]
        self.item_ids[self.taken] = item_id
        self.index[item_id] = self.taken
        self.taken += 1
        return True

    def knows(self, history: History) -> bool:
        return self.base.knows(history)

    def scores(self, batch: Sequence[History], asking: Sequence[Asking] = ()) -> Float32:
        return self._wide(self.base.scores(batch, asking), -np.inf)

    def probabilities(self, batch: Sequence[History], asking: Sequence[Asking] = ()) -> Float32:
        return self._wide(self.base.probabilities(batch, asking), 0.0)

    def similar(self, item_id: str, n: int) -> list[tuple[str, float]]:
        return self.base.similar(item_id, n)

    def _wide(self, scores: Float32, rest: float) -> Float32:
        out = np.full((len(scores), len(self.item_ids)), rest, np.float32)
        out[:, : scores.shape[1]] = scores
        return out


def opened(release: Release, freshness: Freshness | None) -> Release:
    """The release as a domain serves it: with places for new items where the domain's items age."""
    return OpenRelease(release, freshness.half_life_ms) if freshness is not None else release


def now(
    release: OpenRelease,
    freshness: Freshness,
    popular: Sequence[tuple[str, float]],
    published: Mapping[str, int],
    at: int,
) -> tuple[Now, list[str]]:
    """What the minutes say as of `at` (epoch ms), and the items that were given a place.

    `popular` are counts, most popular first; `published` are times of publication, epoch ms.
    """
    counts = dict(popular)
    unread = frozenset(published).difference(counts)
    least = popular[-1][1] if popular else 1.0
    for item, moment in published.items():
        age = max(0, at - moment)
        counts.setdefault(item, UNREAD * least * 2 ** (-age / freshness.half_life_ms))
    new = [item for item in counts if item not in release.index and release.admit(item)]
    live = np.zeros(len(release.item_ids), np.float64)
    for item, count in counts.items():
        place = release.index.get(item)
        if place is not None:
            live[place] = count
    shares = (live / max(float(live.sum()), 1e-300)).astype(np.float32)
    return Now(release.prior, shares, freshness.live, release.taken, unread), new


def scored(aligned: "Aligned", histories: Sequence[History], asking: Sequence[Asking] = ()) -> Float32:
    """float32 [histories, items]: the release's scores, and where the domain's items age, what the minutes say.

    `asking` says who asks and when for each history; nothing where that is not known.
    """
    current = aligned.now
    if current is None:
        return aligned.release.scores(histories, asking)
    scores = mix(aligned.release.probabilities(histories, asking), current.prior, current.live, current.weight)
    scores[:, current.taken :] = -np.inf
    return scores


def owed(aligned: "Aligned", history: History, item_ids: Sequence[str], asking: Asking = NOBODY) -> dict[str, str]:
    """Which of the items have more than half of their score from the minutes, and why: `popular`, or `unread`.

    Rules that boost an item boost both halves.
    """
    current = aligned.now
    if current is None or not item_ids:
        return {}
    whole = mix(aligned.release.probabilities([history], [asking]), current.prior, current.live, current.weight)[0]
    index, found = aligned.release.index, {}
    for item in item_ids:
        place = index.get(item, current.taken)
        if place < current.taken and 2 * current.weight * current.live[place] > whole[place]:
            found[item] = "unread" if item in current.unread else "popular"
    return found
