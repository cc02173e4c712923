"""Options that several commands share, and the settings that result from them."""

import importlib.metadata
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from serving.errors import SettingsError
from serving.setting_checks import check_domain_name
from serving.settings import Settings, read, validate

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
UserId = Annotated[str, typer.Argument(help="A user id; before one that begins with a dash, write -- and a blank.")]
DomainOption = Annotated[str | None, typer.Option("--domain", help="The domain. Default: the setting `domain`.")]


def print_version(requested: bool) -> None:
    """The callback of `--version`."""
    if requested:
        typer.echo(f"coldstream {importlib.metadata.version('coldstream')}")
        raise typer.Exit


def global_options(
    ctx: typer.Context,
    settings: Annotated[Path | None, typer.Option(help="A TOML file of settings.")] = None,
    state: Annotated[str | None, typer.Option(help="The folder that holds all persistent state.")] = None,
    kafka: Annotated[
        str | None, typer.Option(metavar="HOST:PORT,...", help="Use this Kafka cluster instead of the embedded broker.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="The port of the HTTP API.")] = None,
    log_format: Annotated[str | None, typer.Option(help="text or json.")] = None,
    version: Annotated[  # noqa: ARG001 - its callback answers
        bool, typer.Option("--version", help="Print the version.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """A real-time recommender: a new event changes recommendations within 250 ms, and no accepted event is lost."""
    from serving.process import logs

    logs.quiet()
    flags = {"state": state, "kafka": kafka, "port": port, "log_format": log_format}
    secrets = ctx.obj
    ctx.obj = read(settings, flags=flags)
    if isinstance(secrets, list):
        secrets.extend(ctx.obj.secrets)


def check_domain(settings: Settings, domain: str) -> None:
    """Raise SettingsError where the settings do not name `domain`: its events would be dead letters."""
    names = settings.domain_names
    if domain in names:
        return
    check_domain_name(domain)
    near = get_close_matches(domain, names, 1)
    hint = f". Did you mean {near[0]!r}? To add it" if near else "; to add it"
    addition = f'domains = "{",".join([*names, domain])}"'
    if not isinstance(settings.domains, str):
        addition = f"[domains.{domain}]"
    raise SettingsError(
        f"domain {domain!r} is not one of {', '.join(names)}{hint}, "
        f"write the line {addition} into coldstream.toml and start the system again"
    )


def settings_of(ctx: typer.Context, **options: Any) -> Settings:
    """The settings in force, replaced by those options of the command that were given. Raises SettingsError."""
    given = {name: value for name, value in options.items() if value is not None}
    settings: Settings = ctx.obj
    if "domain" in given:
        check_domain(settings, given["domain"])
    return validate(msgspec.structs.asdict(settings) | given) if given else settings
