"""The report of the cold-start experiment, from the results that its units kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from models.evaluation.bootstrap import ratio_text
from models.evaluation.cold_values import PRIMARY, UserValues
from models.evaluation.report_page import ReportTable, number
from models.experiments.arms import ExperimentArm, of_kind
from models.experiments.cold_start import A0, A1, BASE
from models.experiments.measures import ANY_K, NEXT, SAME, compared, user_values
from models.experiments.report import (
    ExperimentReport,
    arm_plot,
    arm_tables,
    horizon_plot,
    horizon_ratios,
    horizon_table,
    unit_names,
    verdict_table,
)
from models.experiments.results import WARM
from models.experiments.run import ExperimentRun, Unit
from models.experiments.verdicts import judge, sentences

PLOTTED_KS = (1, 2, 3)


def report_of(
    run: ExperimentRun, units: Sequence[Unit], facts: Mapping[str, Any], ks: Sequence[int], seed: int = 0
) -> tuple[ExperimentReport, list[str]]:
    """The report on the units that are there, and its plots; `facts`: source, events, users, items and notes."""
    done = [unit for unit in units if run.has(unit)]
    values = user_values(run.read(done), ks)
    warm = user_values(run.read(done), None, group=WARM)
    kept = next(run.read(done))[1].facts
    arms, rng = msgspec.convert(kept["arms"], list[ExperimentArm]), np.random.default_rng(seed)
    others = [*kept["opponent"], *of_kind(arms, "control", "ensemble")]
    strongest = {k: values.best(others, k) for k in ks}
    candidates = [A1, *of_kind(arms, "synthesis")]
    judged = judge(values, warm, [dict.fromkeys(ks, name) for name in candidates], others, rng)
    verdicts, of_generators = judged[: len(ks)], judged[len(ks) :]
    shown = [A1, *of_kind(arms, "synthesis", "direct", "control", "ensemble")]
    ratios = horizon_ratios(values, shown, strongest, rng)
    added = horizon_ratios(values, shown, dict.fromkeys(ks, BASE), rng)
    tables = [
        verdict_table(verdicts),
        _strongest_table(values, kept["opponent"], strongest),
        verdict_table(of_generators, "Verdicts on each generator"),
        horizon_table(added, f"What each arm adds to the same opponent ({BASE}), by horizon"),
        horizon_table(ratios, "NDCG@10 by horizon, to the best other arm"),
        *_choices(run, done),
        *_direct_tables(values, arms, strongest, rng),
        *arm_tables(values, warm, rng, items=facts["items"]),
    ]
    report = ExperimentReport(
        experiment="cold start",
        **facts,
        cold_users=len(values.users),
        warm_users=len(warm.users),
        units=unit_names(done),
        missing=unit_names([unit for unit in units if unit not in done]),
        verdict=[*sentences(verdicts), *_direct_sentences(values, arms, ks)],
        verdicts=judged,
        tables=tables,
        settings=run.plan.settings,
        figures={"means": _means(values), "warm": {arm: warm.mean(arm, ANY_K) for arm in warm.arms}},
    )
    plots = [
        arm_plot(values, [A0, *shown]),
        *(horizon_plot(added, k, BASE) for k in PLOTTED_KS if k in ks),
    ]
    return report, plots


def _means(values: UserValues) -> dict[str, dict[str, list[float]]]:
    return {
        metric: {arm: [values.mean(arm, k, metric) for k in values.ks] for arm in values.arms}
        for metric in (PRIMARY, NEXT, SAME)
    }


def _strongest_table(values: UserValues, opponent: Sequence[str], strongest: Mapping[int, str]) -> ReportTable:
    """A0 as the reported maximum and as chosen on tuning users, and the best arm without injected synthesis."""
    real = {k: values.best(opponent, k) for k in strongest}
    rows = [
        ["A0, the reported maximum", *(f"{arm} {number(values.mean(arm, k))}" for k, arm in real.items())],
        [A0, *(number(values.mean(A0, k)) for k in strongest)],
        [
            "the best other arm (A0 and controls)",
            *(f"{arm} {number(values.mean(arm, k))}" for k, arm in strongest.items()),
        ],
        [A1, *(number(values.mean(A1, k)) for k in strongest)],
    ]
    return ReportTable("The strongest opponent", ["", *(f"k = {k}" for k in strongest)], rows)


def _choices(run: ExperimentRun, units: Sequence[Unit]) -> list[ReportTable]:
    """What was chosen on the tuning users of each unit."""
    rows, ks = [], []
    for unit, results in run.read(units):
        for name, by_k in results.facts["chosen"].items():
            ks = list(by_k)
            rows.append([name, unit.name, *by_k.values()])
    head = ["", "unit", *(f"k = {k}" for k in ks)]
    return [ReportTable("Chosen on tuning users", head, sorted(rows))]


def _direct_tables(
    values: UserValues, arms: Sequence[ExperimentArm], strongest: Mapping[int, str], rng: np.random.Generator
) -> list[ReportTable]:
    """Each generator that ranks directly (A4) against the best other arm, and against its own injection."""
    rows, pairs = [], []
    for arm in (arm for arm in arms if arm.kind == "direct"):
        injected = arm.name.replace("A4", "A1s")
        for label, others in (("the best other arm", strongest), (injected, dict.fromkeys(strongest, injected))):
            rows.append([arm.name, label])
            pairs += [(arm.name, others[k], k, PRIMARY) for k in strongest]
    ratios = [ratio_text(ratio) for ratio in compared(values, pairs, rng)]
    rows = [[*row, *ratios[number * len(strongest) :][: len(strongest)]] for number, row in enumerate(rows)]
    title = "A4: the generator's own ranking as a member, to"
    return [ReportTable(title, ["arm", "to", *(f"k = {k}" for k in strongest)], rows)] if rows else []


def _direct_sentences(values: UserValues, arms: Sequence[ExperimentArm], ks: Sequence[int]) -> list[str]:
    """Where a generator that ranks directly is at least as good as the chosen injection."""
    direct = of_kind(arms, "direct")
    if not direct:
        return []
    best = {k: values.best(direct, k) for k in ks}
    ahead = [f"k = {k} ({best[k]})" for k in ks if values.mean(best[k], k) >= values.mean(A1, k)]
    return (
        [f"The generator as a recommender is at least as good as its injection at {', '.join(ahead)}."] if ahead else []
    )
