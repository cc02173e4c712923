"""Live popularity: what is popular right now, how old items are, and items that are newer than the release.

An extendable release has spare places behind its items, so that a new item is a candidate like any other: filters,
rules and diversity see it, with arrays of one length. Changed on the event loop, read from any thread.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from features.activity import History
from models.arrays import Float32
from models.data.profiles import RequestContext
from models.data.vocabulary import Vocabulary
from models.recommenders.freshness import FIRST_SEEN, prior_of
from models.releases.release import Release

SPARE_PLACES: Final = 1_024
"""New items between two releases; the next release knows them."""
SPARE_PREFIX: Final = "\x00"
"""The ids of unused places begin with it: no item's id may."""
UNREAD_SHARE: Final = 0.5
"""An item that was published and not read yet counts as this share of the least popular one, less as it ages."""


class FreshnessPolicy(msgspec.Struct, frozen=True):
    """How a domain's items age: their half-life, and the weight of live popularity, 0..1."""

    half_life_ms: int
    live_weight: float


class LivePopularity(msgspec.Struct, frozen=True):
    """What is popular now, over a release's items.

    `prior` float32 [items] falls with age (None: ages are not known), `shares` float32 [items] are live, `weight` is
    theirs, and the first `places` places are used. `unread` are items that have their share for being published.
    """

    prior: Float32 | None
    shares: Float32
    weight: float
    places: int
    unread: frozenset[str] = frozenset()


class ExtendableRelease(Release):
    """A release with spare places for items that are newer than it."""

    def __init__(self, base: Release, half_life_ms: int, spare: int = SPARE_PLACES) -> None:
        neighbors, similarities = base.neighbors
        arrays = {"popularity": base.popularity, "neighbors": neighbors, "similarities": similarities}
        super().__init__(base.manifest, base.recommender, {**arrays, FIRST_SEEN: base.first_seen})
        self.base = base
        self.places = len(base.item_ids)
        names = [*base.item_ids, *(f"{SPARE_PREFIX}{number}" for number in range(spare))]
        self.vocabulary = Vocabulary.from_items(
            names, base.vocabulary.kind_weights, base.vocabulary.popularity_half_life_ms
        )
        known = prior_of(base.first_seen, half_life_ms) if base.first_seen is not None else None
        self.prior = np.concatenate([known, np.ones(spare, np.float32)]) if known is not None else None

    def add(self, item_id: str) -> bool:
        """Give a new item a place; False where none is left."""
        if self.places == len(self.item_ids):
            return False
        del self.index[self.item_ids[self.places]]
        self.item_ids[self.places] = item_id
        self.index[item_id] = self.places
        self.places += 1
        return True

    def knows(self, history: History) -> bool:
        return self.base.knows(history)

    def scores(self, batch: Sequence[History], contexts: Sequence[RequestContext] = ()) -> Float32:
        return self._padded(self.base.scores(batch, contexts), -np.inf)

    def probabilities(self, batch: Sequence[History], contexts: Sequence[RequestContext] = ()) -> Float32:
        return self._padded(self.base.probabilities(batch, contexts), 0.0)

    def similar(self, item_id: str, n: int) -> list[tuple[str, float]]:
        return self.base.similar(item_id, n)

    def _padded(self, scores: Float32, fill: float) -> Float32:
        padded = np.full((len(scores), len(self.item_ids)), fill, np.float32)
        padded[:, : scores.shape[1]] = scores
        return padded


def live_popularity(
    release: ExtendableRelease,
    policy: FreshnessPolicy,
    popular: Sequence[tuple[str, float]],
    published: Mapping[str, int],
    at: int,
) -> tuple[LivePopularity, list[str]]:
    """Live popularity at `at` (epoch ms), and the new items that were given a place.

    `popular` are counts, most popular first; `published` are times of publication, epoch ms.
    """
    counts = dict(popular)
    unread = frozenset(published).difference(counts)
    least = popular[-1][1] if popular else 1.0
    for item, published_at in published.items():
        age = max(0, at - published_at)
        counts.setdefault(item, UNREAD_SHARE * least * 2 ** (-age / policy.half_life_ms))
    new = [item for item in counts if item not in release.index and release.add(item)]
    live = np.zeros(len(release.item_ids), np.float64)
    for item, count in counts.items():
        place = release.index.get(item)
        if place is not None:
            live[place] = count
    shares = (live / max(float(live.sum()), 1e-300)).astype(np.float32)
    return LivePopularity(release.prior, shares, policy.live_weight, release.places, unread), new
