"""`coldstream releases`: list, show, compare, promote, go back, try out. The folder decides; the topic only tells."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from serving.commands.output import AsJson, DomainOption
from serving.commands.release_cards import card_lines, difference_lines, differences
from serving.commands.rollout_figures import figures_of, trial_lines
from stream.errors import BrokerError, ColdstreamError

if TYPE_CHECKING:
    from pathlib import Path

    from serving.settings import Settings

app = typer.Typer(no_args_is_help=True, help="What training made.")

SHOWN_ITEMS: Final = 10

Share = Annotated[float | None, typer.Option("--share", help="Above 0, at most 1: .1 is a tenth.")]
OrOff = Annotated[str, typer.Argument(help="A release's id, or `off`.")]


@app.command("list")
def list_releases(ctx: typer.Context, domain: DomainOption = None, as_json: AsJson = False) -> None:
    """Every release of a domain, newest first, what is on trial and how it does, and how trials ended."""
    import msgspec

    from models.releases import arms, release_store

    root, name = _where(ctx, domain)
    found, state = release_store.list_releases(root, name), arms.read(root, name)
    figures = figures_of(ctx.obj, name, state)
    if as_json:
        told = msgspec.to_builtins({"releases": found, "rollout": state}) | {"figures": figures}
        typer.echo(json.dumps({"domain": name, "serving": release_store.current_id(root, name), **told}))
        return
    for one in found:
        kept = [pair for pair in one.metrics.items() if pair[0].startswith(("ndcg", "hr"))]
        measured = ", ".join(f"{metric} {value:.4f}" for metric, value in kept)
        said = f"{one.reason}: {one.detail}" if one.detail else one.reason
        typer.echo(f"{one.id} {one.state:<8} {one.recommender:<9} {said or measured}")
    for line in trial_lines(state, figures):
        typer.echo(line)


@app.command()
def show(ctx: typer.Context, release: str, domain: DomainOption = None, as_json: AsJson = False) -> None:
    """One release's card: cut, data, parameters, metrics, files; checked on the way."""
    import msgspec

    from models.errors import ReleaseError
    from models.releases import release_store
    from models.releases.manifest import read_manifest

    root, name = _where(ctx, domain)
    told = msgspec.to_builtins(read_manifest(root / name / release))
    try:
        release_store.load(root / name / release)
        told["whole"] = True
    except ReleaseError as error:
        told |= {"whole": False, "reason": error.reason, "detail": error.detail}
    listed = next((one for one in release_store.list_releases(root, name) if one.id == release), None)
    told["state"] = listed.state if listed is not None else None
    if listed is not None and listed.reason:
        told["refused"] = {"reason": listed.reason, "detail": listed.detail}
    _tell(told, card_lines(told), as_json)


@app.command()
def diff(ctx: typer.Context, one: str, other: str, domain: DomainOption = None, as_json: AsJson = False) -> None:
    """What changed from one release to another: parameters, metrics with intervals, data, parent, items."""

    from models.releases.manifest import read_manifest

    root, name = _where(ctx, domain)
    first, second = (read_manifest(root / name / release) for release in (one, other))
    told = differences(first, second) | {"items": _items(root / name, one, other)}
    _tell(told, difference_lines(told, first, second), as_json)


@app.command()
def promote(ctx: typer.Context, release: str, domain: DomainOption = None, as_json: AsJson = False) -> None:
    """Load and check a release, then let it serve everyone."""
    from models.releases import rollout

    root, name = _where(ctx, domain)
    rollout.promote(root, name, release)
    _done(ctx, name, "promote", {"serving": release}, f"{name}: {release} serves", as_json)


@app.command()
def rollback(ctx: typer.Context, domain: DomainOption = None, as_json: AsJson = False) -> None:
    """Serve the release before the serving one again."""
    from models.releases import rollout

    root, name = _where(ctx, domain)
    release = rollout.rollback(root, name)
    _done(ctx, name, "rollback", {"serving": release}, f"{name}: {release} serves again", as_json)


@app.command()
def canary(
    ctx: typer.Context, release: OrOff, share: Share = None, domain: DomainOption = None, as_json: AsJson = False
) -> None:
    """Answer a share of the users by a release, and judge it by their clicks; `off` ends that."""
    _try(ctx, "canary", release, share, domain, as_json)


@app.command()
def shadow(
    ctx: typer.Context, release: OrOff, share: Share = None, domain: DomainOption = None, as_json: AsJson = False
) -> None:
    """Answer a share of the look-ups by a release in the background, and compare; `off` ends that."""
    _try(ctx, "shadow", release, share, domain, as_json)


def announce(settings: "Settings", domain: str, action: str) -> None:
    """Say on the topic `releases` what serves and what is tried out now; a warning where Kafka is away."""
    from serving.messages import publish, release_announcement

    try:
        publish(settings, release_announcement(settings.state_path / "releases", domain, action))
    except BrokerError as error:
        typer.echo(f"not announced ({error}); the API finds it in its folder", err=True)


def _try(ctx: typer.Context, role: Any, release: str, share: float | None, domain: str | None, as_json: bool) -> None:
    import msgspec

    from models.releases import rollout

    root, name = _where(ctx, domain)
    if release == "off":
        ended = rollout.end_trial(root, name, role)
        if ended is None:
            raise ColdstreamError(f"{name}: there is no {role} to end")
        _done(ctx, name, f"{role}-off", {role: None}, f"{name}: {role} {ended.release} is off", as_json)
        return
    settings: Settings = ctx.obj
    begin = rollout.begin_canary if role == "canary" else rollout.begin_shadow
    arm = begin(root, name, release, share if share is not None else settings.canary_share)
    said = f"{name}: {role} {release} answers {arm.share:.0%} of the {'users' if role == 'canary' else 'look-ups'}"
    _done(ctx, name, role, {role: msgspec.to_builtins(arm)}, said, as_json)


def _where(ctx: typer.Context, domain: str | None) -> "tuple[Path, str]":
    settings: Settings = ctx.obj
    return settings.state_path / "releases", domain or settings.domain


def _items(home: "Path", one: str, other: str) -> dict[str, Any]:
    import msgspec

    from models.errors import ReleaseError

    try:
        first, second = (
            msgspec.json.decode((home / release / "items.json").read_bytes(), type=list[str])
            for release in (one, other)
        )
    except (OSError, msgspec.DecodeError) as error:
        raise ReleaseError("unreadable", f"{home}: items cannot be compared: {error}") from error
    before, after = set(first), set(second)
    gained, lost = [item for item in second if item not in before], [item for item in first if item not in after]
    return {
        "kept": len(before & after),
        "gained": len(gained),
        "lost": len(lost),
        "most popular gained": gained[:SHOWN_ITEMS],
        "most popular lost": lost[:SHOWN_ITEMS],
    }


def _done(ctx: typer.Context, domain: str, action: str, told: dict[str, Any], said: str, as_json: bool) -> None:
    announce(ctx.obj, domain, action)
    typer.echo(json.dumps({"domain": domain, "action": action, **told}) if as_json else said)


def _tell(told: dict[str, Any], lines: Iterable[str], as_json: bool) -> None:
    for line in [json.dumps(told, default=str)] if as_json else lines:
        typer.echo(line)
