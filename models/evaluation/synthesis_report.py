"""The report on synthesizers: figures beside their ceiling and the baseline, a verdict for each use, plots."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from models.evaluation.report_page import ReportPage, ReportTable, canvas, number, styles, svg
from models.evaluation.utility import Utility
from models.privacy.membership import AttackResult
from models.synthesizers.details import gap_classes
from models.synthesizers.fidelity import HOUR_MS
from models.synthesizers.histories import Histories

STRICT: Final = ("items", "pairs", "group-transitions", "kinds", "values", "hours", "weekdays")
"""Aspects that have to reach STRICT_SHARE of the ceiling; those of LOOSE have to reach LOOSE_SHARE of it."""
LOOSE: Final = ("lengths", "gaps", "transitions", "sessions")
VARIETY: Final = ("coverage", "distinct-sequences", "tail-share")
STRICT_SHARE: Final = 0.95
LOOSE_SHARE: Final = 0.90
VARIETY_SHARE: Final = 0.80
DISCRIMINATOR_AUC: Final = 0.60
UTILITY: Final = 0.90
ATTACK_AUC: Final = 0.55
ATTACK_RATE: Final = 0.02
LONGEST_SHOWN: Final = 50


class Ceiling(msgspec.Struct, frozen=True):
    """Fidelity between two groups of real users, and how well discriminators tell these apart."""

    fidelity: dict[str, float]
    feature_auc: float
    sequence_auc: float | None


class GeneratorResults(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one synthesizer.

    `log_prob`: mean log-likelihood of a held-out event (nats), None without one. `copies`, `held_out_copies`: share of
    synthetic, and of held-out users whose sequence is that of a user in training. `curve`: figures of the fit by epoch.
    """

    name: str
    params: dict[str, Any]
    fit_seconds: float
    users_per_second: float
    fidelity: dict[str, float]
    feature_auc: float
    sequence_auc: float | None
    log_prob: float | None
    utility: Utility
    attacks: list[AttackResult]
    copies: float
    held_out_copies: float
    canaries_returned: int
    exposure: float | None
    curve: list[dict[str, float]]
    shapes: dict[str, list[float]]


class SynthesisReport(msgspec.Struct, kw_only=True):
    """A report. `shapes`: distributions of the held-out users for plots."""

    source: str
    events: int
    users: int
    items: int
    compared: int
    seed: int
    ceiling: Ceiling
    generators: list[GeneratorResults]
    shapes: dict[str, list[float]]
    created_at: int = 0


class UseVerdict(msgspec.Struct, frozen=True):
    """Whether a generator is good enough for a use, and the sentence that says why."""

    use: str
    passed: bool
    reason: str


def verdicts(results: GeneratorResults, ceiling: Ceiling) -> list[UseVerdict]:
    """A verdict for each use that this report can decide."""
    return [
        _test_data(results, ceiling),
        _training_without_real_events(results),
        _more_training_data(results),
        _publication(results),
    ]


def failed_aspects(results: GeneratorResults, ceiling: Ceiling) -> list[str]:
    """Aspects of fidelity below their share of the ceiling."""
    shares = {
        **dict.fromkeys(STRICT, STRICT_SHARE),
        **dict.fromkeys(LOOSE, LOOSE_SHARE),
        **dict.fromkeys(VARIETY, VARIETY_SHARE),
    }
    return [
        name
        for name, share in shares.items()
        if name in ceiling.fidelity and results.fidelity.get(name, 0.0) < share * ceiling.fidelity[name]
    ]


def _test_data(results: GeneratorResults, ceiling: Ceiling) -> UseVerdict:
    failed = failed_aspects(results, ceiling)
    if failed:
        return UseVerdict("test data", False, f"does not reach the ceiling's share in {', '.join(failed)}")
    worst = max(auc for auc in (results.feature_auc, results.sequence_auc) if auc is not None)
    if worst > DISCRIMINATOR_AUC:
        return UseVerdict("test data", False, f"a discriminator tells it apart with an AUC of {worst:.2f}")
    return UseVerdict("test data", True, "resembles real users as closely as other real users do")


def _training_without_real_events(results: GeneratorResults) -> UseVerdict:
    utility, use = results.utility, "training without real events"
    reached = f"recommenders trained on it reach {utility.ratio:.0%} of what real events give"
    if utility.synthetic <= utility.popularity:
        return UseVerdict(use, False, f"{reached}, no more than popularity")
    return UseVerdict(use, utility.ratio >= UTILITY, f"{reached} (needed: {UTILITY:.0%})")


def _more_training_data(results: GeneratorResults) -> UseVerdict:
    ratio, low, high = results.utility.both_ratio
    reason = f"with it, recommenders reach {ratio:.3f} [{low:.3f}, {high:.3f}] times what real events alone give"
    return UseVerdict("more training data", low > 1 and ratio >= 1.05, f"{reason} (needed: 1.05, interval above 1)")


