"""What comes from outside neither controls a terminal nor forges a line of a log."""

import io
import logging
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from serving.commands import client
from serving.commands.live_view import LiveView
from serving.plain_text import one_line
from serving.process.logs import JsonFormatter, TextFormatter
from serving.settings import Settings

EVIL = "\x1b]0;PWNED\x07\x1b[2J\x1b[31mEVIL\nFAKE LINE\r\x9b2J\u202e\u2028[red]"
SHOWN = "\\x1b]0;PWNED\\x07\\x1b[2J\\x1b[31mEVIL\\nFAKE LINE\\r\\x9b2J\\u202e\\u2028[red]"


def formatted(formatter: logging.Formatter, error: Exception | None = None) -> str:
    info = (type(error), error, error.__traceback__) if error is not None else None
    return formatter.format(logging.LogRecord("coldstream", logging.WARNING, "", 0, "user %s", (EVIL,), info))  # type: ignore[arg-type]


def test_usual_text_stays_as_it_is() -> None:
    for text in ("", "HOT DOG BUNS, 11 OZ", "Müller \U0001f600 שלום · — 'x' \\n"):
        assert one_line(text) == text
    assert one_line(EVIL) == SHOWN


def test_a_record_is_one_line_of_a_text_log() -> None:
    assert formatted(TextFormatter()).split(" ", 1)[1] == f"WARNING user {SHOWN}"
    assert "\n" not in formatted(JsonFormatter())


def test_a_traceback_cannot_begin_a_line_of_its_own() -> None:
    lines = formatted(TextFormatter(), ValueError("bad\n23:59:59 ERROR   forged")).split("\n")
    assert lines[0].endswith(SHOWN)
    assert all(line.startswith("    ") for line in lines[1:])
    assert lines[-1] == "    23:59:59 ERROR   forged"


def test_recommendations_are_printed_safely(monkeypatch: pytest.MonkeyPatch) -> None:
    from serving.cli import app

    item = {"item_id": EVIL, "score": 1.0, "reason": "popular", "title": EVIL, "category": EVIL, "why": {"text": EVIL}}
    calls: list[tuple[str, dict[str, Any]]] = []

    def call_api(_: Settings, __: str, path: str, *, query: dict[str, Any]) -> Any:
        calls.append((path, query))
        return {"reason": "popular", "release": None, "items": [item]}

    monkeypatch.setattr(client, "call_api", call_api)
    for user in ("a?b", "a#b", "shop/42", EVIL):
        result = CliRunner().invoke(app, ["recommend", user])
        assert (result.exit_code, len(result.output.splitlines())) == (0, 2)
        assert not set(result.output) & set("\x1b\x07\r\x9b\u202e\u2028")
        path, query = calls.pop()
        assert (path, query["user_id"]) == ("/v1/users/recommendations", user)


def test_the_live_view_is_safe() -> None:
    view = LiveView(Settings())
    view.user = EVIL
    view.recommendations = {"reason": "popular", "items": [{"item_id": "i", "reason": "popular", "title": EVIL}]}
    view.lines.append("up")
    screen = io.StringIO()
    Console(file=screen, width=200, force_terminal=False).print(view.render())
    assert "\x1b" not in screen.getvalue()
    assert "[red]" in screen.getvalue()
    assert "\\x1b]0;PWNED" in screen.getvalue()
