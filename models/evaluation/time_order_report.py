"""The report of a progressive evaluation: a text table, and a page."""

import msgspec

from models.evaluation.report_page import ReportPage, ReportTable, canvas, number, styles, svg
from models.evaluation.time_order import BLEND, NO_CLOCK, GroupFigures


class ProgressiveReport(msgspec.Struct, frozen=True):
    """A progressive evaluation. `groups`: figures by number of known events, of the next event."""

    source: str
    events: int
    users: int
    items: int
    questions: int
    trainings: int
    retrain_every: str
    masked: str
    seed: int
    arms: list[str]
    groups: list[GroupFigures]
    notes: list[str] = []
    created_at: int = 0


def text_table(report: ProgressiveReport) -> str:
    """The report as a text table: NDCG@10 of the next event by number of known events."""
    lines = [
        (
            f"{report.questions:,} events asked in the order of time, {report.trainings} trainings, one every "
            f"{report.retrain_every}; NDCG@10 of the next event"
        ),
        f"{'':<30}" + "".join(f"{f'k={group.known}':>9}" for group in report.groups),
    ]
    lines += [f"{arm:<30}" + "".join(f"{number(group.ndcg[arm]):>9}" for group in report.groups) for arm in report.arms]
    lines.append("")
    for group in report.groups:
        lines.append(
            f"k={group.known}: blend {_ratio(group.clock_gain)} times the blend without live popularity, "
            f"{_ratio(group.to_best_single)} times {group.best_single}; "
            f"{group.questions:,} events, {group.users:,} users"
        )
    return "\n".join(lines)


def page(report: ProgressiveReport) -> ReportPage:
    """The report as a page of sentences, a plot and tables."""
    size = f"{report.events:,} events, {report.users:,} users, {report.items:,} items."
    how = (
        f"{report.questions:,} events were asked in the order of time, each before it was applied; {report.trainings} "
        f"trainings, one every {report.retrain_every}. {report.masked}. Seed {report.seed}, full catalogue; 95% "
        "intervals over users."
    )
    head = ["", *(f"k = {group.known}" for group in report.groups)]
    rows = [[arm, *(_cell(group, arm) for group in report.groups)] for arm in report.arms]
    ratios = [
        ["blend to blend without live popularity", *(_ratio(group.clock_gain) for group in report.groups)],
        ["blend to best single", *(_ratio(group.to_best_single) for group in report.groups)],
        ["best single", *(group.best_single for group in report.groups)],
        ["events", *(f"{group.questions:,}" for group in report.groups)],
        ["users", *(f"{group.users:,}" for group in report.groups)],
    ]
    tables = [ReportTable("NDCG@10 of the next event", head, rows), ReportTable("Ratios", head, ratios)]
    return ReportPage(
        f"{report.source} in the order of time", [f"{size} {how}", *report.notes], [_plot(report)], tables
    )


def _plot(report: ProgressiveReport) -> str:
    figure, axes = canvas(3.8, "NDCG@10 of the next event")
    shown = [arm for arm in report.arms if arm in {BLEND, NO_CLOCK} or arm in {g.best_single for g in report.groups}]
    for arm, style in zip(shown, styles(), strict=False):
        axes.plot(
            [group.known for group in report.groups], [group.ndcg[arm] for group in report.groups], label=arm, **style
        )
    axes.set_xlabel("events known")
    axes.legend(fontsize=8, frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    return svg(figure)


def _cell(group: GroupFigures, arm: str) -> str:
    low, high = group.intervals[arm]
    return f"{number(group.ndcg[arm])} [{number(low)}, {number(high)}]"


def _ratio(values: tuple[float, float, float]) -> str:
    return "{:.3f} [{:.3f}, {:.3f}]".format(*values)
