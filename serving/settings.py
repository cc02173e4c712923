"""Every setting, read in one place: defaults, then `coldstream.toml`, then COLDSTREAM_* variables, then flags."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from stream.errors import ColdstreamError

DEFAULT_FILE: Final = "coldstream.toml"
PREFIX: Final = "COLDSTREAM_"
HOPELESS: Final = 2
"""Exit code of a part that cannot work until somebody changes something: it is not started again."""
DOMAINS: Final = "shop,music,video,news"
MOST_EXPLORE: Final = 0.5
RECOMMENDERS: Final = (
    *("auto", "counts", "blend", "popularity", "personal", "item-knn", "sequential-rules", "ease", "ials"),
    *("dnn", "cnn", "rnn", "transformer"),
)


class SettingsError(ColdstreamError):
    """A setting that does not exist or does not fit."""


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
    kafka_port: int = 19092
    kafka_security: dict[str, str] = {}
    """Passed to every Kafka client: security_protocol, sasl_mechanism, sasl_username, sasl_password, ssl_cafile, ..."""
    partitions: int = 4
    retention_ms: int = -1

    store: str = "sqlite"
    """`sqlite`, or the connection string of a Redis server: redis://HOST:PORT."""

    host: str = "127.0.0.1"
    port: int = 8080
    consumer_metrics_port: int = 9101
    archive_metrics_port: int = 9102
    trainer_metrics_port: int = 9103

    batch_events: int = 20_000
    batch_ms: int = 20
    cached_users: int = 60_000
    popularity_every_ms: int = 2_000

    max_future_ms: int = 5 * 60 * 1000
    late_ms: int = 30 * 24 * 60 * 60 * 1000
    history_length: int = 50
    after_timeout_ms: int = 1_000

    train_every: str = "15m"
    recommender: str = "auto"
    """auto, counts, blend, or a recommender's name (several with commas are tuned beside each other, and blended)."""
    preset: str | None = None
    """A file that `coldstream tune` wrote: where training begins to seek parameters."""
    epochs: int = 0
    """0: as many as early stopping and `train_minutes` allow."""
    train_minutes: float = 4.0

    gate_margin: float = 0.0
    """What a candidate's NDCG@10 has to gain on the serving release's, as a share of it."""
    gate_confidence: float = 0.95
    gate_coverage: float = 0.5
    gate_latency_ms: float = 25.0
    gate_one_item: float = 0.95
    gate_known: float = 0.1
    gate_refresh: str = "1d"
    """A serving release whose data are this much older is replaced by one that is not worse; 0s: never."""
    gate_tolerance: float = 0.03
    warm_start: bool = True
    drift_every: str = "5m"
    """How often the trainer looks for drift; 0s: never."""
    drift_index: float = 0.25
    drift_hit_drop: float = 0.2
    drift_events: int = 1_000
    rules: str | None = None
    """A TOML file of rules, read again when it changes (docs/lookups.md)."""
    diversity: float | dict[str, float] = 0.0
    """0 to 1, for every domain or by domain: what a look-up has that names none. So the next three."""
    per_category: int | dict[str, int] | None = None
    categories: int | dict[str, int] | None = None
    explore: float | dict[str, float] = 0.0
    rollout: Literal["promote", "canary"] = "promote"
    """What becomes of a candidate that passed the gate: it serves everyone, or a share first."""
    canary_share: float = 0.1
    canary_promote: Literal["auto", "ask"] = "auto"
    canary_alpha: float = 0.05
    canary_impressions: int = 2_000
    canary_margin: float = 0.1
    canary_errors: float = 0.01
    canary_latency: float = 2.0
    canary_hours: float = 72.0
    """A canary without a verdict goes back after so long; 0: never."""
    click_window_ms: int = 30 * 60 * 1000
    waiting_lists: int = 20_000

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
        SettingsError: naming the setting, where it came from, and what it may be.
    """
    chosen: dict[str, Any] = {}
    environment = os.environ if environment is None else environment
    path = file or Path(environment.get(PREFIX + "SETTINGS", DEFAULT_FILE))
    if file is not None and not path.exists():
        raise SettingsError(f"{path}: no such settings file; leave --settings out to use the defaults")
    if path.exists():
        chosen |= _from_file(path)
    chosen |= _from_environment(environment)
    chosen |= {name: value for name, value in (flags or {}).items() if value is not None}
    try:
        found = msgspec.convert(chosen, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"settings: {error}; docs/settings.md lists every setting") from None
    _check_lookups(found)
    unknown = [one for one in found.recommender.split(",") if one.strip() not in RECOMMENDERS]
    if unknown:
        raise SettingsError(f"settings: recommender {unknown[0]!r} does not exist; there are {', '.join(RECOMMENDERS)}")
    table = found.domains if isinstance(found.domains, dict) else {}
    odd = [f"domains.{name}.{key}" for name, one in table.items() for key in one if key != "preset"]
    if odd:
        raise SettingsError(f"settings: {odd[0]} does not exist; a domain has one setting: preset, a file")
    return found


def _check_lookups(found: Settings) -> None:
    bounds = {"diversity": (0, 1), "explore": (0, MOST_EXPLORE), "per_category": (1, 200), "categories": (1, 200)}
    for name, (low, high) in bounds.items():
        given = getattr(found, name)
        for domain, value in (given if isinstance(given, dict) else {"": given}).items():
            if domain and domain not in found.domain_names:
                raise SettingsError(
                    f"settings: {name}: domain {domain!r} is not one of {', '.join(found.domain_names)}"
                )
            if value is not None and not low <= value <= high:
                raise SettingsError(f"settings: {name}={value} is not between {low} and {high}")


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    known = set(Settings.__struct_fields__)
    found: dict[str, Any] = {}
    for variable, text in environment.items():
        name = variable.removeprefix(PREFIX).lower()
        if variable.startswith(PREFIX) and name in known:
            found[name] = msgspec.json.decode(text) if text.startswith("{") else text
    return found
