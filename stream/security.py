"""The security settings of a Kafka cluster: their names, and what is checked before a client uses them."""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from stream.errors import StreamError

PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
TLS_FILES: Final = ("ssl_cafile", "ssl_certfile", "ssl_keyfile")
LOGIN: Final = ("sasl_username", "sasl_password")
TRUTHS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
NAMES: Final = (
    *("security_protocol", "sasl_mechanism", *LOGIN),
    *(*TLS_FILES, "ssl_password", "ssl_check_hostname"),
)
PUBLIC: Final = frozenset({"security_protocol", "sasl_mechanism", *TLS_FILES, "ssl_check_hostname"})
"""Names whose values may be shown; those of all others are secrets."""


def check_security(security: Mapping[str, str] | None) -> dict[str, str]:
    """The settings, if a client can use them.

    Raises:
        StreamError: a name or a value that does not exist, a missing or an unused one, a file that cannot be read.
    """
    chosen = dict(security or {})
    for name in chosen:
        if name not in NAMES:
            near = get_close_matches(name, NAMES, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise StreamError(f"kafka_security: {name} does not exist; {hint}there are {', '.join(NAMES)}")
    protocol = chosen.get("security_protocol", "PLAINTEXT")
    if protocol not in PROTOCOLS:
        raise StreamError(f"kafka_security: security_protocol={protocol!r} is not one of {', '.join(PROTOCOLS)}")
    idle = [name for name in chosen if not _is_used(name, protocol)]
    if idle:  # a password that no one asks for, or a certificate that no one checks, is not what was meant
        raise StreamError(
            f"kafka_security: {', '.join(idle)} has no effect with security_protocol={protocol}; "
            f"give security_protocol={_protocol_for(idle, protocol)}, or remove it"
        )
    if protocol.startswith("SASL_"):
        _check_login(chosen, protocol)
    if protocol.endswith("SSL"):
        _check_tls(chosen)
    return chosen


def is_true(text: object) -> bool:
    """The truth value of a checked setting."""
    return TRUTHS[str(text).lower()]


def _is_used(name: str, protocol: str) -> bool:
    if name.startswith("sasl_"):
        return protocol.startswith("SASL_")
    return not name.startswith("ssl_") or protocol.endswith("SSL")


def _protocol_for(idle: list[str], protocol: str) -> str:
    """The protocol that uses the idle settings too."""
    login = protocol.startswith("SASL_") or any(name.startswith("sasl_") for name in idle)
    tls = protocol.endswith("SSL") or any(name.startswith("ssl_") for name in idle)
    return ("SASL_SSL" if login else "SSL") if tls else "SASL_PLAINTEXT"


def _check_login(chosen: Mapping[str, str], protocol: str) -> None:
    mechanism = chosen.get("sasl_mechanism")
    if mechanism is None:
        raise StreamError(f"kafka_security: {protocol} needs sasl_mechanism, one of {', '.join(MECHANISMS)}")
    if mechanism not in MECHANISMS:
        raise StreamError(f"kafka_security: sasl_mechanism={mechanism!r} is not one of {', '.join(MECHANISMS)}")
    missing = [name for name in LOGIN if not chosen.get(name)]
    if missing:
        raise StreamError(f"kafka_security: {mechanism} needs {' and '.join(missing)}")


def _check_tls(chosen: Mapping[str, str]) -> None:
    for name in TLS_FILES:
        if name in chosen and not (Path(chosen[name]).is_file() and os.access(chosen[name], os.R_OK)):
            raise StreamError(f"kafka_security: {name}={chosen[name]}: no such file that can be read; check the path")
    if "ssl_keyfile" in chosen and "ssl_certfile" not in chosen:
        raise StreamError("kafka_security: ssl_keyfile needs ssl_certfile, the certificate of that key")
    checked = str(chosen.get("ssl_check_hostname", "true"))
    if checked.lower() not in TRUTHS:
        raise StreamError(f"kafka_security: ssl_check_hostname={checked!r} is neither true nor false")
