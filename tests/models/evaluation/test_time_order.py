"""Progressive evaluation on a small log: what is known, what is asked, and that nothing later is read."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from models.data.splits import SplitProtocol
from models.errors import TrainingError
from models.evaluation.experiment import ExperimentPlan
from models.evaluation.time_order import BLEND, MISSED, NO_CLOCK, Period, TimeOrder, TimeOrderPlan, figures_of, ndcg
from models.evaluation.time_order_report import ProgressiveReport, page, text_table

DAY = 24 * 60 * 60 * 1000
START = 1_700_000_000_000
PLAN = TimeOrderPlan(
    members=("item-knn", "popularity", "live-1d"),
    retrain_ms=10 * DAY,
    training=ExperimentPlan(SplitProtocol("last-share", 0.1), trials=1, most=100, mask_seen=True),
)


def log_of_days() -> pd.DataFrame:
    """Forty days: whoever comes takes the item of the day (ten take turns), and something of a group of its own."""
    rng = np.random.default_rng(0)
    rows = []
    for day in range(40):
        for visitor in range(8):
            user, at = f"u{day // 4}-{visitor}", START + day * DAY + visitor * 60_000
            rows.append((user, f"day{day % 10}", "view", at))
            rows.append((user, f"g{visitor % 4}-{rng.integers(5)}", "view", at + DAY // 2))
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "at"])
    return frame.sort_values("at", kind="stable").reset_index(drop=True)


def test_each_event_is_asked_once_with_what_came_before_it() -> None:
    order = TimeOrder(log_of_days(), PLAN)
    assert (order.times[order.rows] >= order.start).all()
    assert len(order.rows) == int((order.times >= order.start).sum())
    known = dict(zip(order.rows.tolist(), order.known(order.rows).tolist(), strict=True))
    for row in order.rows.tolist()[:20]:
        earlier = (order.users == order.users[row]) & (order.times < order.times[row])
        assert known[row] == int(earlier.sum())
    few = TimeOrder(log_of_days(), PLAN.__class__(**{**_fields(PLAN), "most_users": 5}))
    assert len(np.unique(few.users[few.rows])) == 5


def test_live_popularity_finds_the_item_of_the_day(tmp_path: Path) -> None:
    order = TimeOrder(log_of_days(), PLAN)
    periods = list(order.periods(tmp_path))
    assert [period.start for period in periods] == order.starts
    ranks = np.concatenate([period.ranks for period in periods])
    assert ranks.shape == (len(order.rows), len(order.arms))
    figures = figures_of(periods, order.arms, 0)
    assert sum(group.questions for group in figures) == len(order.rows)
    by_known = {group.known: group for group in figures}
    assert by_known["0"].ndcg["live-1d"] > 1.5 * by_known["0"].ndcg["item-knn"]
    assert by_known["0"].ndcg[BLEND] > by_known["0"].ndcg[NO_CLOCK]
    changed = log_of_days()
    last = changed["at"] >= periods[-1].start
    changed.loc[last, "item_id"] = "other"
    again = list(TimeOrder(changed, PLAN).periods())
    assert np.array_equal(again[0].ranks, periods[0].ranks)  # the future changes nothing
    kept = list(order.periods(tmp_path))  # read again
    assert all(np.array_equal(old.ranks, new.ranks) for old, new in zip(periods, kept, strict=True))


def test_figures_are_means_over_questions_and_the_report_shows_them() -> None:
    ranks = np.array([[0, 1, 0], [MISSED, 0, 0], [2, MISSED, 1]])
    period = Period(START, np.array([0, 1, 1]), np.array([0, 0, 25]), ranks)
    arms = ["live-1d", NO_CLOCK, BLEND]
    first, last = figures_of([period], arms, 0)
    assert (first.known, first.questions, first.users, last.known) == ("0", 2, 2, "20+")
    assert first.ndcg == pytest.approx({"live-1d": 0.5, NO_CLOCK: (1 / np.log2(3) + 1) / 2, BLEND: 1.0})
    assert last.ndcg["live-1d"] == pytest.approx(0.5)
    assert ndcg(np.array([9, 10])).tolist() == pytest.approx([1 / np.log2(11), 0.0])
    report = ProgressiveReport("toy", 3, 2, 9, 3, 1, "7d", "Items of the history are masked", 0, arms, [first, last])
    assert "k=20+" in text_table(report)
    assert [table.title for table in page(report).tables] == ["NDCG@10 of the next event", "Ratios"]


def test_a_log_without_users_is_an_error() -> None:
    with pytest.raises(TrainingError):
        list(TimeOrder(log_of_days().iloc[:3], PLAN).periods())


def _fields(plan: TimeOrderPlan) -> dict[str, object]:
    return {name: getattr(plan, name) for name in plan.__struct_fields__}
