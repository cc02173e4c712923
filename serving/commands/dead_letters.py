"""`coldstream dead-letters`: the dead-letter queue of records that could not be processed."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from serving.commands.options import AsJson
from serving.commands.output import print_lines, print_value

if TYPE_CHECKING:
    from serving.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Inspect and replay records that could not be processed.")

UNREADABLE: Final = "unreadable-batch"

Reason = Annotated[str | None, typer.Option("--reason", help="Only dead letters with this reason.")]


@app.command("list")
def list_letters(ctx: typer.Context, reason: Reason = None, as_json: AsJson = False) -> None:
    """List all dead letters."""
    from stream import dead_letters

    listed = dead_letters.read(ctx.obj.bootstrap, ctx.obj.kafka_security, reason)
    rows = [
        {
            "number": entry.number,
            "reason": entry.letter.reason,
            "from": f"{entry.letter.topic}/{entry.letter.partition}:{entry.letter.offset}",
            "detail": entry.letter.detail,
            "replayed": entry.replayed,
        }
        for entry in listed
    ]
    print_lines(rows, _lines(rows), as_json)


@app.command("show")
def show_letter(ctx: typer.Context, number: int, as_json: AsJson = False) -> None:
    """Show one dead letter with its original bytes."""
    from stream import dead_letters

    entry = dead_letters.show(ctx.obj.bootstrap, number, ctx.obj.kafka_security)
    fields = {
        "number": entry.number,
        "reason": entry.letter.reason,
        "detail": entry.letter.detail,
        "key": entry.letter.key,
        "replayed": entry.replayed,
        "value": entry.letter.value.decode("utf-8", "replace"),
    }
    if entry.letter.reason == UNREADABLE:
        fields["value"] = f"base64:{entry.letter.raw}"
    print_value(fields, as_json)


@app.command("replay")
def replay_letters(
    ctx: typer.Context,
    numbers: Annotated[
        list[int] | None, typer.Argument(help="Numbers to replay. Default: all that were not replayed yet.")
    ] = None,
    reason: Reason = None,
    value: Annotated[Path | None, typer.Option(help="A file with the corrected event, for a single letter.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Include letters that were replayed before.")] = False,
) -> None:
    """Send dead letters to their topics again."""
    from stream import dead_letters

    settings: Settings = ctx.obj
    corrected = value.read_bytes() if value is not None else None
    sent = dead_letters.replay(
        settings.bootstrap, numbers or None, settings.kafka_security, reason=reason, value=corrected, again=again
    )
    typer.echo(f"sent {len(sent)} again: {', '.join(str(entry.number) for entry in sent) or 'none'}")


@app.command("skip")
def skip_batch(
    ctx: typer.Context, partition: Annotated[str, typer.Argument(help="A partition that stopped, such as events/3.")]
) -> None:
    """Pass over the batch at which a partition stopped. Its bytes are kept as a dead letter."""
    from stream.poison import skip_unreadable

    settings: Settings = ctx.obj
    batch = skip_unreadable(settings.bootstrap, settings.kafka_security, partition)
    typer.echo(
        f"{partition}: offsets {batch.first} to {batch.next - 1} are skipped ({batch.reason}); "
        f"`coldstream dead-letters list --reason {UNREADABLE}` shows the kept bytes. "
        "The processes go on within a few seconds"
    )


def _lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        note = "replayed " if row["replayed"] else ""
        yield f"{row['number']:6} {row['reason']:<14} {row['from']:<14} {note}{row['detail']}"
    yield f"{len(rows)} dead letters"
