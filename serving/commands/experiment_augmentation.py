"""`coldstream experiment augmentation`: do synthetic users help a shop that has few real ones?"""

from typing import TYPE_CHECKING, Annotated

import typer

from serving.commands.experiment_run_options import ExperimentRunOptions, with_experiment_run_options
from serving.commands.options import AsJson, DomainOption, settings_of
from serving.commands.output import print_json, print_report
from serving.commands.table_options import with_table_options
from serving.process.native_output import without_native_lines

if TYPE_CHECKING:
    from stream.sources.table_options import TableOptions


@with_table_options
@with_experiment_run_options
@without_native_lines()
def augmentation(
    ctx: typer.Context,
    table: "TableOptions",
    options: ExperimentRunOptions,
    synthesizers: Annotated[
        str, typer.Option(metavar="NAME,...", help="The generators; the first one's events are also shuffled.")
    ] = "text,markov,walk",
    kinds: Annotated[
        str,
        typer.Option(metavar="KIND,...", help="What is added: users, lengthened (short histories), tail (its items)."),
    ] = "users,lengthened,tail",
    shares: Annotated[
        str, typer.Option(metavar="SHARE,...", help="Shares of the training users that are the whole shop, up to 1.")
    ] = "0.01,0.05,0.2,1",
    ratios: Annotated[
        str, typer.Option(metavar="RATIO,...", help="Synthetic events for each real one.")
    ] = "0.25,0.5,1,4",
    domain: DomainOption = None,
    as_json: AsJson = False,
) -> None:
    """Do synthetic users help a young shop? Recommenders trained with them against the same without them."""
    from msgspec import to_builtins

    from models.experiments.report import text_report
    from serving.commands.augmentation_experiment import AugmentationOptions, names_of, numbers_of, run_augmentation
    from serving.process import memory

    settings = settings_of(ctx, domain=domain)
    memory.configure_allocator(memory.TRAINING)
    chosen = AugmentationOptions(
        synthesizers=names_of(synthesizers),
        kinds=names_of(kinds),
        shares=numbers_of("--shares", shares, 1.0),
        ratios=numbers_of("--ratios", ratios, 100.0),
    )
    report = run_augmentation(settings, options, table, domain, chosen)
    if as_json:
        print_json(to_builtins(report))
    else:
        print_report(text_report(report))
