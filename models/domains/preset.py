"""Domain presets: kind weights, seen items, half-lives, encoder, freshness and tuned parameters of a domain.

A preset is a TOML file. `models/domains` ships presets of `shop`, `music`, `video` and `news`; an operator's own file
replaces the shipped one. Fields that a file omits have the defaults of `DomainPreset()`.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from features.popularity import POPULARITY_WEIGHTS, PopularitySettings
from models.data.vocabulary import PREFERENCE_WEIGHTS, kind_weights_of
from models.errors import PresetError
from models.recommenders.registry import (
    DEFAULT_MEMBERS,
    REGISTRY,
    half_life_of,
    is_neural,
    is_releasable,
    neural_names,
    releasable_names,
)
from stream.durations import UNITS, seconds
from stream.events import KINDS

FOLDER: Final = Path(__file__).parent
SHORT_MS: Final = 1_000 * UNITS["d"]
LEAST: Final = 2.0**-30
"""Popularity counts below this are dropped: after about thirty half-lives without an event."""
CURE: Final = "`coldstream presets show shop` prints a whole preset; `coldstream tune --preset FILE` writes a tuned one"
NONE: Final = "none"
"""How a preset writes None: TOML has no null."""


class SeenPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether items of a history may be recommended again: `keep`, `mask`, or mask items taken `within` a time."""

    policy: Literal["keep", "mask", "within"] = "mask"
    within: str = "0s"


class PopularityPreset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How popularity is counted: the half-life of a count, and the weight of each kind of interaction."""

    half_life: str = "7d"
    kinds: dict[str, float] = msgspec.field(default_factory=lambda: dict(POPULARITY_WEIGHTS))


class TrainingPreset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is trained: the members of the blend (including the encoder), the encoder's loss, popularity's half-life.

    `values`: weight of the encoder's value head, which predicts the value of events; 0: no such head.
    `retrain_every`: the interval of trainings in a progressive evaluation.
    """

    encoder: str = "transformer"
    loss: str = "auto"
    values: float = 0.0
    members: list[str] = msgspec.field(default_factory=lambda: list(DEFAULT_MEMBERS))
    half_life: str = "28d"
    retrain_every: str = "7d"


class FilterPreset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Kinds after which an item is no longer recommended."""

    unwanted: list[str] = msgspec.field(default_factory=lambda: ["dislike", "hide"])


class FreshnessPreset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Scores halve with every `half_life` of an item's age; `live` is the share of live popularity in the scores."""

    half_life: str
    live: float = 0.0


class TunedParams(msgspec.Struct, frozen=True):
    """Tuned parameters of a recommender.

    `ndcg` is NDCG@10 on the tuning cases of the data set `source`, split by `protocol`, after `trials` of a `study`.
    """

    params: dict[str, Any]
    ndcg: float = 0.0
    trials: int = 0
    study: str = ""
    source: str = ""
    protocol: str = ""


class DomainPreset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A domain's preset. `kinds`: the preference weight of each kind of event, in training and look-ups."""

    about: str = ""
    kinds: dict[str, float] = msgspec.field(default_factory=lambda: dict(PREFERENCE_WEIGHTS))
    seen: SeenPolicy = SeenPolicy()
    popularity: PopularityPreset = msgspec.field(default_factory=PopularityPreset)
    training: TrainingPreset = msgspec.field(default_factory=TrainingPreset)
    filters: FilterPreset = msgspec.field(default_factory=FilterPreset)
    freshness: FreshnessPreset | None = None
    recommenders: dict[str, TunedParams] = {}

    @property
    def weights(self) -> tuple[float, ...]:
        """`kinds` by event code."""
        return kind_weights_of(self.kinds)

    @property
    def mask_seen(self) -> bool:
        """Whether items of a history are never recommended; used by training and evaluation."""
        return self.seen.policy == "mask"

    @property
    def seen_ms(self) -> int | None:
        """Items taken within this time (ms) are masked; 0: none, None: all."""
        return None if self.mask_seen else milliseconds(self.seen.within) if self.seen.policy == "within" else 0

    @property
    def recency_ms(self) -> int:
        return milliseconds(self.training.half_life)

    @property
    def counting(self) -> PopularitySettings:
        """The settings of popularity counts, with the half-lives of live popularity among the members."""
        half_life_ms = milliseconds(self.popularity.half_life)
        least = LEAST if half_life_ms < SHORT_MS else 0.0
        further = {half_life for name in self.training.members if (half_life := half_life_of(name)) is not None}
        return PopularitySettings(half_life_ms, self.popularity.kinds, least, tuple(sorted(further - {half_life_ms})))

    @property
    def tuned_params(self) -> dict[str, dict[str, Any]]:
        """The parameters of `recommenders`, by name."""
        return {name: tuned.params for name, tuned in self.recommenders.items()}

    def params(self) -> dict[str, dict[str, Any]]:
        """Tuned parameters by recommender, including the encoder's loss and the weight of its value head."""
        training, tuned = self.training, self.tuned_params
        encoder_params: dict[str, Any] = {"loss": training.loss} if training.loss != "auto" else {}
        encoder_params |= {"values": training.values} if training.values else {}
        return (
            {**tuned, training.encoder: {**tuned.get(training.encoder, {}), **encoder_params}}
            if encoder_params
            else tuned
        )


