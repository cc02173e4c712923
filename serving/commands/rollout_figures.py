"""Running canaries and shadows: their state from its file, their figures from the running API."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from serving.commands.release_cards import utc
from stream.errors import ColdstreamError

if TYPE_CHECKING:
    from models.releases.arms import Arm, Rollout
    from serving.settings import Settings


def figures_of(settings: "Settings", domain: str, state: "Rollout") -> dict[str, Any] | None:
    """The figures of the running canary and shadow; None if neither runs, or no API that runs the same ones answers.

    Only a running API has them. Another program may listen at its port.
    """
    if not state.releases:
        return None
    from serving.commands.client import call_api

    expected = {role: arm.salt for role, arm in _arms(state)}
    try:
        rollout = call_api(settings, "GET", "/v1/releases")[domain]["rollout"]
        answering = {role: (rollout[role] or {}).get("salt") for role in expected}
        return rollout["figures"] if answering == expected else None
    except (ColdstreamError, ValueError, LookupError, TypeError):
        return None


def trial_lines(state: "Rollout", figures: Mapping[str, Any] | None) -> Iterator[str]:
    """Running canaries and shadows with their figures, then ended ones, newest first."""
    for role, arm in _arms(state):
        note = f"; may be promoted: {state.ready}" if role == "canary" and state.ready else ""
        yield f"{role}: {arm.release}, share {arm.share:g}, since {utc(arm.began_at)}{note}"
        if figures is None:
            yield "  figures: no running API has this trial"
        for name in ("canary", "serving") if role == "canary" else ("shadow",):
            if figures is not None and name in figures:
                yield f"  {name:<8} {', '.join(f'{key} {value:g}' for key, value in figures[name].items())}"
    for end in reversed(state.ended):
        yield f"{utc(end.ended_at)} {end.role} {end.release} {end.action}: {end.reason} {end.detail}".rstrip()


def _arms(state: "Rollout") -> "list[tuple[str, Arm]]":
    return [(role, arm) for role, arm in (("canary", state.canary), ("shadow", state.shadow)) if arm is not None]
