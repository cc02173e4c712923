"""One description of a cluster, turned into the arguments of each Kafka client.

`security` holds the settings that a real cluster asks for, under the names that both clients share:
security_protocol, sasl_mechanism, sasl_plain_username, sasl_plain_password, ssl_cafile, ssl_certfile, ssl_keyfile,
ssl_password, ssl_check_hostname.
"""

import ssl
from collections.abc import Mapping
from typing import Any, Final

from stream.errors import StreamError

PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
TLS_FILES: Final = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_password")
KNOWN: Final = {
    "security_protocol",
    "sasl_mechanism",
    "sasl_plain_username",
    "sasl_plain_password",
    "ssl_check_hostname",
    *TLS_FILES,
}


def kafka_python_config(bootstrap: str, security: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Keyword arguments of kafka-python's clients.

    Raises:
        StreamError: a security setting that is not known, or has a value that is not.
    """
    chosen: dict[str, Any] = dict(_checked(security))
    if "ssl_check_hostname" in chosen:
        chosen["ssl_check_hostname"] = _truth(chosen["ssl_check_hostname"])
    return {"bootstrap_servers": bootstrap, **chosen}


def aiokafka_config(bootstrap: str, security: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Keyword arguments of aiokafka's clients; the TLS files become an `ssl.SSLContext`.

    Raises:
        StreamError: a security setting that is not known or has such a value, or a TLS file that cannot be read.
    """
    chosen = _checked(security)
    config: dict[str, Any] = {"bootstrap_servers": bootstrap}
    config |= {name: value for name, value in chosen.items() if name.startswith(("security_", "sasl_"))}
    if chosen.get("security_protocol") in ("SSL", "SASL_SSL"):
        config["ssl_context"] = _context(chosen)
    return config


def _checked(security: Mapping[str, str] | None) -> dict[str, str]:
    chosen = dict(security or {})
    unknown = sorted(set(chosen) - KNOWN)
    if unknown:
        raise StreamError(f"kafka_security: unknown {', '.join(unknown)}; known are {', '.join(sorted(KNOWN))}")
    protocol = chosen.get("security_protocol", "PLAINTEXT")
    if protocol not in PROTOCOLS:
        raise StreamError(f"kafka_security: security_protocol={protocol!r} is not one of {', '.join(PROTOCOLS)}")
    if protocol.startswith("SASL_") and "sasl_mechanism" not in chosen:
        raise StreamError(f"kafka_security: {protocol} needs sasl_mechanism, for example SCRAM-SHA-512")
    idle = [name for name in chosen if not _is_used(name, protocol)]
    if idle:  # a password that no one asks for, or a certificate that no one checks, is not what was meant
        raise StreamError(f"kafka_security: {', '.join(idle)} has no effect with security_protocol={protocol}")
    return chosen


def _is_used(name: str, protocol: str) -> bool:
    if name.startswith("sasl_"):
        return protocol.startswith("SASL_")
    return not name.startswith("ssl_") or protocol.endswith("SSL")


def _context(security: Mapping[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=security.get("ssl_cafile"))
        if "ssl_certfile" in security:
            context.load_cert_chain(security["ssl_certfile"], security.get("ssl_keyfile"), security.get("ssl_password"))
    except OSError as error:
        raise StreamError(f"kafka_security: a TLS file cannot be used: {error}; check the ssl_* paths") from error
    context.check_hostname = _truth(security.get("ssl_check_hostname", "true"))
    return context


def _truth(text: object) -> bool:
    return str(text).lower() not in {"false", "0", "no"}
