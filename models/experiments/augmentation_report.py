"""The results of augmentation by share, ratio and kind: verdicts, failures first, and gains against the share."""

from collections.abc import Sequence
from itertools import product
from typing import Any, Final

import msgspec
import numpy as np

from models.evaluation.bootstrap import Comparison, ratio_text
from models.evaluation.cold_values import UserValues
from models.evaluation.opponent import BLEND
from models.evaluation.report_page import ReportTable, canvas, number, styles, svg
from models.experiments.augmentation import (
    COPYING,
    TEXT_READERS,
    AugmentationArm,
    AugmentationPlan,
    Scenario,
    arm_names,
)
from models.experiments.measures import ANY_K, user_values
from models.experiments.report import ExperimentReport, unit_names, verdict_table
from models.experiments.results import WARM
from models.experiments.run import ExperimentRun, Unit
from models.experiments.verdicts import Verdict, judge

PLOTTED_K: Final = 1


class ScenarioResults(msgspec.Struct):
    """A scenario's verdicts, and the ratios behind them.

    `verdicts`: every arm that is no control against the best of A0 and all controls, with the text information that the
    generator saw on both sides. `without_text`: the same where neither side reads texts. `information`: by k, A0 with
    texts to A0 without.
    """

    scenario: Scenario
    verdicts: list[Verdict]
    without_text: list[Verdict]
    information: dict[int, Comparison]
    values: UserValues
    warm: UserValues


def scenario_results(
    scenario: Scenario, arms: Sequence[AugmentationArm], values: UserValues, warm: UserValues, rng: np.random.Generator
) -> ScenarioResults:
    """The results from users' values; `arms` are those of the scenario, `warm` are the values over all k."""
    added = {name for arm in arms for name in arm_names(arm)}
    strongest = [arm for arm in values.arms if arm not in added]
    silent = [arm for arm in strongest if arm not in {*TEXT_READERS, BLEND}]
    controls = [arm for arm in arms if arm.is_control]
    with_text, without = [
        [*own, *(arm_names(control)[n] for control in controls)] for n, own in enumerate((strongest, silent))
    ]
    tried = [arm_names(arm) for arm in arms if not arm.is_control]
    best, best_silent = ({k: values.best(own, k) for k in values.ks} for own in (strongest, silent))
    judged = [
        judge(values, warm, [dict.fromkeys(values.ks, names[n]) for names in tried], others, rng, scenario.name)
        for n, others in enumerate((with_text, without))
    ]
    information = values.compare(best, best_silent, rng)
    return ScenarioResults(scenario, judged[0], judged[1], information, values, warm)


def sentences(results: Sequence[ScenarioResults]) -> list[str]:
    """The verdict in words, failures first, and what the information alone brings."""
    verdicts = [verdict for part in results for verdict in part.verdicts]
    passed = [verdict for verdict in verdicts if verdict.passed]
    lines = []
    if len(passed) < len(verdicts):
        where = ", but for what follows" if passed else " at any share, ratio or kind that was tried"
        lines.append(
            f"Do not augment{where}: {len(verdicts) - len(passed)} of {len(verdicts)} combinations of share, ratio, "
            f"kind and k fail against the best of the real recommenders and the controls{_spread(verdicts)}."
        )
    lines += [
        f"Augment at {verdict.scenario}, k = {verdict.k}: {verdict.arm} gives {ratio_text(verdict.ratio)} times "
        f"{verdict.other}."
        for verdict in passed
    ]
    return lines + [_information_sentence(part) for part in first_of_each_share(results)]


def _spread(verdicts: Sequence[Verdict]) -> str:
    ratios = [verdict.ratio.ratio for verdict in verdicts]
    return f" (ratios {min(ratios):.3f} to {max(ratios):.3f}, median {float(np.median(ratios)):.3f})" if ratios else ""


def _information_sentence(part: ScenarioResults) -> str:
    figures = ", ".join(f"k = {k} {ratio_text(ratio)}" for k, ratio in part.information.items())
    return f"Share {part.scenario.share:g}: real recommenders that read texts, to those that do not: {figures}."


def first_of_each_share(results: Sequence[ScenarioResults]) -> list[ScenarioResults]:
    """One scenario of each share: what is fitted on real events alone does not depend on the ratio."""
    return list({part.scenario.share: part for part in reversed(results)}.values())[::-1]


def gain_tables(results: Sequence[ScenarioResults]) -> list[ReportTable]:
    """Ratios to the best other arm, by share, arm and k: with texts on both sides, and without."""
    return [
        _gain_table([(part, part.verdicts) for part in results], "Gains with texts on both sides"),
        _gain_table([(part, part.without_text) for part in results], "Gains without texts on both sides"),
    ]


