"""`coldstream train`: one training run, or a trainer that keeps running."""

from typing import Annotated

import typer

from serving.commands.options import AsJson, settings_of
from serving.commands.output import print_value
from serving.process.native_output import without_native_lines
from stream.errors import ColdstreamError


@without_native_lines()
def train(
    ctx: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Train once, with a progress bar.")] = False,
    every: Annotated[str | None, typer.Option(help="Train at this interval, such as 15m.")] = None,
    domain: Annotated[
        str | None,
        typer.Option(help="The domain. Default: the setting `domain` with --once, otherwise every domain."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train releases: first from counts, within seconds; then tuned recommenders and their blend. Promote the best."""
    from serving.process.state_folder import prepare_state_folder
    from serving.train import trainer

    settings = settings_of(ctx, train_every=every, domain=domain)
    prepare_state_folder(settings.state_path)
    if not once:
        if as_json:
            raise ColdstreamError(
                "train --json prints the result of one run: give --once too; a trainer that keeps running logs JSON "
                "with coldstream --log-format json train"
            )
        raise typer.Exit(trainer.main(settings, [] if domain is None else ["--domain", domain]))
    from serving.commands.progress import training
    from serving.consume.archive_lag import wait_for_archive
    from serving.process import memory

    memory.configure_allocator(memory.TRAINING)
    wait_for_archive(settings, lambda text: typer.echo(text, err=True))
    with training() as progress:
        result = trainer.train_once(settings, settings.domain, progress)
    fields = ("trained", "serving", "reason", "metrics", "refused")
    print_value({name: getattr(result, name) for name in fields}, as_json)
