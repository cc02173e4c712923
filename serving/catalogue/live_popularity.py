"""Live popularity: what is popular right now, how old items are, and items that are newer than the release.

A release with live popularity in its blend says how much of it there is, by half-life and number of known events. The
shares are put together once for each refresh; a look-up adds the few that its number of events has.

An extendable release has spare places behind its items, so that a new item is a candidate like any other: filters,
rules and diversity see it, with arrays of one length. Changed on the event loop, read from any thread.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from features.activity import History
from models.arrays import Float32, Int64
from models.data.batch import Batch
from models.data.profiles import RequestContext
from models.data.vocabulary import Vocabulary
from models.recommenders.blend import BUCKETS, bucket_of
from models.recommenders.freshness import FIRST_SEEN, prior_of, scale_by_prior
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


class LivePopularity(msgspec.Struct, frozen=True, eq=False):
    """What is popular now, over a release's items, as look-ups add it to the release's scores.

    `places` int64 [popular], ascending, are the items that have a share; `shares` float32 [buckets, popular] is what
    each gets, by the number of known events (`blend.bucket_of`). The release's own probabilities are multiplied by
    `prior` float32 [items], which falls with age, and scaled to sum to `own` float32 [buckets]; None: they stay as they
    are. The first `used` places of the release are used. `unread` are items that have a share for being published.
    """

    places: Int64
    shares: Float32
    used: int
    prior: Float32 | None = None
    own: Float32 | None = None
    unread: frozenset[str] = frozenset()

    def add(self, probabilities: Float32, batch: Batch) -> None:
        """Mix in place into a release's `probabilities` float32 [batch, items]."""
        buckets = bucket_of(batch.lengths)
        if self.own is not None:
            scale_by_prior(probabilities, self.prior, self.own[buckets])
        for row, bucket in zip(probabilities, buckets.tolist(), strict=True):
            row[self.places] += self.shares[bucket]

    def share_of(self, place: int, bucket: int) -> float:
        """What an item's score owes to live popularity."""
        position = int(np.searchsorted(self.places, place))
        there = position < len(self.places) and self.places[position] == place
        return float(self.shares[bucket, position]) if there else 0.0


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

    def scores(self, histories: Sequence[History], contexts: Sequence[RequestContext] = ()) -> Float32:
        return self._padded(self.base.scores(histories, contexts), -np.inf)

    def batch(self, histories: Sequence[History], contexts: Sequence[RequestContext] = ()) -> Batch:
        return self.base.batch(histories, contexts)

    def probabilities(self, batch: Batch) -> Float32:
        return self._padded(self.base.probabilities(batch), 0.0)

    def similar(self, item_id: str, n: int) -> list[tuple[str, float]]:
        return self.base.similar(item_id, n)

    def _padded(self, scores: Float32, fill: float) -> Float32:
        padded = np.full((len(scores), len(self.item_ids)), fill, np.float32)
        padded[:, : scores.shape[1]] = scores
        return padded


def live_popularity(
    release: Release,
    policy: FreshnessPolicy | None,
    counts: Mapping[int, Mapping[str, float]],
    published: Mapping[str, int],
    at: int,
) -> tuple[LivePopularity | None, list[str]]:
    """Live popularity at `at` (epoch ms), and the new items that were given a place.

    `counts` are those of the stream by half-life (ms); the release's weights say which of them it mixes in. A release
    without such weights takes the share of `policy`, in a domain that has one, of the first counts. Only an extendable
    release has places for new items; `published` are times of publication, epoch ms.
    """
    weights = release.live_weights
    used = {half_life_ms: weight for half_life_ms, weight in weights.items() if half_life_ms in counts}
    rest = 1 - sum((weight for weight in weights.values()), np.zeros(BUCKETS, np.float32))
    extendable = release if isinstance(release, ExtendableRelease) else None
    if not weights and policy is not None:
        main = next(iter(counts), 0)
        counts, used = {main: counts.get(main, {})}, {main: np.full(BUCKETS, policy.live_weight, np.float32)}
        rest = np.full(BUCKETS, 1 - policy.live_weight, np.float32)
    elif not weights:
        return None, []
    shown, unread = _with_unread({half: counts[half] for half in used}, policy, published, at)
    new: list[str] = []
    if extendable is not None:
        items = dict.fromkeys(item for part in shown.values() for item in part)
        new = [item for item in items if item not in release.index and extendable.add(item)]
    places, shares = _shares(release.index, shown, used)
    places_used = extendable.places if extendable is not None else len(release.item_ids)
    if policy is None:
        return LivePopularity(places, shares, places_used), new
    prior = extendable.prior if extendable is not None else None
    return LivePopularity(places, shares, places_used, prior, rest, unread), new


def _with_unread(
    counts: Mapping[int, Mapping[str, float]], policy: FreshnessPolicy | None, published: Mapping[str, int], at: int
) -> tuple[dict[int, Mapping[str, float]], frozenset[str]]:
    """The counts, where items age also of items that were published and not read yet; and the ids of those."""
    if policy is None or not published:
        return dict(counts), frozenset()
    read = {item for part in counts.values() for item in part}
    shown: dict[int, Mapping[str, float]] = {}
    for half_life_ms, part in counts.items():
        least = min(part.values(), default=1.0)
        ages = {item: max(0, at - published_at) for item, published_at in published.items() if item not in read}
        shown[half_life_ms] = {
            **part,
            **{item: UNREAD_SHARE * least * 2 ** (-age / policy.half_life_ms) for item, age in ages.items()},
        }
    return shown, frozenset(published).difference(read)


def _shares(
    index: Mapping[str, int], counts: Mapping[int, Mapping[str, float]], weights: Mapping[int, Float32]
) -> tuple[Int64, Float32]:
    """`places` and `shares` of `LivePopularity`: each half-life's counts as shares, times its weights, summed."""
    parts: list[tuple[Int64, Float32, Float32]] = []
    for half_life_ms, part in counts.items():
        places = np.fromiter((index.get(item, -1) for item in part), np.int64, len(part))
        amounts = np.fromiter(part.values(), np.float64, len(part))[places >= 0]
        shares = (amounts / max(float(amounts.sum()), 1e-300)).astype(np.float32)
        parts.append((places[places >= 0], shares, weights[half_life_ms]))
    places = np.unique(np.concatenate([part[0] for part in parts])) if parts else np.zeros(0, np.int64)
    total = np.zeros((BUCKETS, len(places)), np.float32)
    for own, shares, weight in parts:
        total[:, np.searchsorted(places, own)] += weight[:, None] * shares
    return places, total