def _gain_table(parts: Sequence[tuple[ScenarioResults, list[Verdict]]], title: str) -> ReportTable:
    ks = parts[0][0].values.ks if parts else []
    rows = []
    for part, verdicts in parts:
        for arm in dict.fromkeys(verdict.arm for verdict in verdicts):
            own = {verdict.k: verdict for verdict in verdicts if verdict.arm == arm}
            warm = own[ks[-1]].warm
            share = f"{part.scenario.share:.0%}"
            cells = [ratio_text(own[k].ratio) for k in ks]
            rows.append([share, arm, *cells, ratio_text(warm) if warm is not None else ""])
    return ReportTable(title, ["share", "arm", *(f"k = {k}" for k in ks), "warm"], rows)


def mean_tables(results: Sequence[ScenarioResults]) -> list[ReportTable]:
    """NDCG@10 of every arm, a table for each scenario."""
    return [
        ReportTable(
            f"NDCG@10, mean over the next five events. {part.scenario.name}",
            ["", *(f"k = {k}" for k in part.values.ks), "warm"],
            [
                [arm, *(number(part.values.mean(arm, k)) for k in part.values.ks), number(_warm(part.warm, arm))]
                for arm in part.values.arms
            ],
        )
        for part in results
    ]


def _warm(warm: UserValues, arm: str) -> float | None:
    return warm.mean(arm, ANY_K) if warm.users else None


def gain_plots(results: Sequence[ScenarioResults], plan: AugmentationPlan, k: int = PLOTTED_K) -> list[str]:
    """Gain at k against the share, a line for each ratio, with intervals; a plot for each kind and synthesizer."""
    plots = []
    for kind, synthesizer in product(plan.kinds, plan.synthesizers):
        figure, axes = canvas(3.2, f"{kind} by {synthesizer}: NDCG@10 to the best other arm at k = {k}")
        axes.axhline(1.0, color="#1c2430", linewidth=1)
        ratios = sorted({part.scenario.ratio for part in results})
        for ratio, style in zip(ratios, styles(), strict=False):
            name = arm_names(AugmentationArm(kind, synthesizer, ratio))[0]
            points = [
                (part.scenario.share, verdict.ratio)
                for part in results
                for verdict in part.verdicts
                if part.scenario.ratio == ratio and verdict.arm == name and verdict.k == k
            ]
            low = [point.ratio - point.low for _, point in points]
            high = [point.high - point.ratio for _, point in points]
            shares = [share for share, _ in points]
            gains = [point.ratio for _, point in points]
            axes.errorbar(shares, gains, yerr=[low, high], label=f"{ratio:g} to 1", **style)
        axes.set_xscale("log")
        axes.set_xlabel("share of the training users")
        axes.legend(fontsize=8, frameon=False, title="synthetic to real", title_fontsize=8)
        plots.append(svg(figure))
    return plots


def report_of(
    run: ExperimentRun, units: Sequence[Unit], facts: dict[str, Any], plan: AugmentationPlan, seed: int
) -> tuple[ExperimentReport, list[str]]:
    """The report of the units that are there, and its plots."""
    there = [unit for unit in units if run.has(unit)]
    rng, results = np.random.default_rng(seed), []
    for scenario in plan.scenarios:
        own = [unit for unit in there if unit.scenario == scenario.name]
        if own:
            values = user_values(run.read(own), plan.opponent.folds.ks, scenario=scenario.name)
            warm = user_values(run.read(own), None, scenario=scenario.name, group=WARM)
            results.append(scenario_results(scenario, plan.arms(scenario.ratio), values, warm, rng))
    report = ExperimentReport(
        experiment="augmentation",
        **{**facts, "notes": [*facts["notes"], *notes(plan)]},
        cold_users=max((len(part.values.users) for part in results), default=0),
        warm_users=max((len(part.warm.users) for part in results), default=0),
        units=unit_names(there),
        missing=unit_names([unit for unit in units if not run.has(unit)]),
        verdict=sentences(results),
        verdicts=[verdict for part in results for verdict in part.verdicts],
        tables=[
            *gain_tables(results),
            verdict_table([verdict for part in results for verdict in part.verdicts]),
            *mean_tables(results),
        ],
        settings=run.plan.settings,
        figures={"without text": [verdict for part in results for verdict in part.without_text]},
    )
    return report, gain_plots(results, plan)


def notes(plan: AugmentationPlan) -> list[str]:
    """How to read the figures."""
    lines = [
        "Every arm has the opponent's parameters, tuned on real events alone; weights are fitted for each arm.",
        "Both happens on users beyond the share: a shop of that size would have fewer of them.",
        "Items without events in the share are in the catalogue: texts, categories and synthetic events reach them.",
        "Popularity, the clock and content-kNN count real events alone.",
    ]
    copying = [name for name in plan.synthesizers if name in COPYING]
    return lines + [f"{name} returns real histories: never publish what it generates." for name in copying]
