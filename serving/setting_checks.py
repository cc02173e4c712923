"""Checks of settings beyond the type of each value. Each raises SettingsError with the cure."""

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from features.online_config import online_config
from serving.errors import SettingsError
from stream.addresses import parse_servers
from stream.client import tls_context
from stream.errors import ColdstreamError
from stream.events import DOMAIN_PATTERN
from stream.security import check_security


def check_known(where: str, names: Iterable[str], known: Iterable[str], prefix: str = "") -> None:
    """Every name is a known one; an unknown name is refused with the nearest."""
    known = list(known)
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        near = get_close_matches(unknown, known, 1)
        hint = f"did you mean {prefix}{near[0]}? " if near else ""
        raise SettingsError(f"{where}: {prefix}{unknown} does not exist; {hint}docs/settings.md lists every setting")


def check_connections(kafka: str | None, kafka_security: Mapping[str, str], store: str) -> None:
    """Kafka's servers, its security settings and the online store are ones that clients can use."""
    if kafka is not None:
        _call("settings: kafka: ", lambda: parse_servers(kafka))
    if kafka_security:
        _call("settings: ", lambda: _check_usable(kafka_security))
    if kafka_security and kafka is None:
        raise SettingsError(
            "settings: kafka_security has no effect on the embedded broker; give kafka=HOST:PORT, or remove it"
        )
    _call("settings: ", lambda: online_config(store))


def check_replication(kafka: str | None, replication: int, min_insync_replicas: int) -> None:
    """Topics can have so many replicas."""
    if kafka is None and max(replication, min_insync_replicas) > 1:
        name, value = ("replication", replication) if replication > 1 else ("min_insync_replicas", min_insync_replicas)
        raise SettingsError(
            f"settings: {name}={value} needs a cluster; give kafka=HOST:PORT: the embedded broker is one node"
        )
    if replication and min_insync_replicas > replication:
        raise SettingsError(
            f"settings: min_insync_replicas={min_insync_replicas} exceeds replication={replication}: "
            "no event could be written; give at most the replication, usually one less"
        )


def check_tables(tables: Mapping[str, Any], domain_names: Iterable[str]) -> None:
    """Settings that are tables by domain name only domains that exist."""
    names = tuple(domain_names)
    for setting, given in tables.items():
        for domain in given if isinstance(given, dict) else ():
            if domain not in names:
                raise SettingsError(f"settings: {setting}: domain {domain!r} is not one of {', '.join(names)}")


def _check_usable(security: Mapping[str, str]) -> None:
    if check_security(security).get("security_protocol", "").endswith("SSL"):
        tls_context(security)  # reads the files


def _call(prefix: str, check: Callable[[], Any]) -> None:
    try:
        check()
    except ColdstreamError as error:
        raise SettingsError(f"{prefix}{error}") from None


def check_domain_name(domain: str) -> None:
    """Raise SettingsError where no event could name this domain."""
    if not re.fullmatch(DOMAIN_PATTERN, domain):
        raise SettingsError(
            f"domain {domain!r} does not fit; a name has a to z, 0 to 9 and _, begins with a letter and has at most 32"
        )
