"""A loaded release: scores of every item for histories, and neighbors of items. Needs neither Keras nor TensorFlow."""

from collections.abc import Sequence
from typing import Any

from features.activity import History
from models.arrays import Float32, Int64
from models.data.batch import Batch, batch_histories
from models.data.profiles import RequestContext
from models.recommenders.base import Scorer
from models.recommenders.blend import BlendScorer
from models.recommenders.freshness import FIRST_SEEN
from models.recommenders.live_popularity import live_weights
from models.releases.manifest import Manifest


class Release:
    """A manifest, its recommender, and the arrays that every release has.

    Attributes:
        history_length: the number of newest events of a history that are read.
        popularity: float32 [items].
        first_seen: int64 [items], epoch ms of each item's first event; None where the domain has no freshness.
        reads_profiles: whether users' profiles change the scores.
        answers_empty_histories: whether users without a history get more than the order of popularity.
    """

    def __init__(self, manifest: Manifest, recommender: Scorer, arrays: dict[str, Any]) -> None:
        self.manifest = manifest
        self.recommender = recommender
        self.vocabulary = recommender.vocabulary
        self.history_length = manifest.history_length
        self.popularity: Float32 = arrays["popularity"]
        self.first_seen: Int64 | None = arrays.get(FIRST_SEEN)
        self._value_model = recommender.value_model
        self._neighbors, self._similarities = arrays["neighbors"], arrays["similarities"]
        self.reads_profiles = recommender.reads_profiles
        self.answers_empty_histories = recommender.answers_empty_histories

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def domain(self) -> str:
        return self.manifest.domain

    @property
    def item_ids(self) -> list[str]:
        return self.vocabulary.item_ids

    @property
    def index(self) -> dict[str, int]:
        return self.vocabulary.index

    @property
    def neighbors(self) -> tuple[Any, Float32]:
        """Indices int32 [items, neighbors], -1 where there are fewer, and similarities float32, most similar first."""
        return self._neighbors, self._similarities

    def knows(self, history: History) -> bool:
        """Whether a history has any event of a known item with a positive kind weight."""
        pairs = zip(history.items, history.kinds, strict=True)
        weights = self.vocabulary.kind_weights
        return any(weights[kind] > 0 and item in self.index for item, kind in pairs)

    def batch(self, histories: Sequence[History], contexts: Sequence[RequestContext] = ()) -> Batch:
        """The histories as the recommender reads them.

        `contexts` gives the user and the time of each history; empty where they are unknown.
        """
        return batch_histories(histories, self.vocabulary, self.history_length, contexts)

    def scores(self, histories: Sequence[History], contexts: Sequence[RequestContext] = ()) -> Float32:
        """float32 [histories, items]; a history without known items gets the order of popularity."""
        return self.recommender.score(self.batch(histories, contexts))

    def probabilities(self, batch: Batch) -> Float32:
        """float32 [batch, items]: scores as shares; they sum to one, or with live popularity in a blend to the rest."""
        return self.recommender.probabilities(batch)

    @property
    def live_weights(self) -> dict[int, Float32]:
        """The weights of live popularity in a blend, by half-life (ms): float32 [buckets] of history lengths."""
        recommender = self.recommender
        return live_weights(recommender) if isinstance(recommender, BlendScorer) else {}

    def expected(self, history: History, context: RequestContext, items: Sequence[str]) -> dict[str, float]:
        """The expected value of the next event with each of these items, in the unit of the most common value kind.

        Empty if the release learned no values; unknown items are left out.
        """
        if self._value_model is None:
            return {}
        vocabulary = self._value_model.vocabulary
        values = self._value_model.values(batch_histories([history], vocabulary, self.history_length, [context]))[0]
        known = {item: vocabulary.index[item] for item in items if item in vocabulary.index}
        return {item: round(float(values[place]), 4) for item, place in known.items()}

    def similar(self, item_id: str, n: int) -> list[tuple[str, float]]:
        """The n most similar items and their similarities, most similar first; empty for an unknown item."""
        place = self.index.get(item_id)
        if place is None:
            return []
        pairs = zip(self._neighbors[place][:n], self._similarities[place][:n], strict=True)
        return [(self.item_ids[neighbor], float(similarity)) for neighbor, similarity in pairs if neighbor >= 0]
