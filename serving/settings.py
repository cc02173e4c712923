"""Every setting, read in one place: defaults, then `coldstream.toml`, then COLDSTREAM_* variables, then flags."""

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, inspect

from serving.errors import SettingsError
from serving.setting_types import (
    HOUR_MS,
    MAX_DAYS,
    MAX_MS,
    MAX_PARTITIONS,
    Count,
    ExplorationShare,
    ListPosition,
    Milliseconds,
    Port,
    PositiveShare,
    Probability,
    Share,
    describe_type,
)
from stream.durations import UNITS, seconds

DEFAULT_FILE: Final = "coldstream.toml"
PREFIX: Final = "COLDSTREAM_"
OTHER_VARIABLES: Final = ("SETTINGS", "CACHE", "DATA")
"""Variables that are not settings: the settings file, the folder of Kafka's jars, the public data of the tests."""
EXIT_MISCONFIGURED: Final = 2
"""Exit code of a process that cannot run with its settings: the supervisor does not restart it."""
DOMAINS: Final = "shop,music,video,news"
SHORTEST_S: Final = {"train_every": 1, "gate_refresh": 0, "drift_every": 0}
"""Settings that are a duration as text, and the shortest one allowed."""
SECRETS: Final = ("kafka_security",)
"""Settings that may hold passwords: errors and `repr` do not show their values."""
MASK: Final = "********"
RECOMMENDERS: Final = (
    *("auto", "counts", "blend", "popularity", "personal", "item-knn", "sequential-rules", "ease", "ials"),
    *("dnn", "cnn", "rnn", "transformer"),
)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every setting with its default and range. The folder `state` holds all data of a system.

    Values of `kafka_security` are secrets: `repr` masks them.
    """

    state: str = ".coldstream"
    domain: str = "shop"
    """The domain of a request that names none."""
    domains: str | dict[str, dict[str, str]] = DOMAINS
    """Every domain that events may name, separated by commas; or a table of those that have a preset file of their
    own (`[domains.shop] preset = "my.toml"`), which adds them to the usual ones."""
    presets: str | None = None
    """A folder of preset files, NAME.toml for a domain; a domain without one has the shipped one."""

    kafka: str | None = None
    """HOST:PORT of a real cluster; without it the embedded broker is used."""
    kafka_port: Port = 19092
    kafka_security: dict[str, str] = {}
    """Passed to every Kafka client: security_protocol, sasl_mechanism, sasl_username, sasl_password, ssl_cafile, ..."""
    partitions: Annotated[int, Meta(ge=1, le=MAX_PARTITIONS)] = 4
    retention_ms: Annotated[int, Meta(ge=-1, le=MAX_MS)] = -1

    store: str = "sqlite"
    """`sqlite`, or the connection string of a Redis server: redis://HOST:PORT."""

    host: str = "127.0.0.1"
    port: Port = 8080
    consumer_metrics_port: Port = 9101
    archive_metrics_port: Port = 9102
    trainer_metrics_port: Port = 9103

    batch_events: Count = 20_000
    batch_ms: Annotated[int, Meta(ge=1, le=60_000)] = 20
    cached_users: Count = 60_000
    popularity_every_ms: Annotated[int, Meta(ge=1, le=HOUR_MS)] = 2_000

    max_future_ms: Milliseconds = 5 * 60 * 1000
    late_ms: Milliseconds = 30 * 24 * 60 * 60 * 1000
    history_length: Annotated[int, Meta(ge=1, le=1_000)] = 50
    after_timeout_ms: Annotated[int, Meta(ge=0, le=10 * 60 * 1000)] = 1_000

    train_every: str = "15m"
    recommender: str = "auto"
    """auto, counts, blend, or a recommender's name; several names, separated by commas, are tuned and blended."""
    preset: str | None = None
    """A file written by `coldstream tune`: hyperparameter search starts from its values."""
    epochs: Annotated[int, Meta(ge=0, le=100_000)] = 0
    """0: as many as early stopping and `train_minutes` allow."""
    train_minutes: Annotated[float, Meta(ge=0.01, le=7 * 24 * 60)] = 4.0

    gate_margin: Annotated[float, Meta(ge=-1, le=10)] = 0.0
    """Required gain in NDCG@10 over the current release, as a share of it; a negative value allows a loss."""
    gate_confidence: Probability = 0.95
    gate_coverage: Share = 0.5
    gate_latency_ms: Annotated[float, Meta(gt=0, le=60_000)] = 25.0
    gate_dominant_item: PositiveShare = 0.95
    gate_personalization: Share = 0.1
    gate_refresh: str = "1d"
    """A current release whose data are this much older is replaced by any candidate that is not worse; 0s: never."""
    gate_tolerance: Share = 0.03
    warm_start: bool = True
    drift_every: str = "5m"
    """How often the trainer looks for drift; 0s: never."""
    drift_index: Annotated[float, Meta(gt=0, le=1_000)] = 0.25
    drift_hit_drop: Share = 0.2
    drift_events: Count = 1_000
    rules: str | None = None
    """A TOML file of rules, read again when it changes (docs/rules.md)."""
    diversity: Share | dict[str, Share] = 0.0
    """Default of look-ups, 0 to 1; one value for all domains, or a table by domain. So are the next three."""
    per_category: ListPosition | dict[str, ListPosition] | None = None
    categories: ListPosition | dict[str, ListPosition] | None = None
    explore: ExplorationShare | dict[str, ExplorationShare] = 0.0
    rollout: Literal["promote", "canary"] = "promote"
    """A candidate that passed the gate goes live fully (`promote`) or for a share of users first (`canary`)."""
    canary_share: PositiveShare = 0.1
    canary_promote: Literal["auto", "ask"] = "auto"
    canary_alpha: Probability = 0.05
    canary_impressions: Count = 2_000
    canary_margin: Share = 0.1
    canary_errors: Share = 0.01
    canary_latency: Annotated[float, Meta(ge=1, le=1_000)] = 2.0
    canary_hours: Annotated[float, Meta(ge=0, le=24 * MAX_DAYS)] = 72.0
    """A canary without a decision is rolled back after this time; 0: never."""
    click_window_ms: Annotated[int, Meta(ge=1, le=48 * HOUR_MS)] = 30 * 60 * 1000
    """At most two days: Kafka retains pending impressions that long, for a restart to read."""
    waiting_lists: Annotated[int, Meta(ge=1, le=10_000_000)] = 20_000

    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def __repr__(self) -> str:
        shown = {name: getattr(self, name) for name in self.__struct_fields__}
        shown |= {name: dict.fromkeys(shown[name], MASK) for name in SECRETS}
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def state_path(self) -> Path:
        return Path(self.state).expanduser().absolute()

    @property
    def domain_names(self) -> tuple[str, ...]:
        named = self.domains if isinstance(self.domains, str) else f"{DOMAINS},{','.join(self.domains)}"
        return tuple(dict.fromkeys([self.domain, *(name.strip() for name in named.split(",") if name.strip())]))

    def of(self, name: str, domain: str) -> Any:
        """The value of a setting for one domain; None where the setting is a table without that domain."""
        value = getattr(self, name)
        return value.get(domain) if isinstance(value, dict) else value

    @property
    def bootstrap(self) -> str:
        """HOST:PORT that every Kafka client connects to."""
        return self.kafka or f"127.0.0.1:{self.kafka_port}"


