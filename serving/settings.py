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

from serving.bounds import (
    HOUR_MS,
    LONGEST_D,
    LONGEST_MS,
    MOST_PARTITIONS,
    Chance,
    Count,
    Explored,
    Listed,
    Milliseconds,
    Port,
    Share,
    SomeShare,
    worded,
)
from serving.errors import SettingsError
from stream.durations import UNITS, seconds

DEFAULT_FILE: Final = "coldstream.toml"
PREFIX: Final = "COLDSTREAM_"
OTHERS: Final = ("SETTINGS", "CACHE", "DATA")
"""Variables that are no settings: the settings' file, the folder of Kafka's jars, the public data of the tests."""
HOPELESS: Final = 2
"""Exit code of a part that cannot work until somebody changes something: it is not started again."""
DOMAINS: Final = "shop,music,video,news"
LEAST_S: Final = {"train_every": 1, "gate_refresh": 0, "drift_every": 0}
"""Durations that are text, and the least of each."""
HIDDEN: Final = ("kafka_security",)
"""What an error does not repeat: it may hold a password."""
RECOMMENDERS: Final = (
    *("auto", "counts", "blend", "popularity", "personal", "item-knn", "sequential-rules", "ease", "ials"),
    *("dnn", "cnn", "rnn", "transformer"),
)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a system is told. Paths below `state` hold everything it keeps."""

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
    partitions: Annotated[int, Meta(ge=1, le=MOST_PARTITIONS)] = 4
    retention_ms: Annotated[int, Meta(ge=-1, le=LONGEST_MS)] = -1

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
    """auto, counts, blend, or a recommender's name (several with commas are tuned beside each other, and blended)."""
    preset: str | None = None
    """A file that `coldstream tune` wrote: where training begins to seek parameters."""
    epochs: Annotated[int, Meta(ge=0, le=100_000)] = 0
    """0: as many as early stopping and `train_minutes` allow."""
    train_minutes: Annotated[float, Meta(ge=0.01, le=7 * 24 * 60)] = 4.0

    gate_margin: Annotated[float, Meta(ge=-1, le=10)] = 0.0
    """What a candidate's NDCG@10 has to gain on the serving release's, as a share of it; below 0: what it may lose."""
    gate_confidence: Chance = 0.95
    gate_coverage: Share = 0.5
    gate_latency_ms: Annotated[float, Meta(gt=0, le=60_000)] = 25.0
    gate_one_item: SomeShare = 0.95
    gate_known: Share = 0.1
    gate_refresh: str = "1d"
    """A serving release whose data are this much older is replaced by one that is not worse; 0s: never."""
    gate_tolerance: Share = 0.03
    warm_start: bool = True
    drift_every: str = "5m"
    """How often the trainer looks for drift; 0s: never."""
    drift_index: Annotated[float, Meta(gt=0, le=1_000)] = 0.25
    drift_hit_drop: Share = 0.2
    drift_events: Count = 1_000
    rules: str | None = None
    """A TOML file of rules, read again when it changes (docs/lookups.md)."""
    diversity: Share | dict[str, Share] = 0.0
    """0 to 1, for every domain or by domain: what a look-up has that names none. So the next three."""
    per_category: Listed | dict[str, Listed] | None = None
    categories: Listed | dict[str, Listed] | None = None
    explore: Explored | dict[str, Explored] = 0.0
    rollout: Literal["promote", "canary"] = "promote"
    """What becomes of a candidate that passed the gate: it serves everyone, or a share first."""
    canary_share: SomeShare = 0.1
    canary_promote: Literal["auto", "ask"] = "auto"
    canary_alpha: Chance = 0.05
    canary_impressions: Count = 2_000
    canary_margin: Share = 0.1
    canary_errors: Share = 0.01
    canary_latency: Annotated[float, Meta(ge=1, le=1_000)] = 2.0
    canary_hours: Annotated[float, Meta(ge=0, le=24 * LONGEST_D)] = 72.0
    """A canary without a verdict goes back after so long; 0: never."""
    click_window_ms: Annotated[int, Meta(ge=1, le=48 * HOUR_MS)] = 30 * 60 * 1000
    """At most two days: so long Kafka keeps the lists that wait, and a restart reads them again."""
    waiting_lists: Annotated[int, Meta(ge=1, le=10_000_000)] = 20_000

    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def state_path(self) -> Path:
        return Path(self.state).expanduser().absolute()

    @property
    def domain_names(self) -> tuple[str, ...]:
        named = self.domains if isinstance(self.domains, str) else f"{DOMAINS},{','.join(self.domains)}"
        return tuple(dict.fromkeys([self.domain, *(one.strip() for one in named.split(",") if one.strip())]))

    def of(self, name: str, domain: str) -> Any:
        """A setting that may differ by domain, for one domain; None where nothing is said of it."""
        value = getattr(self, name)
        return value.get(domain) if isinstance(value, dict) else value

    @property
    def bootstrap(self) -> str:
        """HOST:PORT that every Kafka client connects to."""
        return self.kafka or f"127.0.0.1:{self.kafka_port}"


