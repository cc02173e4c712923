"""Every setting, read in one place: defaults, then `coldstream.toml`, then COLDSTREAM_* variables, then flags."""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, inspect

from serving.errors import SettingsError
from serving.setting_checks import check_connections, check_domain_name, check_known, check_replication, check_tables
from serving.setting_secrets import mask_setting, secrets_of
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
    Replicas,
    Share,
    Timeout,
    describe_type,
)
from stream.addresses import bracketed, parse_servers
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
DOMAIN_TABLES: Final = ("diversity", "explore", "per_category", "categories")
"""Settings that may be a table by domain."""
ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what a server listens on, not a client's address
RECOMMENDERS: Final = (
    *("auto", "counts", "blend", "popularity", "personal", "item-knn", "sequential-rules", "ease", "ials"),
    *("svd-filter", "user-knn", "rp3beta", "content-knn", "first-events"),
    *("dnn", "cnn", "rnn", "transformer"),
)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every setting with its default and range; docs/settings.md is generated from these lines.

    `kafka_security` and `store` may hold secrets: `repr` and `shown` mask them.
    """

    state: str = ".coldstream"
    """Folder for all data of a system."""
    domain: str = "shop"
    """Domain of requests and events that name none."""
    domains: str | dict[str, dict[str, str]] = DOMAINS
    """All domains, separated by commas; or a table that adds domains and names preset files
    (`[domains.shop] preset = "my.toml"`)."""
    presets: str | None = None
    """Folder of preset files, NAME.toml for a domain; a domain without one has the shipped one."""

    kafka: str | None = None
    """HOST:PORT of a cluster, or several separated by commas; without it the embedded broker runs."""
    kafka_port: Port = 19092
    """Port of the embedded broker."""
    kafka_security: dict[str, str] = {}
    """What every Kafka client needs to enter the cluster: security_protocol, sasl_mechanism, sasl_username,
    sasl_password, ssl_cafile, ssl_certfile, ssl_keyfile, ssl_password, ssl_check_hostname."""
    partitions: Annotated[int, Meta(ge=1, le=MAX_PARTITIONS)] = 4
    """Partitions of `events`; fixed once the topic exists."""
    replication: Replicas = 0
    """Replicas of each topic that is created; 0: the cluster's default."""
    min_insync_replicas: Replicas = 0
    """`min.insync.replicas` of each topic that is created; 0: the cluster's default."""
    retention_ms: Annotated[int, Meta(ge=-1, le=MAX_MS)] = -1
    """How long Kafka keeps events; -1: forever."""

    store: str = "sqlite"
    """Online store: `sqlite`, or the URL of a Redis: redis://, redis+sentinel:// or redis+cluster://."""

    host: str = "127.0.0.1"
    """Address that the API and the metrics listen on."""
    port: Port = 8080
    """Port of the API."""
    api_host: str | None = None
    """Host under which commands reach the API, if it is not `host`."""
    consumer_host: str | None = None
    """Host under which `status` and `doctor` reach the consumer, if it is not `host`."""
    archive_host: str | None = None
    """Host under which they reach the archive process, if it is not `host`."""
    trainer_host: str | None = None
    """Host under which they reach the trainer, if it is not `host`."""
    api_metrics_port: Port = 9100
    """Port of the API's health and metrics; it answers whatever the API's own port is doing."""
    consumer_id: str | None = None
    """A consumer process's own name in its groups; by default made of host, state folder and a number."""
    session_timeout_ms: Annotated[int, Meta(ge=6_000, le=30 * 60 * 1000)] = 10_000
    """A consumer that is gone for so long loses its partitions to others; a restart within that time keeps them."""
    consumer_metrics_port: Port = 9101
    """Prometheus port of the consumer."""
    archive_metrics_port: Port = 9102
    """Prometheus port of the archive process."""
    trainer_metrics_port: Port = 9103
    """Prometheus port of the trainer."""

    max_connections: Annotated[int, Meta(ge=16, le=1_000_000)] = 8_000
    """Connections that the API keeps open at a time; the longest idle ones end before there are more."""
    idle_timeout_ms: Timeout = 30_000
    """A connection that sends no whole request head for so long ends."""
    body_timeout_ms: Timeout = 30_000
    """A request whose whole body takes longer ends with its connection."""
    max_streams: Count = 4_000
    """Live streams of one API process."""
    max_streams_per_address: Count = 2_000
    """Live streams of one address; a proxy in front of the API is one address."""
    max_streams_per_user: Count = 20
    """Live streams of one user."""
    cors_origins: str = ""
    """Origins whose pages may call the API, separated by commas; `*`: any; empty: none."""

    batch_events: Count = 20_000
    """A micro-batch has at most so many events."""
    batch_ms: Annotated[int, Meta(ge=1, le=60_000)] = 20
    """A micro-batch holds what arrives in so many milliseconds."""
    cached_users: Count = 60_000
    """Users' rows that the consumer keeps in memory, 1 to 3 KB each."""
    popularity_every_ms: Annotated[int, Meta(ge=1, le=HOUR_MS)] = 2_000
    """How often popularity is written and offsets are committed."""

    max_future_ms: Milliseconds = 5 * 60 * 1000
    """How far in the future an event's time may lie."""
    late_ms: Milliseconds = 30 * 24 * 60 * 60 * 1000
    """How much older than the user's newest event a live event may be; imports have no limit."""
    history_length: Annotated[int, Meta(ge=1, le=1_000)] = 50
    """Events in a user's history; a release is trained on as many and reads as many."""
    after_timeout_ms: Annotated[int, Meta(ge=0, le=10 * 60 * 1000)] = 1_000
    """How long `after` waits."""

    train_every: str = "15m"
    """How often the trainer looks for new events."""
    recommender: str = "auto"
    """`auto`, `counts`, `blend`, or a recommender's name; several names, separated by commas, are tuned and blended."""
    preset: str | None = None
    """File written by `coldstream tune`; training starts its search from its values."""
    epochs: Annotated[int, Meta(ge=0, le=100_000)] = 0
    """Epochs of a training run; 0: as many as early stopping and `train_minutes` allow."""
    train_minutes: Annotated[float, Meta(ge=0.01, le=7 * 24 * 60)] = 4.0
    """Minutes of a training run; a domain's first tuned release gets at most 0.75."""

    gate_margin: Annotated[float, Meta(ge=-1, le=10)] = 0.0
    """Required gain in NDCG@10 over the current release, as a share of it; a negative value allows a loss."""
    gate_confidence: Probability = 0.95
    """Confidence of that gain."""
    gate_coverage: Share = 0.5
    """Minimum share of the items that the current release shows (a tenth against a release from counts)."""
    gate_latency_ms: Annotated[float, Meta(gt=0, le=60_000)] = 25.0
    """Maximum p95 of a look-up."""
    gate_dominant_item: PositiveShare = 0.95
    """Maximum share of lists with the same item."""
    gate_personalization: Share = 0.1
    """Minimum fit to histories over chance, as a share of the fit of real choices."""
    gate_refresh: str = "1d"
    """A current release whose data are this much older is replaced by any candidate that is not worse; 0s: never."""
    gate_tolerance: Share = 0.03
    """A candidate is not worse if it loses at most this share."""
    warm_start: bool = True
    """Encoders start from the current release's weights."""
    drift_every: str = "5m"
    """How often the trainer looks for drift; 0s: never."""
    drift_index: Annotated[float, Meta(gt=0, le=1_000)] = 0.25
    """Drift: a stability index above this."""
    drift_hit_drop: Share = 0.2
    """Drift: a hit rate that fell by this share."""
    drift_events: Count = 1_000
    """New events before drift is looked for."""
    rules: str | None = None
    """TOML file of rules, read again when it changes."""
    diversity: Share | dict[str, Share] = 0.0
    """Default diversity of look-ups; one value for all domains, or a table by domain. So are the next three."""
    per_category: ListPosition | dict[str, ListPosition] | None = None
    """Default maximum of items of one category in a list."""
    categories: ListPosition | dict[str, ListPosition] | None = None
    """Default minimum of categories in a list."""
    explore: ExplorationShare | dict[str, ExplorationShare] = 0.0
    """Default share of exploration in lists."""
    rollout: Literal["promote", "canary"] = "promote"
    """A candidate that passed the gate goes live fully (`promote`) or for a share of users first (`canary`)."""
    canary_share: PositiveShare = 0.1
    """Share of users of a canary that names none."""
    canary_promote: Literal["auto", "ask"] = "auto"
    """`ask`: a person promotes."""
    canary_alpha: Probability = 0.05
    """Probability of rolling back an equally good canary, over a whole trial."""
    canary_impressions: Count = 2_000
    """Lists shown before a promotion."""
    canary_margin: Share = 0.1
    """How much of the control's click-through rate a promoted canary may lack."""
    canary_errors: Share = 0.01
    """How far its error rate may exceed the control's."""
    canary_latency: Annotated[float, Meta(ge=1, le=1_000)] = 2.0
    """How many times the control's p95 it may take."""
    canary_hours: Annotated[float, Meta(ge=0, le=24 * MAX_DAYS)] = 72.0
    """A canary without a decision is rolled back after so many hours; 0: never."""
    click_window_ms: Annotated[int, Meta(ge=1, le=48 * HOUR_MS)] = 30 * 60 * 1000
    """How long after a list an event counts as its click; at most two days: Kafka keeps pending lists that long."""
    waiting_lists: Annotated[int, Meta(ge=1, le=10_000_000)] = 20_000
    """Pending lists in each partition."""

    log_format: Literal["text", "json"] = "text"
    """Lines for people, or one JSON object a line."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important lines that are logged."""

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.shown.items())})"

    @property
    def shown(self) -> dict[str, Any]:
        """Every setting, secrets masked."""
        return {name: mask_setting(name, getattr(self, name)) for name in self.__struct_fields__}

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets, for logs to mask."""
        return secrets_of(self.kafka_security, self.store)

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
        """The servers that every Kafka client connects to first: HOST:PORT, or several separated by commas."""
        return ",".join(map(str, parse_servers(self.kafka))) if self.kafka else f"127.0.0.1:{self.kafka_port}"

    def host_of(self, process: str) -> str:
        """The host under which a process is reached: `api`, `consumer`, `archive` or `trainer`."""
        return getattr(self, f"{process}_host") or ANY_ADDRESS.get(self.host, self.host)

    @property
    def api_url(self) -> str:
        """The address under which commands reach the API."""
        return f"http://{bracketed(self.host_of('api'))}:{self.port}"


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
        settings = msgspec.convert(_texts(chosen), Settings, strict=False)
    except msgspec.ValidationError as error:
        raise _range_error(chosen, error) from None
    for name, least in SHORTEST_S.items():
        _check_duration(name, getattr(settings, name), least)
    for domain in settings.domain_names:
        check_domain_name(domain)
    check_tables({name: getattr(settings, name) for name in DOMAIN_TABLES}, settings.domain_names)
    check_connections(settings.kafka, settings.kafka_security, settings.store)
    check_replication(settings.kafka, settings.replication, settings.min_insync_replicas)
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


def _texts(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The same, with `ssl_check_hostname = false` of a TOML file as text."""
    security = chosen.get("kafka_security")
    if not isinstance(security, dict):
        return dict(chosen)
    texts = {name: str(value).lower() if isinstance(value, bool) else value for name, value in security.items()}
    return {**chosen, "kafka_security": texts}


