"""`coldstream evaluate`: recommenders tuned and measured on a data set."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.commands.experiment_options import ExperimentOptions, with_experiment_options
from serving.commands.options import AsJson, DomainOption, settings_of
from serving.commands.output import print_json, print_lines, print_report
from serving.commands.table_options import with_table_options
from serving.process.native_output import without_native_lines

if TYPE_CHECKING:
    from serving.commands.offline_evaluation import EvaluationRequest
    from stream.sources.table_options import TableOptions

app = typer.Typer(invoke_without_command=True)


@app.callback()
@with_table_options
@with_experiment_options
@without_native_lines()
def evaluate(
    ctx: typer.Context,
    table: "TableOptions",
    experiment: ExperimentOptions,
    recommender: Annotated[
        str,
        typer.Option(help="A name, names separated by commas, auto (the default candidates and their blend) or all."),
    ] = "auto",
    trials: Annotated[int, typer.Option(min=1, help="Tuning trials for each recommender.")] = 12,
    minutes: Annotated[float, typer.Option(min=0.01, help="Tuning minutes for each recommender.")] = 4.0,
    preset: Annotated[
        Path | None, typer.Option(help="A preset from coldstream tune whose parameters start the search.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Write the top 20 items of each test user to this Parquet file.")
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Folds of --split cold-users.")] = 5,
    retrain_every: Annotated[
        str | None,
        typer.Option(help="Interval of trainings of --split progressive, such as 7d. Default: the preset's."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a report to this folder: Markdown, HTML with plots, JSON.")
    ] = None,
    domain: DomainOption = None,
    as_json: AsJson = False,
) -> None:
    """Tune and evaluate recommenders on your events: all metrics, confidence intervals, segments, a report."""
    if ctx.invoked_subcommand is not None:
        return
    from models.evaluation.report import write
    from serving.commands import offline_evaluation
    from serving.process import memory

    settings = settings_of(ctx, domain=domain)
    request = offline_evaluation.evaluation_request(
        settings, experiment, table, domain, recommender=recommender, trials=trials, minutes=minutes, tuned=preset
    )
    memory.configure_allocator(memory.TRAINING)
    if experiment.split.partition(":")[0] == "cold-users":
        _evaluate_cold_users(request, folds, predictions, report, as_json=as_json)
        return
    if experiment.split == "progressive":
        _evaluate_progressive(request, retrain_every, report, as_json=as_json)
        return
    result = offline_evaluation.evaluate(request, predictions)
    if report is not None:
        written = write(result, report)
        typer.echo(f"report: {written[1]}", err=True)
    if as_json:
        print_json(offline_evaluation.summary(result))
    else:
        print_report(offline_evaluation.table(result))


def _evaluate_cold_users(
    request: "EvaluationRequest", folds: int, predictions: Path | None, report: Path | None, *, as_json: bool
) -> None:
    from msgspec import json

    from models.evaluation import cold_report
    from models.evaluation.report_page import write_pages
    from serving.commands.cold_evaluation import evaluate_cold_users

    result = evaluate_cold_users(request, folds, predictions)
    if report is not None:
        written = write_pages(cold_report.page(result), result, report)
        typer.echo(f"report: {written[1]}", err=True)
    if as_json:
        print_json(json.decode(json.encode(result)))  # not a number becomes null
    else:
        print_report(cold_report.text_table(result))


def _evaluate_progressive(
    request: "EvaluationRequest", retrain_every: str | None, report: Path | None, *, as_json: bool
) -> None:
    from msgspec import json

    from models.evaluation import time_order_report
    from models.evaluation.report_page import write_pages
    from serving.commands.progressive_evaluation import evaluate_progressive

    result = evaluate_progressive(request, retrain_every, report)
    if report is not None:
        written = write_pages(time_order_report.page(result), result, report)
        typer.echo(f"report: {written[1]}", err=True)
    if as_json:
        print_json(json.decode(json.encode(result)))
    else:
        print_report(time_order_report.text_table(result))


@app.command("off-policy")
def off_policy(
    ctx: typer.Context,
    explore: Annotated[
        list[float] | None,
        typer.Option(help="An exploration share to evaluate, 0 to 1; may be repeated. Default: 0, no exploration."),
    ] = None,
    within: Annotated[str, typer.Option(help="A click counts within this time after the impression.")] = "30m",
    domain: DomainOption = None,
    as_json: AsJson = False,
) -> None:
    """Estimate click-through rates at other exploration shares from archived impressions with propensities."""
    from models.evaluation.off_policy import evaluate_off_policy
    from serving.commands.off_policy import off_policy_json, off_policy_lines
    from serving.settings import duration_seconds

    settings = settings_of(ctx, domain=domain)
    window_ms = round(1_000 * duration_seconds(within))
    report = evaluate_off_policy(settings.state_path / "archive", settings.domain, explore or [0.0], window_ms)
    print_lines(off_policy_json(report), off_policy_lines(report), as_json)
