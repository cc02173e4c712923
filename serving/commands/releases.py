"""`coldstream releases`: list, compare, promote, roll back, try out.

The release folder is the source of truth; the topic `releases` only announces its changes.
"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from serving.commands.options import AsJson, DomainOption, check_domain
from serving.commands.output import print_lines
from serving.commands.release_cards import card_lines, difference_lines, differences, item_differences, list_lines
from serving.commands.rollout_figures import figures_of, trial_lines
from stream.errors import BrokerError, ColdstreamError

if TYPE_CHECKING:
    from pathlib import Path

    from serving.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Manage trained releases.")


Share = Annotated[
    float | None, typer.Option("--share", help="Above 0, at most 1. Default: the setting `canary_share`.")
]
ReleaseOrOff = Annotated[str, typer.Argument(help="A release id, or `off`.")]


@app.command("list")
def list_releases(ctx: typer.Context, domain: DomainOption = None, as_json: AsJson = False) -> None:
    """List the releases of a domain, newest first, with running and ended canaries and shadows."""
    import msgspec

    from models.releases import arms, release_store

    root, name = _releases_of(ctx, domain)
    releases, state = release_store.list_releases(root, name), arms.read_or_none(root, name)
    problems = [error.detail for error in release_store.problems(root, name)]
    figures = figures_of(ctx.obj, name, state)
    value = {
        "domain": name,
        "serving": release_store.serving_id(root, name),
        "problems": problems,
        **msgspec.to_builtins({"releases": releases, "rollout": state}),
        "figures": figures,
    }
    print_lines(value, [*problems, *list_lines(releases), *trial_lines(state, figures)], as_json)


@app.command()
def show(ctx: typer.Context, release: str, domain: DomainOption = None, as_json: AsJson = False) -> None:
    """Show a release: data, hyperparameters, metrics and files. Its files are verified."""
    import msgspec

    from models.errors import ReleaseError
    from models.releases import release_store
    from models.releases.manifest import read_manifest

    root, name = _releases_of(ctx, domain)
    folder = release_store.release_folder(root, name, release)
    card = msgspec.to_builtins(read_manifest(folder))
    try:
        release_store.load(folder)
        card["whole"] = True
    except ReleaseError as error:
        card |= {"whole": False, "reason": error.reason, "detail": error.detail}
    entry = next((entry for entry in release_store.list_releases(root, name) if entry.id == release), None)
    card["state"] = entry.state if entry is not None else None
    if entry is not None and entry.reason:
        card["refused"] = {"reason": entry.reason, "detail": entry.detail}
    print_lines(card, card_lines(card), as_json)


@app.command()
def diff(ctx: typer.Context, first: str, second: str, domain: DomainOption = None, as_json: AsJson = False) -> None:
    """Compare two releases: hyperparameters, metrics with intervals, data, parent, items."""
    from models.releases.manifest import read_manifest
    from models.releases.release_store import release_folder

    root, name = _releases_of(ctx, domain)
    folders = [release_folder(root, name, release) for release in (first, second)]
    before, after = (read_manifest(folder) for folder in folders)
    changes = differences(before, after) | {"items": item_differences(*folders)}
    print_lines(changes, difference_lines(changes, before, after), as_json)


@app.command()
def promote(ctx: typer.Context, release: str, domain: DomainOption = None, as_json: AsJson = False) -> None:
    """Verify a release and make it live for all users."""
    from models.releases import rollout

    root, name = _releases_of(ctx, domain)
    rollout.promote(root, name, release)
    _finish(ctx, name, "promote", {"serving": release}, f"{name}: {release} is live", as_json)


@app.command()
def rollback(ctx: typer.Context, domain: DomainOption = None, as_json: AsJson = False) -> None:
    """Make the previous release live again."""
    from models.releases import rollout

    root, name = _releases_of(ctx, domain)
    release = rollout.rollback(root, name)
    _finish(ctx, name, "rollback", {"serving": release}, f"{name}: {release} is live again", as_json)


@app.command()
def canary(
    ctx: typer.Context, release: ReleaseOrOff, share: Share = None, domain: DomainOption = None, as_json: AsJson = False
) -> None:
    """Serve a release to a share of the users and compare their clicks; `off` ends the canary."""
    _try_out(ctx, "canary", release, share, domain, as_json)


@app.command()
def shadow(
    ctx: typer.Context, release: ReleaseOrOff, share: Share = None, domain: DomainOption = None, as_json: AsJson = False
) -> None:
    """Compute a share of the look-ups with a release in the background and compare; `off` ends the shadow."""
    _try_out(ctx, "shadow", release, share, domain, as_json)


def announce(settings: "Settings", domain: str, action: str) -> None:
    """Announce the domain's live release, canary and shadow; only warns if Kafka is unreachable."""
    from serving.messages import publish, release_announcement

    try:
        publish(settings, release_announcement(settings.state_path / "releases", domain, action))
    except BrokerError as error:
        typer.echo(f"not announced ({error}); the API will find the change in its folder", err=True)


def _try_out(
    ctx: typer.Context, role: Any, release: str, share: float | None, domain: str | None, as_json: bool
) -> None:
    import msgspec

    from models.releases import rollout

    root, name = _releases_of(ctx, domain)
    if release == "off":
        ended = rollout.end_trial(root, name, role)
        if ended is None:
            raise ColdstreamError(f"{name}: no {role} is running")
        _finish(ctx, name, f"{role}-off", {role: None}, f"{name}: {role} {ended.release} ended", as_json)
        return
    settings: Settings = ctx.obj
    begin = rollout.begin_canary if role == "canary" else rollout.begin_shadow
    arm = begin(root, name, release, share if share is not None else settings.canary_share)
    population = "users" if role == "canary" else "look-ups"
    sentence = f"{name}: {role} {release} takes {arm.share:.0%} of the {population}"
    _finish(ctx, name, role, {role: msgspec.to_builtins(arm)}, sentence, as_json)


def _releases_of(ctx: typer.Context, domain: str | None) -> "tuple[Path, str]":
    """The folder of all releases, and the domain; checks the format of the state folder."""
    from serving.process.state_folder import check_state_folder

    settings: Settings = ctx.obj
    check_state_folder(settings.state_path)
    if domain is not None:
        check_domain(settings, domain)
    return settings.state_path / "releases", domain or settings.domain


def _finish(ctx: typer.Context, domain: str, action: str, state: dict[str, Any], sentence: str, as_json: bool) -> None:
    announce(ctx.obj, domain, action)
    print_lines({"domain": domain, "action": action, **state}, [sentence], as_json)
