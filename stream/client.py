"""One description of a cluster, turned into the arguments of each Kafka client.

`bootstrap` is HOST:PORT, or several separated by commas. `security` holds what a real cluster asks for, under the names
of `stream.security`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from stream.errors import StreamError
from stream.security import check_security, is_true

if TYPE_CHECKING:
    import ssl

CLIENT_NAMES: Final = {"sasl_username": "sasl_plain_username", "sasl_password": "sasl_plain_password"}
"""Where both clients use another name than our settings."""
READ_COMMITTED: Final = {"isolation_level": "read_committed"}
"""For every reader of what others write: both clients then leave out aborted transactions."""


def kafka_python_config(bootstrap: str, security: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Keyword arguments of kafka-python's clients.

    Raises:
        StreamError: a security setting that is not known, or has a value that is not.
    """
    chosen = check_security(security)
    config: dict[str, Any] = {CLIENT_NAMES.get(name, name): value for name, value in chosen.items()}
    if "ssl_check_hostname" in config:
        config["ssl_check_hostname"] = is_true(config["ssl_check_hostname"])
    return {"bootstrap_servers": bootstrap, **config}


def aiokafka_config(bootstrap: str, security: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Keyword arguments of aiokafka's clients; the TLS files become an `ssl.SSLContext`.

    Raises:
        StreamError: a security setting that is not known or has such a value, or a TLS file that cannot be read.
    """
    chosen = check_security(security)
    config: dict[str, Any] = {"bootstrap_servers": bootstrap}
    for name, value in chosen.items():
        if name.startswith(("security_", "sasl_")):
            config[CLIENT_NAMES.get(name, name)] = value
    if chosen.get("security_protocol") in ("SSL", "SASL_SSL"):
        config["ssl_context"] = tls_context(chosen)
    return config


def tls_context(security: Mapping[str, str]) -> "ssl.SSLContext":
    """The TLS context of checked security settings.

    Raises:
        StreamError: a file holds no certificate or key, or `ssl_password` does not open the key.
    """
    import ssl

    try:
        context = ssl.create_default_context(cafile=security.get("ssl_cafile"))
        if "ssl_certfile" in security:
            context.load_cert_chain(security["ssl_certfile"], security.get("ssl_keyfile"), security.get("ssl_password"))
    except OSError as error:
        files = ", ".join(name for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile") if name in security)
        raise StreamError(
            f"kafka_security: a TLS file cannot be used: {error}; check the ssl_* paths and ssl_password ({files})"
        ) from error
    context.check_hostname = is_true(security.get("ssl_check_hostname", "true"))
    return context
