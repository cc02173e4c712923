"""Secrets in settings: which values are, and how they are shown."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote

from stream.security import PUBLIC

MASK: Final = "********"
SHORTEST_IN_TEXT: Final = 4
"""Shorter secrets are not replaced in log lines: they would be found inside ordinary words."""
_LOGIN: Final = re.compile(r"(?P<before>://[^:/@\s]*:)(?P<password>\S*)(?P<after>@)")


def mask_url(text: str) -> str:
    """A text with the password of every URL in it masked: `redis://user:********@host`."""
    return _LOGIN.sub(rf"\g<before>{MASK}\g<after>", text)


def mask_setting(name: str, value: Any) -> Any:
    """The value of a setting as it may be shown."""
    if name == "kafka_security" and isinstance(value, Mapping):
        return {key: entry if key in PUBLIC else MASK for key, entry in value.items()}
    if name == "kafka_security":
        return MASK
    if isinstance(value, str) or name == "store":
        return mask_url(str(value))
    return value


def secrets_of(kafka_security: Mapping[str, str], store: str) -> tuple[str, ...]:
    """Every secret of the settings, as written and as decoded from a URL; the longest first."""
    values = {value for name, value in kafka_security.items() if name not in PUBLIC and name != "sasl_username"}
    values |= {form for match in _LOGIN.finditer(store) for form in (match["password"], unquote(match["password"]))}
    return tuple(sorted((value for value in values if len(value) >= SHORTEST_IN_TEXT), key=len, reverse=True))


def mask_text(text: str, secrets: Iterable[str]) -> str:
    """A line of a log, or an error, with every secret masked."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return mask_url(text) if "://" in text else text
