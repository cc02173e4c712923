"""Live popularity: what is popular at the moment of a request, with counts that halve with a half-life.

A recommender for a blend. Evaluations count the events before each request; a release stores the half-life alone, and
look-ups add the shares that the stream counted, by number of known events (`serving.catalogue.live_popularity`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import numpy as np
import pandas as pd
from msgspec import Meta

from features.popularity import POPULARITY_WEIGHTS
from models.arrays import Float32, Float64, Int32, Int64
from models.data.batch import Batch
from models.data.interactions import Interactions
from models.data.vocabulary import Vocabulary, kind_weights_of
from models.recommenders.base import Recommender, ReleasableSpec, Scorer, StoredRecommender, TuningContext, checked
from models.recommenders.blend import BlendScorer
from models.recommenders.registry import live_name
from models.recommenders.tuning_space import DAY_MS, MIN_DAYS

if TYPE_CHECKING:
    from optuna import Trial

HALF_LIVES_MS: Final = (DAY_MS, 7 * DAY_MS, 30 * DAY_MS)
NEWS_HALF_LIVES_MS: Final = (DAY_MS // 72, DAY_MS // 24, DAY_MS // 4)


class RequestTimePopularity(Recommender, ReleasableSpec):
    """What is popular at the moment of each request: events before it, halved with every half-life of their age.

    A request without a time is asked after the last event. Before it is fitted it says nothing: scores are 0.
    """

    is_personalized = False
    follows_stream = True

    class Params(msgspec.Struct, frozen=True, kw_only=True):
        """`half_life_ms` of a count, and what an event of each kind adds, as the stream counts it."""

        half_life_ms: Annotated[float, Meta(gt=0)] = 7.0 * DAY_MS
        kinds: dict[str, Annotated[float, Meta(ge=0)]] = msgspec.field(default_factory=lambda: dict(POPULARITY_WEIGHTS))

    def __init__(self, params: Params | None = None) -> None:
        self.params = params or self.Params()
        self.name = live_name(self.params.half_life_ms)
        self.vocabulary = Vocabulary.from_items([])
        self._times: Int64 = np.zeros(0, np.int64)
        self._items: Int32 = np.zeros(0, np.int32)
        self._weights: Float64 = np.zeros(0)

    @property
    def reads_time(self) -> bool:
        return True

    @property
    def answers_empty_histories(self) -> bool:
        return True

    def fit(self, interactions: Interactions) -> None:
        times = interactions.at
        order = np.argsort(times, kind="stable")
        self.vocabulary = interactions.vocabulary
        self._times = times[order]
        self._items = interactions.items[order]
        self._weights = np.array(kind_weights_of(self.params.kinds))[interactions.kinds[order]]

    def score(self, batch: Batch) -> Float32:
        if not len(self._times):
            return np.zeros((len(batch), len(self.vocabulary)), np.float32)
        if not batch.contexts:
            return self.counts_at(np.zeros(len(batch), np.int64))
        return self.counts_at(np.array([context.at for context in batch.contexts], np.int64))

    def counts_at(self, times: Int64) -> Float32:
        """float32 [times, items]: the counts at each time (epoch ms; 0: after the last event), in one pass by time."""
        after = int(self._times[-1]) + 1 if len(self._times) else 1
        moments, rows = np.unique(np.where(times > 0, times, after), return_inverse=True)
        table = np.zeros((len(moments), len(self.vocabulary)), np.float32)
        counts, counted, now = np.zeros(len(self.vocabulary)), 0, 0
        for number, moment in enumerate(moments.tolist()):
            until = int(np.searchsorted(self._times, moment))
            counts *= self._faded(moment - now)
            weights = self._weights[counted:until] * self._faded(moment - self._times[counted:until])
            counts += np.bincount(self._items[counted:until], weights, len(counts))
            table[number], counted, now = counts, until, moment
        result: Float32 = table[rows]
        return result

    def add(self, out: Float32, batch: Batch, weights: Float32) -> None:
        if len(self._times):
            super().add(out, batch, weights)

    def _faded(self, ages: Any) -> Any:
        """What is left of a count after `ages` (ms)."""
        return np.exp2(-np.asarray(ages, np.float64) / self.params.half_life_ms)

    def save(self, folder: Path, prefix: str = "") -> list[str]:  # noqa: ARG002 - a look-up has the counts of the stream
        """No files."""
        return []

    def describe(self) -> dict[str, Any]:
        return msgspec.structs.asdict(self.params)

    @classmethod
    def create(cls, params: Mapping[str, Any], context: TuningContext, seed: int = 0) -> Recommender:  # noqa: ARG003
        return cls(checked(cls.Params, params, "live popularity"))

    @classmethod
    def load(cls, stored: StoredRecommender) -> Scorer:
        params = {name: stored.params[name] for name in cls.Params.__struct_fields__}
        live = cls(msgspec.convert(params, cls.Params))
        live.vocabulary = stored.vocabulary
        return live

    @classmethod
    def space(cls, trial: "Trial", context: TuningContext) -> dict[str, Any]:
        longest = max(2 * MIN_DAYS, context.days)
        return {"half_life_ms": trial.suggest_float("half_life_days", MIN_DAYS, longest, log=True) * DAY_MS}


def follow_stream(scorer: Scorer, frame: pd.DataFrame) -> None:
    """Let live popularity among the members of `scorer` count the events of a frame [user_id, item_id, kind, at]: all
    that is known, later ones too. Each request reads only what came before it; other members stay as they are.
    """
    followers = [member for member in scorer.members if isinstance(member, RequestTimePopularity)]
    if followers:
        events = Interactions.from_frame(frame, scorer.vocabulary)
        for member in followers:
            member.fit(events)


def live_weights(blend: BlendScorer) -> dict[int, Float32]:
    """The weights of live popularity among a blend's members, by half-life (ms): float32 [buckets]."""
    return {
        round(member.params.half_life_ms): blend.weights[:, number]
        for number, member in enumerate(blend.members)
        if isinstance(member, RequestTimePopularity)
    }