def _range_error(chosen: Mapping[str, Any], error: msgspec.ValidationError) -> SettingsError:
    place = re.search(r"`\$\.(\w+)", str(error))
    if place is None:
        return SettingsError(f"settings: {error}; docs/settings.md lists every setting")
    name = place[1]
    given = f"={mask_setting(name, chosen[name])}" if name != "kafka_security" else ""
    return SettingsError(f"settings: {name}{given} does not fit; give {describe_range(name)}")


def _check_duration(name: str, text: str, least: int) -> None:
    try:
        fits = least <= duration_seconds(text) <= MAX_DAYS * UNITS["d"]
    except SettingsError:
        fits = False
    if not fits:
        raise SettingsError(f"settings: {name}={text} does not fit; give {describe_range(name)}")


def _from_file(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from None
    check_known(str(path), values, Settings.__struct_fields__)
    return values


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    ours = {name[len(PREFIX) :].upper(): text for name, text in environment.items() if name.startswith(PREFIX)}
    check_known("settings", ours, [*(name.upper() for name in Settings.__struct_fields__), *OTHER_VARIABLES], PREFIX)
    return {name.lower(): _decoded(name, text) for name, text in ours.items() if name not in OTHER_VARIABLES}


def _decoded(name: str, text: str) -> Any:
    if not text.startswith("{"):
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise SettingsError(f"settings: {PREFIX}{name} is not JSON: {error}") from None
