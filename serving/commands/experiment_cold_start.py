"""`coldstream experiment cold-start`: do synthetic events help users of few events?"""

from typing import TYPE_CHECKING, Annotated

import typer

from serving.commands.experiment_run_options import ExperimentRunOptions, with_experiment_run_options
from serving.commands.options import AsJson, DomainOption, settings_of
from serving.commands.output import print_json, print_report
from serving.commands.table_options import with_table_options
from serving.process.native_output import without_native_lines
from stream.errors import ColdstreamError

if TYPE_CHECKING:
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
    sampled: Annotated[
        str, typer.Option(metavar="NAME,...", help="Generators whose sampled histories are injected too (slow).")
    ] = "",
    enumerated: Annotated[
        str, typer.Option(metavar="NAME,...", help="Generators whose most probable histories are injected too (slow).")
    ] = "",
    controls: Annotated[bool, typer.Option(help="Measure arms that inject as many events from elsewhere.")] = True,
    domain: DomainOption = None,
    as_json: AsJson = False,
) -> None:
    """Do synthetic events help users of few events? Every arm against the strongest opponent of real events."""
    from msgspec import to_builtins

    from models.experiments.arms import ArmPlan
    from models.experiments.report import text_report
    from models.recommenders.registry import parse_names
    from serving.commands.cold_start_experiment import run_cold_start
    from serving.process import memory

    settings = settings_of(ctx, domain=domain)
    memory.configure_allocator(memory.TRAINING)
    if not _generators(synthesizers):
        raise ColdstreamError("--synthesizers names none; give one or more, as in --synthesizers walk,markov")
    arms = ArmPlan(
        synthesizers=_generators(synthesizers),
        hosts=tuple(parse_names(hosts)),
        steps=_steps(steps),
        sampled=_generators(sampled),
        enumerated=_generators(enumerated),
        controls=controls,
        seconds=60 * options.minutes,
    )
    report = run_cold_start(settings, options, table, domain, arms=arms)
    if as_json:
        print_json(to_builtins(report))
    else:
        print_report(text_report(report))


def _generators(text: str) -> tuple[str, ...]:
    from models.synthesizers.registry import synthesizer_class

    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        synthesizer_class(name)
    return names


def _steps(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.removeprefix("-").isdigit() and int(part) for part in parts):
        raise ColdstreamError(f"--steps {text}: give whole numbers other than 0, as in --steps 1,2,3")
    return tuple(int(part) for part in parts)