def _publication(results: GeneratorResults) -> UseVerdict:
    use, worst = "publication", max(results.attacks, key=lambda attack: attack.auc)
    sure = max(attack.tpr_at_1_percent for attack in results.attacks)
    if results.copies > results.held_out_copies + 0.001:
        return UseVerdict(use, False, f"{results.copies:.1%} are exact copies of users in training")
    if results.canaries_returned:
        return UseVerdict(use, False, f"{results.canaries_returned} planted users came back")
    attack = f"the strongest attack ({worst.attack}) reaches an AUC of {worst.auc:.3f}"
    exposed = f"{sure:.1%} of the users are found at 1% false alarms"
    passed = worst.auc <= ATTACK_AUC and sure <= ATTACK_RATE
    return UseVerdict(use, passed, f"{attack}, {exposed} (allowed: {ATTACK_AUC}, {ATTACK_RATE:.0%})")


def shapes_of(histories: Histories) -> dict[str, list[float]]:
    """Distributions for plots: lengths, gaps, hours, weekdays, and the share of events by popularity rank."""
    hours = histories.at // HOUR_MS
    same = np.diff(histories.users) == 0
    counts = np.sort(np.bincount(histories.items))[::-1].astype(np.float64)
    ranks = np.unique(np.geomspace(1, max(1, len(counts)), 40).astype(np.int64))
    return {
        "length": _histogram(np.minimum(histories.lengths, LONGEST_SHOWN), LONGEST_SHOWN + 1),
        "gap": _histogram(gap_classes(np.diff(histories.at)[same]), 32),
        "hour": _histogram(hours % 24, 24),
        "weekday": _histogram((hours // 24 + 3) % 7, 7),
        "popularity": (np.cumsum(counts)[ranks - 1] / max(1.0, counts.sum())).round(5).tolist(),
    }


def _histogram(values: Any, size: int) -> list[float]:
    counts = np.bincount(np.asarray(values, np.int64), minlength=size)[:size]
    shares: list[float] = (counts / max(1, counts.sum())).round(5).tolist()
    return shares


def page_of(report: SynthesisReport) -> ReportPage:
    """The report as a page: verdicts first."""
    parameters = [(results.name, msgspec.json.encode(results.params).decode()) for results in report.generators]
    title = f"Synthetic events of {report.source}"
    return ReportPage(title, facts(report), _plots(report), tables(report), parameters)


def facts(report: SynthesisReport) -> list[str]:
    """A sentence for each use, then what was compared with what."""
    judged = {results.name: verdicts(results, report.ceiling) for results in report.generators}
    uses = list(dict.fromkeys(verdict.use for row in judged.values() for verdict in row))
    size = f"{report.events:,} events, {report.users:,} users, {report.items:,} items; seed {report.seed}."
    how = f"{report.compared:,} held-out users are compared with as many synthetic ones."
    ceiling = "The ceiling is the same figure between two groups of real users."
    return [*(_sentence(use, judged) for use in uses), f"{size} {how} {ceiling}"]


def _sentence(use: str, judged: Mapping[str, Sequence[UseVerdict]]) -> str:
    passed = [name for name, row in judged.items() if any(verdict.use == use and verdict.passed for verdict in row)]
    if passed:
        return f"Good enough as {use}: {', '.join(passed)}."
    reasons = [f"{name} {verdict.reason}" for name, row in judged.items() for verdict in row if verdict.use == use]
    return f"Not good enough as {use}: {'; '.join(reasons)}."


def tables(report: SynthesisReport) -> list[ReportTable]:
    """Verdicts, fidelity, discriminators, utility, attacks, and times."""
    results, ceiling = report.generators, report.ceiling
    names = [generator.name for generator in results]
    judged = [
        [generator.name, verdict.use, "yes" if verdict.passed else "no", verdict.reason]
        for generator in results
        for verdict in verdicts(generator, ceiling)
    ]
    fidelity = [
        [aspect, number(value), *(_beside(generator.fidelity.get(aspect), value) for generator in results)]
        for aspect, value in ceiling.fidelity.items()
    ]
    apart = [
        ["features", number(ceiling.feature_auc), *(number(generator.feature_auc) for generator in results)],
        ["sequence", number(ceiling.sequence_auc), *(number(generator.sequence_auc) for generator in results)],
    ]
    return [
        ReportTable("Verdicts", ["synthesizer", "use", "good enough", "why"], judged),
        ReportTable("Fidelity: similarity, and its share of the ceiling", ["aspect", "ceiling", *names], fidelity),
        ReportTable("Discriminators: AUC, 0.5 is chance", ["discriminator", "ceiling", *names], apart),
        _utility_table(results),
        _privacy_table(results),
        _time_table(results),
    ]


def _beside(value: float | None, ceiling: float) -> str:
    return "" if value is None else f"{value:.4f} ({value / max(ceiling, 1e-12):.0%})"


def _utility_table(results: Sequence[GeneratorResults]) -> ReportTable:
    rows = [[generator.name, *_utility_cells(generator.utility)] for generator in results]
    head = ["synthesizer", "real", "synthetic", "share", "both", "both / real", "popularity"]
    return ReportTable("Utility: NDCG@10 on real users after training on ...", head, rows)


def _utility_cells(utility: Utility) -> list[str]:
    ratio, low, high = utility.both_ratio
    figures = [number(utility.real), number(utility.synthetic), f"{utility.ratio:.0%}", number(utility.both)]
    return [*figures, f"{ratio:.3f} [{low:.3f}, {high:.3f}]", number(utility.popularity)]


def _privacy_table(results: Sequence[GeneratorResults]) -> ReportTable:
    kinds = list(dict.fromkeys(attack.attack for generator in results for attack in generator.attacks))
    rows = []
    for generator in results:
        by_name = {attack.attack: attack for attack in generator.attacks}
        cells = [_attack_cell(by_name.get(kind)) for kind in kinds]
        copies = f"{generator.copies:.2%} ({generator.held_out_copies:.2%})"
        rows.append([generator.name, *cells, copies, str(generator.canaries_returned), number(generator.exposure)])
    head = ["synthesizer", *kinds, "copies (held out)", "canaries back", "exposure (bits)"]
    return ReportTable("Membership attacks: AUC (found at 1% false alarms)", head, rows)


def _attack_cell(attack: AttackResult | None) -> str:
    return f"{attack.auc:.3f} ({attack.tpr_at_1_percent:.1%})" if attack is not None else ""


def _time_table(results: Sequence[GeneratorResults]) -> ReportTable:
    rows = [[generator.name, *_time_cells(generator)] for generator in results]
    return ReportTable("Times and likelihood", ["synthesizer", "fit s", "users/s", "log-likelihood per event"], rows)


def _time_cells(results: GeneratorResults) -> list[str]:
    return [f"{results.fit_seconds:.1f}", f"{results.users_per_second:,.0f}", number(results.log_prob)]


def _plots(report: SynthesisReport) -> list[str]:
    shares = _aspect_plot(report)
    shapes = [_shape_plot(report, shape) for shape in report.shapes]
    curves = [_curve_plot(generator) for generator in report.generators if len(generator.curve) > 1]
    return [shares, *shapes, _roc_plot(report), *curves]


def _aspect_plot(report: SynthesisReport) -> str:
    aspects = list(report.ceiling.fidelity)
    figure, axes = canvas(0.3 * len(aspects) + 1.2, "Fidelity as a share of the ceiling")
    for generator, style in zip(report.generators, styles(), strict=False):
        shares = [generator.fidelity.get(name, 0.0) / max(report.ceiling.fidelity[name], 1e-12) for name in aspects]
        axes.plot(np.minimum(shares, 1.5), range(len(aspects)), label=generator.name, **{**style, "linestyle": ""})
    axes.axvline(1.0, color="#1c2430", linewidth=1)
    axes.set_yticks(range(len(aspects)), aspects)
    axes.invert_yaxis()
    axes.legend(fontsize=8, frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    return svg(figure)


def _shape_plot(report: SynthesisReport, shape: str) -> str:
    titles = {"gap": "gap between events (powers of two of seconds)", "popularity": "events of the most popular items"}
    figure, axes = canvas(2.6, f"Users by {titles.get(shape, shape)}")
    axes.plot(report.shapes[shape], color="#1c2430", linewidth=2.4, label="real")
    for generator, style in zip(report.generators, styles(), strict=False):
        axes.plot(generator.shapes[shape], label=generator.name, **{**style, "marker": ""})
    axes.legend(fontsize=8, frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    return svg(figure)


def _roc_plot(report: SynthesisReport) -> str:
    figure, axes = canvas(3.6, "Strongest membership attack: ROC curve")
    axes.plot([0, 1], [0, 1], color="#1c2430", linewidth=1, linestyle="--")
    for generator, style in zip(report.generators, styles(), strict=False):
        strongest = max(generator.attacks, key=lambda attack: attack.auc)
        x, y = zip(*strongest.curve, strict=True)
        axes.plot(x, y, label=f"{generator.name} ({strongest.attack})", **{**style, "marker": ""})
    axes.set_xlabel("false positives")
    axes.set_ylabel("true positives")
    axes.legend(fontsize=8, frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    return svg(figure)


def _curve_plot(results: GeneratorResults) -> str:
    figure, axes = canvas(2.8, f"{results.name}: figures of the fit")
    names = list(dict.fromkeys(name for figures in results.curve for name in figures))
    for name, style in zip(names, styles(), strict=False):
        axes.plot([figures.get(name, np.nan) for figures in results.curve], label=name, **{**style, "marker": ""})
    axes.set_xlabel("epoch")
    axes.legend(fontsize=8, frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    return svg(figure)
