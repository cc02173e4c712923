"""`coldstream dead-letters`: events that could not enter, and how they enter after all."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.commands.output import AsJson, show

if TYPE_CHECKING:
    from serving.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Events that could not enter.")


@app.command("list")
def list_letters(
    ctx: typer.Context,
    reason: Annotated[str | None, typer.Option(help="Only of this reason.")] = None,
    as_json: AsJson = False,
) -> None:
    """Every dead letter that is kept."""
    from stream import dead_letters

    listed = dead_letters.read(ctx.obj.bootstrap, ctx.obj.kafka_security, reason)
    rows = [
        {
            "number": one.number,
            "reason": one.letter.reason,
            "from": f"{one.letter.topic}/{one.letter.partition}:{one.letter.offset}",
            "detail": one.letter.detail,
            "replayed": one.replayed,
        }
        for one in listed
    ]
    if as_json:
        show(rows, as_json)
        return
    for row in rows:
        note = "replayed " if row["replayed"] else ""
        typer.echo(f"{row['number']:6} {row['reason']:<14} {row['from']:<14} {note}{row['detail']}")
    typer.echo(f"{len(rows)} dead letters")


@app.command("show")
def show_letter(ctx: typer.Context, number: int, as_json: AsJson = False) -> None:
    """One dead letter, with its bytes."""
    from stream import dead_letters

    one = dead_letters.show(ctx.obj.bootstrap, number, ctx.obj.kafka_security)
    text = one.letter.value.decode("utf-8", "replace")
    show(
        {
            "number": one.number,
            "reason": one.letter.reason,
            "detail": one.letter.detail,
            "key": one.letter.key,
            "replayed": one.replayed,
            "value": text,
        },
        as_json,
    )


@app.command("replay")
def replay_letters(
    ctx: typer.Context,
    numbers: Annotated[
        list[int] | None, typer.Argument(help="Which; all that were not replayed yet if left out.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Only of this reason.")] = None,
    value: Annotated[Path | None, typer.Option(help="A file with the mended event, for one letter.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Also those that were replayed before.")] = False,
) -> None:
    """Send dead letters to their topics once more."""
    from stream import dead_letters

    settings: Settings = ctx.obj
    mended = value.read_bytes() if value is not None else None
    sent = dead_letters.replay(
        settings.bootstrap, numbers or None, settings.kafka_security, reason=reason, value=mended, again=again
    )
    typer.echo(f"sent {len(sent)} again: {', '.join(str(one.number) for one in sent) or 'none'}")
