"""`coldstream rules`: look at a file of rules without a system, and talk to a running one."""

from pathlib import Path
from typing import Any

import httpx
import msgspec

from serving.rules.rule import Rule, read_any
from serving.settings import Settings
from stream.errors import ColdstreamError


def check(path: Path, now_ms: int) -> list[dict[str, Any]]:
    """What each rule of a file says. Raises RuleError, naming the line and the cure."""
    return [{**line_of(one), "holds now": one.valid_at(now_ms)} for one in read_any(path)]


def put(settings: Settings, path: Path) -> list[dict[str, Any]]:
    """Send each rule of a file to the running API. All are checked first. Raises RuleError, ColdstreamError."""
    told = [ask(settings, "PUT", f"/v1/rules/{one.id}", msgspec.json.encode(one)) for one in read_any(path)]
    return [dict(one) for one in told]


def ask(settings: Settings, verb: str, path: str, body: bytes | None = None) -> Any:
    """What the running API answers. Raises ColdstreamError where it is away or refuses."""
    url = f"http://{settings.host}:{settings.port}{path}"
    try:
        answer = httpx.request(verb, url, content=body, timeout=10)
    except httpx.TransportError as error:
        raise ColdstreamError(f"no API at {url} ({error}); start it with coldstream up, or give --port") from error
    if answer.status_code >= 400:
        raise ColdstreamError(f"{answer.status_code}: {answer.json().get('detail', answer.text)}")
    return answer.json()


def line_of(rule: Rule) -> dict[str, Any]:
    """A rule in a line: what it does, and to what."""
    amount = f" x{rule.factor:g}" if rule.factor is not None else f" {rule.position}" if rule.position else ""
    named = f"{len(rule.items)} items" if len(rule.items) > 3 else ", ".join(rule.items)
    where = msgspec.json.encode(rule.where).decode() if rule.where else ""
    whom = [f"segment {rule.segment}" if rule.segment else "", f"{rule.share:.0%} of users" if rule.share < 1 else ""]
    about = " and ".join(filter(None, [named, where]))
    return {"id": rule.id, "does": rule.action + amount, "about": about, "for": ", ".join(filter(None, whom)) or "all"}