def read(
    file: Path | None = None, environment: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None
) -> Settings:
    """The settings in force.

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
    return checked(chosen)


def checked(chosen: Mapping[str, Any]) -> Settings:
    """Settings of these values, the others as by default. Raises like `read`."""
    try:
        found = msgspec.convert(chosen, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise _unfit(chosen, error) from None
    for name, least in LEAST_S.items():
        _check_duration(name, getattr(found, name), least)
    _check_lookups(found)
    unknown = [one for one in found.recommender.split(",") if one.strip() not in RECOMMENDERS]
    if unknown:
        raise SettingsError(f"settings: recommender {unknown[0]!r} does not exist; there are {', '.join(RECOMMENDERS)}")
    table = found.domains if isinstance(found.domains, dict) else {}
    odd = [f"domains.{name}.{key}" for name, one in table.items() for key in one if key != "preset"]
    if odd:
        raise SettingsError(f"settings: {odd[0]} does not exist; a domain has one setting: preset, a file")
    return found


def seconds_of(text: str) -> float:
    """`90s`, `15m`, `6h`, `1d` in seconds.

    Raises:
        SettingsError: anything else.
    """
    try:
        return seconds(text)
    except ValueError as error:
        raise SettingsError(str(error)) from None


def allowed(name: str) -> str:
    """What a setting may be, in words."""
    if name in LEAST_S:
        return f"a number and s, m, h or d, such as 15m, from {LEAST_S[name]}s to {LONGEST_D}d"
    kind = inspect.type_info(Settings)
    assert isinstance(kind, inspect.StructType)
    return worded(next(one.type for one in kind.fields if one.name == name))


def _unfit(chosen: Mapping[str, Any], error: msgspec.ValidationError) -> SettingsError:
    place = re.search(r"`\$\.(\w+)", str(error))
    if place is None:
        return SettingsError(f"settings: {error}; docs/settings.md lists every setting")
    name = place[1]
    given = f"={chosen[name]}" if name not in HIDDEN else ""
    return SettingsError(f"settings: {name}{given} does not fit; give {allowed(name)}")


def _check_duration(name: str, text: str, least: int) -> None:
    try:
        fits = least <= seconds_of(text) <= LONGEST_D * UNITS["d"]
    except SettingsError:
        fits = False
    if not fits:
        raise SettingsError(f"settings: {name}={text} does not fit; give {allowed(name)}")


def _check_lookups(found: Settings) -> None:
    for name in ("diversity", "explore", "per_category", "categories"):
        given = getattr(found, name)
        for domain in given if isinstance(given, dict) else ():
            if domain not in found.domain_names:
                raise SettingsError(
                    f"settings: {name}: domain {domain!r} is not one of {', '.join(found.domain_names)}"
                )


def _check_names(where: str, given: Iterable[str], known: Iterable[str], prefix: str = "") -> None:
    known = list(known)
    unknown = next((one for one in given if one not in known), None)
    if unknown is not None:
        near = get_close_matches(unknown, known, 1)
        hint = f"did you mean {prefix}{near[0]}? " if near else ""
        raise SettingsError(f"{where}: {prefix}{unknown} does not exist; {hint}docs/settings.md lists every setting")


def _from_file(path: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from None
    _check_names(str(path), found, Settings.__struct_fields__)
    return found


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    ours = {name[len(PREFIX) :].upper(): text for name, text in environment.items() if name.startswith(PREFIX)}
    _check_names("settings", ours, [*(one.upper() for one in Settings.__struct_fields__), *OTHERS], PREFIX)
    return {name.lower(): _decoded(name, text) for name, text in ours.items() if name not in OTHERS}


def _decoded(name: str, text: str) -> Any:
    if not text.startswith("{"):
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise SettingsError(f"settings: {PREFIX}{name} is not JSON: {error}") from None
