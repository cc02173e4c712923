"""The recommenders by name. Each is one file, imported only when its name is used."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from models.data.vocabulary import Vocabulary
from models.errors import TrainingError
from models.recommenders.base import (
    Recommender,
    RecommenderSpec,
    ReleasableSpec,
    Scorer,
    StoredRecommender,
    TuningContext,
)
from models.recommenders.tuning_space import DAY_MS
from stream.durations import seconds

REGISTRY: Final[dict[str, str]] = {
    "popularity": "models.recommenders.popularity:Popularity",
    "first-events": "models.recommenders.first_events:FirstEvents",
    "personal": "models.recommenders.personal:Personal",
    "item-knn": "models.recommenders.item_knn:ItemKNN",
    "sequential-rules": "models.recommenders.sequential_rules:SequentialRules",
    "rp3beta": "models.recommenders.rp3beta:RP3Beta",
    "ease": "models.recommenders.ease:EASE",
    "ials": "models.recommenders.ials:IALS",
    "svd-filter": "models.recommenders.svd_filter:SVDFilter",
    "content-knn": "models.recommenders.content_knn:ContentKNN",
    "user-knn": "models.recommenders.user_knn:UserKNN",
    "live-popularity": "models.recommenders.live_popularity:RequestTimePopularity",
    "fresh": "models.recommenders.freshness:Fresh",
    "dnn": "models.recommenders.neural.specs:DNNSpec",
    "cnn": "models.recommenders.neural.specs:CNNSpec",
    "rnn": "models.recommenders.neural.specs:RNNSpec",
    "transformer": "models.recommenders.neural.specs:TransformerSpec",
}
"""Where each recommender is defined, by name. A new recommender is one line here."""
BLEND: Final = "models.recommenders.blend:BlendScorer"
"""A blend combines the others, so a release names its members."""
LIVE: Final = "live-popularity"
"""Live popularity with a half-life that is tuned; a release names one: `live-7d`."""
DEFAULT_MEMBERS: Final = (
    *("first-events", "personal", "item-knn", "sequential-rules", "ease", "svd-filter", "transformer"),
    *("live-1d", "live-7d", "live-30d"),
)
"""The members of a blend, unless others are named."""


def spec(name: str) -> type[RecommenderSpec]:
    """How the recommender of a name is created and tuned.

    Raises:
        KeyError: there is no such recommender.
    """
    module, _, attribute = REGISTRY[LIVE if half_life_of(name) is not None else name].partition(":")
    recommender: type[RecommenderSpec] = getattr(import_module(module), attribute)
    return recommender


def is_neural(name: str) -> bool:
    """Whether the recommender of a name is a neural network; False for unknown names and blends."""
    return name in REGISTRY and spec(name).is_neural


def neural_names() -> list[str]:
    """The names of the neural recommenders."""
    return [name for name in REGISTRY if spec(name).is_neural]


def releasable_names() -> list[str]:
    """The names of the recommenders that a release can be made of."""
    return [name for name in REGISTRY if issubclass(spec(name), ReleasableSpec) and name != LIVE]


def live_name(half_life_ms: float) -> str:
    """The name of live popularity with a half-life.

    >>> live_name(7 * 24 * 60 * 60 * 1000), live_name(20 * 60 * 1000)
    ('live-7d', 'live-20m')
    """
    for unit, milliseconds in (("d", DAY_MS), ("h", DAY_MS / 24), ("m", DAY_MS / 1440)):
        if half_life_ms >= milliseconds:
            return f"live-{half_life_ms / milliseconds:g}{unit}"
    return f"live-{half_life_ms / 1000:g}s"


def half_life_of(name: str) -> int | None:
    """The half-life (ms) in a name such as `live-7d`; None for other names.

    >>> half_life_of("live-7d"), half_life_of("live-popularity")
    (604800000, None)
    """
    if not name.startswith("live-") or name == LIVE:
        return None
    try:
        return round(1_000 * seconds(name.removeprefix("live-"))) or None
    except ValueError:
        return None


def is_releasable(name: str) -> bool:
    """Whether a release can be made with the recommender of a name."""
    return half_life_of(name) is not None or name in releasable_names()


def parse_names(chosen: str, *, releasable: bool = False) -> list[str]:
    """The names that a choice stands for: `all`, one name, or several separated by commas.

    Raises:
        TrainingError: there is no such recommender; with `releasable`, or no release can be made of it.
    """
    known = releasable_names() if releasable else list(REGISTRY)
    if chosen == "all":
        return known
    names = [part.strip() for part in chosen.split(",") if part.strip()]
    for name in names:
        if name not in known and half_life_of(name) is None:
            raise TrainingError(
                f"no recommender is called {name!r}; there are all, blend, {', '.join(known)}, and live popularity "
                "with a half-life: live-7d"
            )
    if releasable and names and all(half_life_of(name) is not None for name in names):
        raise TrainingError(f"{chosen}: live popularity is a member of a blend; name another recommender too")
    return names


def create(name: str, params: Mapping[str, Any], context: TuningContext, seed: int = 0) -> Recommender:
    """An unfitted recommender; parameters that are not given have their defaults.

    Raises:
        KeyError: there is no such recommender.
        TrainingError: there is no such parameter, or a value is out of bounds.
    """
    half_life_ms = half_life_of(name)
    own = {"half_life_ms": float(half_life_ms)} if half_life_ms is not None else {}
    return spec(name).create({**params, **own}, context, seed)


def tuned_params(name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Of the parameters that `describe` gives, those that are tuned: not those that the run or its context sets."""
    return {key: value for key, value in params.items() if key not in spec(name).derived}


def load(params: Mapping[str, Any], vocabulary: Vocabulary, arrays: Mapping[str, Any], prefix: str = "") -> Scorer:
    """The scorer that `params` (its name under `recommender`, and what `describe` gave) and `arrays` describe.

    `arrays` are named like their files without ending: `<prefix>embeddings`; an ONNX session is `<prefix>encoder`.

    Raises:
        KeyError: an array or a parameter is missing, or there is no such recommender.
        ValueError: arrays do not fit each other, or no release can be made of the recommender.
    """
    own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    return _load(StoredRecommender(params, vocabulary, own, _load))


def _load(stored: StoredRecommender) -> Scorer:
    if "members" in stored.params:
        module, _, attribute = BLEND.partition(":")
        scorer: Scorer = getattr(import_module(module), attribute).load(stored)
        return scorer
    name = str(stored.params["recommender"])
    recommender = spec(name)
    if not issubclass(recommender, ReleasableSpec):
        raise ValueError(f"no release can be made of {name!r}; there are {', '.join(releasable_names())}")
    return recommender.load(stored)
