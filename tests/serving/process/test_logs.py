"""Log lines: their two forms, and secrets that stay out of both."""

import json
import logging
from collections.abc import Iterator

import pytest

from serving.process import logs
from serving.settings import Settings, validate

SECURITY = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "PLAIN",
    "sasl_username": "ann",
    "sasl_password": 'hunter"2',
}


def settings(log_format: str) -> Settings:
    store = "redis://:se%40cret@h:1"
    return validate({"kafka": "a:1", "kafka_security": SECURITY, "store": store, "log_format": log_format})


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_secrets_are_masked_in_messages_and_tracebacks(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(settings(log_format))
    log = logging.getLogger("coldstream.test")

    log.warning("cannot log in with %s at redis://:se%%40cret@h:1", 'hunter"2')
    try:
        raise ValueError("AUTH se@cret")
    except ValueError:
        log.exception("login failed")

    written = capsys.readouterr().out
    assert "hunter" not in written
    assert "se@cret" not in written
    assert "se%40cret" not in written
    assert "cannot log in with ********" in written
    assert "redis://:********@h:1" in written
    assert "ValueError: AUTH ********" in written


def test_json_lines_have_time_level_logger_message_and_error(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(settings("json"))
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("coldstream.test").exception("login of %s failed", "ann")

    line = json.loads(capsys.readouterr().out)
    assert (line["level"], line["logger"], line["message"]) == ("error", "coldstream.test", "login of ann failed")
    assert line["error"].endswith("ValueError: no")
    assert line["time"].endswith("Z")
