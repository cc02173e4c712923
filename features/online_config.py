"""The setting `store` turned into Feast's configuration of an online store: SQLite, or Redis in its three forms."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from features.errors import FeatureError
from stream.addresses import parse_servers
from stream.errors import StreamError

SQLITE: Final = "sqlite"
REDIS_PORT: Final = 6379
SENTINEL_PORT: Final = 26379
KINDS: Final = {"redis": "redis", "redis+sentinel": "redis_sentinel", "redis+cluster": "redis_cluster"}
"""Feast's `redis_type` by the scheme without TLS; `rediss` instead of `redis` means TLS."""
TLS_OPTIONS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
FORMS: Final = (
    "give sqlite or redis://[USER:PASSWORD@]HOST:PORT[/DB] (redis+sentinel://HOST:PORT,HOST:PORT/MASTER[/DB], "
    "redis+cluster://HOST:PORT,HOST:PORT; rediss instead of redis for TLS)"
)
_URL: Final = re.compile(
    r"(?P<scheme>[\w+]+)://(?:(?P<login>.*)@)?(?P<servers>[^/?@]+)(?:/(?P<path>[^?]*))?(?:\?(?P<query>.*))?"
)


def online_config(store: str) -> dict[str, Any]:
    """Feast's `online_store` section for `sqlite` or the URL of a Redis. The values may hold a password.

    Raises:
        FeatureError: `store` is neither, or asks for what Feast's Redis store cannot do; it says what.
    """
    if store == SQLITE:
        return {"type": "sqlite", "path": "online.db"}
    match = _URL.fullmatch(store)
    plain = match["scheme"].replace("rediss", "redis") if match else ""
    if match is None or plain not in KINDS:
        raise FeatureError(f"store: not a store that is known; {FORMS}")
    kind = KINDS[plain]
    tls = match["scheme"].startswith("rediss")
    config: dict[str, Any] = {"type": "redis", "redis_type": kind, "skip_dedup": True}
    names = [part for part in (match["path"] or "").split("/") if part]
    if kind == "redis_sentinel":
        if not names:
            raise FeatureError("store: Sentinel needs the name of its master: redis+sentinel://HOST:PORT/MASTER[/DB]")
        config["sentinel_master"] = unquote(names.pop(0))
    if kind == "redis_cluster" and names:
        raise FeatureError("store: a Redis cluster has no databases; remove the part behind the last /")
    options: dict[str, Any] = {"db": _database(names)} if kind != "redis_cluster" else {}
    options |= {"socket_timeout": 5, "socket_connect_timeout": 2, **_login(match["login"])}
    options |= ({"ssl": True} if tls else {}) | _tls_options(match["query"], tls)
    servers = _servers(match["servers"], SENTINEL_PORT if kind == "redis_sentinel" else REDIS_PORT)
    if kind == "redis" and len(servers) > 1:
        raise FeatureError(f"store: redis:// names one server, not {len(servers)}; {FORMS}")
    return {**config, "connection_string": ",".join([*servers, *_encoded(options)])}


def has_secret(config: Mapping[str, Any]) -> bool:
    """Whether a section of `online_config` holds a password."""
    return "password=" in config.get("connection_string", "")


def _login(text: str | None) -> dict[str, str]:
    """`user:password`, `:password`, percent-encoded where needed; a password without a user is fine."""
    if text is None:
        return {}
    user, colon, password = text.partition(":")
    if not colon or not password:
        raise FeatureError("store: a user needs a password: redis://USER:PASSWORD@HOST:PORT, or redis://:PASSWORD@...")
    return {"password": unquote(password)} | ({"username": unquote(user)} if user else {})


def _tls_options(query: str | None, tls: bool) -> dict[str, Any]:
    options: dict[str, Any] = dict(parse_qsl(query or "", keep_blank_values=True))
    for name in options:
        if name not in TLS_OPTIONS:
            raise FeatureError(f"store: the option {name} does not exist; there are {', '.join(TLS_OPTIONS)}")
    if options and not tls:
        raise FeatureError(f"store: {', '.join(options)} has no effect without TLS; write rediss instead of redis")
    if "ssl_check_hostname" in options:
        options["ssl_check_hostname"] = options["ssl_check_hostname"].lower() in {"true", "1", "yes"}
    return options


def _database(names: list[str]) -> int:
    if len(names) > 1 or (names and not (names[0].isascii() and names[0].isdigit())):
        raise FeatureError("store: the database behind the last / is a number, such as redis://HOST:PORT/0")
    return int(names[0]) if names else 0


def _servers(text: str, port: int) -> list[str]:
    with_ports = [part if re.search(r":\d+$", part) else f"{part}:{port}" for part in text.split(",")]
    try:
        servers = parse_servers(",".join(with_ports))
    except StreamError as error:
        raise FeatureError(f"store: {error}") from None
    for server in servers:
        if ":" in server.host:
            raise FeatureError(f"store: Feast's Redis store takes no IPv6 address; give a host name for {server.host}")
    return [str(server) for server in servers]


def _encoded(options: Mapping[str, Any]) -> list[str]:
    """`name=value`, each value as JSON without a comma: Feast splits at commas and decodes JSON."""
    return [f"{name}={json.dumps(value).replace(',', chr(92) + 'u002c')}" for name, value in options.items()]