def milliseconds(text: str) -> int:
    """`90s`, `15m`, `6h`, `7d` in ms.

    Raises:
        ValueError: anything else.
    """
    return round(1_000 * seconds(text))


def shipped() -> dict[str, Path]:
    """The presets that come with the package, by domain."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def preset_of(domain: str, file: Path | None = None) -> DomainPreset:
    """A domain's preset: from `file` if given, else the shipped preset, else the defaults."""
    path = file or shipped().get(domain)
    return read_preset(path) if path is not None else DomainPreset()


def read_preset(path: Path) -> DomainPreset:
    """A preset from its file.

    Raises:
        PresetError: the message names the file, the field and the fix.
    """
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise PresetError(f"preset {path}: {error.strerror}; {CURE}: save it there and change it") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PresetError(f"preset {path}: not TOML: {error}; {CURE}") from error
    try:
        preset = msgspec.convert(raw, DomainPreset)
    except msgspec.ValidationError as error:
        raise PresetError(f"preset {path}: {_field(str(error))}; {CURE}") from error
    for field, wrong in _faults(preset):
        raise PresetError(f"preset {path}: {field}: {wrong}")
    return msgspec.structs.replace(preset, recommenders=_recommenders(path, preset.recommenders))


def _recommenders(path: Path, recommenders: Mapping[str, TunedParams]) -> dict[str, TunedParams]:
    """Tuned parameters with "none" read as None."""
    unknown = [name for name in recommenders if name not in REGISTRY]
    if unknown:
        raise PresetError(f"preset {path}: no recommender is called {unknown[0]!r}; there are {', '.join(REGISTRY)}")
    return {
        name: msgspec.structs.replace(
            tuned, params={key: None if value == NONE else value for key, value in tuned.params.items()}
        )
        for name, tuned in recommenders.items()
    }


def _field(message: str) -> str:
    """A msgspec message that starts with the field: `seen.policy: Invalid enum value 'forget'`."""
    what, _, where = message.partition(" - at `$")
    return f"{where.strip('.`')}: {what}" if where else what


def _faults(preset: DomainPreset) -> list[tuple[str, str]]:
    """Invalid fields of a preset, each with the problem and its fix."""
    training, fresh = preset.training, preset.freshness
    faults = [
        *_bad_kinds("kinds", preset.kinds),
        *_bad_kinds("popularity.kinds", preset.popularity.kinds),
        *_bad_kinds("filters.unwanted", dict.fromkeys(preset.filters.unwanted, 0.0)),
        *_bad_duration("popularity.half_life", preset.popularity.half_life),
        *_bad_duration("training.half_life", training.half_life),
        *_bad_duration("training.retrain_every", training.retrain_every),
        *(_bad_duration("seen.within", preset.seen.within) if preset.seen.policy == "within" else []),
        *(_bad_duration("freshness.half_life", fresh.half_life) if fresh is not None else []),
    ]
    if not any(preset.kinds.values()):
        faults.append(("kinds", "no kind counts in favor of an item; give at least one a weight above 0"))
    if not is_neural(training.encoder):
        encoders = ", ".join(neural_names())
        faults.append(("training.encoder", f"no encoder is called {training.encoder!r}; there are {encoders}"))
    if not 0 <= training.values < float("inf"):
        faults.append(("training.values", f"{training.values} is no weight; give 0 (no such head) or more"))
    unknown = [name for name in training.members if not is_releasable(name)]
    if unknown or all(half_life_of(name) is not None for name in training.members):
        problem = _no_member(unknown[0]) if unknown else "a blend has at least one member besides live popularity"
        there_are = f"{', '.join(releasable_names())}, and live popularity with a half-life: live-7d"
        faults.append(("training.members", f"{problem}; there are {there_are}"))
    if fresh is not None and not 0 <= fresh.live < 1:
        faults.append(("freshness.live", f"{fresh.live} is no share; give 0 (nothing of it) or more, below 1"))
    return faults


def _no_member(name: str) -> str:
    return f"{name} is for evaluations" if name in REGISTRY else f"no recommender is called {name!r}"


def _bad_kinds(field: str, kinds: Mapping[str, float]) -> list[tuple[str, str]]:
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        return [(f"{field}.{unknown[0]}", f"there is no such kind; there are {', '.join(KINDS)}")]
    below = [kind for kind, amount in kinds.items() if not 0 <= amount < float("inf")]
    return [(f"{field}.{kind}", f"{kinds[kind]} is no weight; give 0 or more") for kind in below]


def _bad_duration(field: str, text: str) -> list[tuple[str, str]]:
    try:
        too_short = milliseconds(text) < 1_000 * UNITS["s"]
    except ValueError as error:
        return [(field, str(error))]
    return [(field, f"{text!r} is too short; give a second or more")] if too_short else []