def read(
    file: Path | None = None, environment: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None
) -> Settings:
    """The settings from defaults, file, environment variables and flags; later sources override earlier ones.

    Raises:
        SettingsError: naming the setting, its value, and what it may be.
    """
    chosen: dict[str, Any] = {}
    environment = os.environ if environment is None else environment
    named = environment.get(PREFIX + "SETTINGS")
    path = file or Path(named or DEFAULT_FILE)
    if (file is not None or named) and not path.exists():
        cure = "leave out --settings (COLDSTREAM_SETTINGS) to use the defaults"
        raise SettingsError(f"{path}: no such settings file; {cure}")
    if path.exists():
        chosen |= _from_file(path)
    chosen |= _from_environment(environment)
    chosen |= {name: value for name, value in (flags or {}).items() if value is not None}
    return validate(chosen)


def validate(chosen: Mapping[str, Any]) -> Settings:
    """Settings with these values, and defaults for the others. Raises like `read`."""
    try:
        settings = msgspec.convert(chosen, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise _range_error(chosen, error) from None
    for name, least in SHORTEST_S.items():
        _check_duration(name, getattr(settings, name), least)
    _check_domains_of_tables(settings)
    unknown = [name for name in settings.recommender.split(",") if name.strip() not in RECOMMENDERS]
    if unknown:
        raise SettingsError(f"settings: recommender {unknown[0]!r} does not exist; there are {', '.join(RECOMMENDERS)}")
    table = settings.domains if isinstance(settings.domains, dict) else {}
    odd = [f"domains.{name}.{key}" for name, entries in table.items() for key in entries if key != "preset"]
    if odd:
        raise SettingsError(f"settings: {odd[0]} does not exist; a domain has one setting: preset, a file")
    return settings


def duration_seconds(text: str) -> float:
    """`90s`, `15m`, `6h`, `1d` in seconds.

    Raises:
        SettingsError: anything else.
    """
    try:
        return seconds(text)
    except ValueError as error:
        raise SettingsError(str(error)) from None


def describe_range(name: str) -> str:
    """The allowed values of a setting, in words."""
    if name in SHORTEST_S:
        return f"a number and s, m, h or d, such as 15m, from {SHORTEST_S[name]}s to {MAX_DAYS}d"
    kind = inspect.type_info(Settings)
    assert isinstance(kind, inspect.StructType)
    return describe_type(next(field.type for field in kind.fields if field.name == name))


def _range_error(chosen: Mapping[str, Any], error: msgspec.ValidationError) -> SettingsError:
    place = re.search(r"`\$\.(\w+)", str(error))
    if place is None:
        return SettingsError(f"settings: {error}; docs/settings.md lists every setting")
    name = place[1]
    given = f"={chosen[name]}" if name not in SECRETS else ""
    return SettingsError(f"settings: {name}{given} does not fit; give {describe_range(name)}")


def _check_duration(name: str, text: str, least: int) -> None:
    try:
        fits = least <= duration_seconds(text) <= MAX_DAYS * UNITS["d"]
    except SettingsError:
        fits = False
    if not fits:
        raise SettingsError(f"settings: {name}={text} does not fit; give {describe_range(name)}")


def _check_domains_of_tables(settings: Settings) -> None:
    for name in ("diversity", "explore", "per_category", "categories"):
        given = getattr(settings, name)
        for domain in given if isinstance(given, dict) else ():
            if domain not in settings.domain_names:
                raise SettingsError(
                    f"settings: {name}: domain {domain!r} is not one of {', '.join(settings.domain_names)}"
                )


def _check_names(where: str, given: Iterable[str], known: Iterable[str], prefix: str = "") -> None:
    known = list(known)
    unknown = next((name for name in given if name not in known), None)
    if unknown is not None:
        near = get_close_matches(unknown, known, 1)
        hint = f"did you mean {prefix}{near[0]}? " if near else ""
        raise SettingsError(f"{where}: {prefix}{unknown} does not exist; {hint}docs/settings.md lists every setting")


def _from_file(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from None
    _check_names(str(path), values, Settings.__struct_fields__)
    return values


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    ours = {name[len(PREFIX) :].upper(): text for name, text in environment.items() if name.startswith(PREFIX)}
    _check_names("settings", ours, [*(name.upper() for name in Settings.__struct_fields__), *OTHER_VARIABLES], PREFIX)
    return {name.lower(): _decoded(name, text) for name, text in ours.items() if name not in OTHER_VARIABLES}


def _decoded(name: str, text: str) -> Any:
    if not text.startswith("{"):
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise SettingsError(f"settings: {PREFIX}{name} is not JSON: {error}") from None
