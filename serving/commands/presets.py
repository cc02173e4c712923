"""`coldstream presets`: each domain's preset, and the file it comes from."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import typer

from serving.commands.options import AsJson
from serving.commands.output import print_lines

if TYPE_CHECKING:
    from serving.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Show the presets of domains.")

NO_PRESET: Final = "no preset: general defaults"


@app.command("list")
def list_presets(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List each domain's preset with its file and main choices."""
    rows = preset_rows(ctx.obj)
    print_lines(rows, _lines(rows), as_json)


@app.command()
def show(ctx: typer.Context, domain: str, as_json: AsJson = False) -> None:
    """Print a domain's preset file: save it, change it, and name it in the settings."""
    import msgspec

    from models.domains.preset import shipped
    from serving.domain_presets import preset_file, preset_for
    from stream.errors import ColdstreamError

    preset, file = preset_for(ctx.obj, domain), preset_file(ctx.obj, domain)
    if as_json:
        typer.echo(msgspec.json.encode(preset).decode())
        return
    if file is None:
        raise ColdstreamError(f"{domain} has no preset; the package has presets for {', '.join(shipped())}")
    typer.echo(file.read_text("utf-8").rstrip())


def preset_rows(settings: "Settings") -> list[dict[str, Any]]:
    """A row for each domain of the settings. Raises PresetError."""
    from models.domains.preset import shipped
    from serving.domain_presets import preset_file, preset_for

    rows = []
    for domain in settings.domain_names:
        preset, file = preset_for(settings, domain), preset_file(settings, domain)
        seen = preset.seen.policy + (f" {preset.seen.within}" if preset.seen.policy == "within" else "")
        rows.append(
            {
                "domain": domain,
                "seen": seen,
                "half life": preset.popularity.half_life,
                "encoder": preset.training.encoder,
                "members": preset.training.members,
                "tuned": sorted(preset.recommenders),
                "file": "shipped" if file is not None and file == shipped().get(domain) else str(file or NO_PRESET),
            }
        )
    return rows


def _lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield f"{row['domain']:<8} {row['seen']:<10} {row['half life']:<5} {row['encoder']:<12} {row['file']}"
