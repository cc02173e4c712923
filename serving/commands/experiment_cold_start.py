"""`coldstream experiment cold-start`: do synthetic events help users of few events?"""

from typing import TYPE_CHECKING, Annotated

import typer

from serving.commands.experiment_run_options import ExperimentRunOptions, with_experiment_run_options
from serving.commands.options import AsJson, DomainOption, settings_of
from serving.commands.output import print_json, print_report
from serving.commands.table_options import with_table_options
from serving.process.native_output import without_native_lines

if TYPE_CHECKING:
    from models.experiments.arms import ArmPlan
    from stream.sources.table_options import TableOptions


@with_table_options
@with_experiment_run_options
@without_native_lines()
def cold_start(
    ctx: typer.Context,
    table: "TableOptions",
    options: ExperimentRunOptions,
    synthesizers: Annotated[
        str, typer.Option(metavar="NAME,...", help="The generators that imagine events.")
    ] = "walk,markov",
    hosts: Annotated[
        str, typer.Option(metavar="NAME,...", help="The opponent's members that read imagined events.")
    ] = "sequential-rules,ease",
    steps: Annotated[
        str, typer.Option(metavar="N,...", help="How many events ahead generators imagine; negative: before the first.")
    ] = "1,2,3",
    domain: DomainOption = None,
    as_json: AsJson = False,
) -> None:
    """Do synthetic events help users of few events? Every arm against the strongest opponent of real events."""
    from msgspec import json

    from models.experiments.report import text_report
    from serving.commands.cold_start_experiment import run_cold_start
    from serving.process import memory

    settings = settings_of(ctx, domain=domain)
    memory.configure_allocator(memory.TRAINING)
    report = run_cold_start(settings, options, table, domain, arms=_arms(synthesizers, hosts, steps, options.minutes))
    if as_json:
        print_json(json.decode(json.encode(report)))  # not a number becomes null
    else:
        print_report(text_report(report))


def _arms(synthesizers: str, hosts: str, steps: str, minutes: float) -> "ArmPlan":
    from models.experiments.arms import ArmPlan
    from models.recommenders.registry import parse_names
    from models.synthesizers.registry import synthesizer_class
    from stream.errors import ColdstreamError

    names = tuple(name.strip() for name in synthesizers.split(",") if name.strip())
    for name in names:
        synthesizer_class(name)
    try:
        numbers = tuple(int(step) for step in steps.split(","))
    except ValueError:
        numbers = (0,)
    if 0 in numbers:
        raise ColdstreamError(f"--steps {steps}: give whole numbers other than 0, as in --steps 1,2,3")
    return ArmPlan(synthesizers=names, hosts=tuple(parse_names(hosts)), steps=numbers, seconds=60 * minutes)
