"""What is on trial, for people and for scripts: the state from its file, the figures from the running API."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from serving.commands.release_cards import moment
from stream.errors import ColdstreamError

if TYPE_CHECKING:
    from models.releases.arms import Arm, Rollout
    from serving.settings import Settings


def figures_of(settings: "Settings", domain: str, state: "Rollout") -> dict[str, Any] | None:
    """How the arms of these very trials do; None where nothing is on trial or no API that tries them answers.

    Only a running API knows them: no file holds them. Something else may listen at its port.
    """
    if not state.releases:
        return None
    from serving.commands.rules import ask

    ours = {role: arm.salt for role, arm in _arms(state)}
    try:
        told = ask(settings, "GET", "/v1/releases")[domain]["rollout"]
        theirs = {role: (told[role] or {}).get("salt") for role in ours}
        return told["figures"] if theirs == ours else None
    except (ColdstreamError, ValueError, LookupError, TypeError):
        return None


def trial_lines(state: "Rollout", figures: Mapping[str, Any] | None) -> Iterator[str]:
    """What is on trial and how it does, then how trials ended, newest first."""
    for role, arm in _arms(state):
        note = f"; may be promoted: {state.ready}" if role == "canary" and state.ready else ""
        yield f"{role}: {arm.release}, share {arm.share:g}, since {moment(arm.began_at)}{note}"
        if figures is None:
            yield "  figures: no API answers that has it on trial"
        for name in ("canary", "serving") if role == "canary" else ("shadow",):
            if figures is not None and name in figures:
                yield f"  {name:<8} {', '.join(f'{key} {value:g}' for key, value in figures[name].items())}"
    for end in reversed(state.ended):
        yield f"{moment(end.ended_at)} {end.role} {end.release} {end.action}: {end.reason} {end.detail}".rstrip()


def _arms(state: "Rollout") -> "list[tuple[str, Arm]]":
    return [(role, arm) for role, arm in (("canary", state.canary), ("shadow", state.shadow)) if arm is not None]
