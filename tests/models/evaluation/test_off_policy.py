"""`coldstream evaluate off-policy` on archived impressions: by hand, and against the truth of a simulated log."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from features.archive import Archive, ArchiveRow
from models.errors import ModelError
from models.rerank.exploration import explore
from serving.cli import app
from stream.errors import ColdstreamError
from stream.events import Event, Impression, Interaction

NOON = 1_760_000_000_000
MINUTE = 60_000
CLICK_RATE = {"kept": 0.3, "drawn": 0.1}


def archive(state: Path, events: list[Event]) -> None:
    kept = Archive(state / "archive")
    kept.append("events", [ArchiveRow(0, offset, NOON, event) for offset, event in enumerate(events)])
    kept.flush()


def run(state: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--state", str(state), "evaluate", "off-policy", *arguments])


def shown(request: str, items: list[str], propensities: object, user: str = "ann", **other: str) -> Impression:
    context = {} if propensities is None else {"propensities": json.dumps(propensities)}
    return Impression(f"shown-{request}", user, items, NOON, request_id=request, context=context, **other)  # type: ignore[arg-type]


def click(item: str, minutes: float = 1, user: str = "ann", request: str | None = None, kind: str = "click") -> Event:
    context = {} if request is None else {"request_id": request}
    event_id = f"{kind}-{item}-{minutes}-{request}"
    return Interaction(event_id, user, item, kind, NOON + round(minutes * MINUTE), context=context)  # type: ignore[arg-type]


def test_estimates_by_hand(tmp_path: Path) -> None:
    events = [
        click("b", -1),  # before the impression
        shown("r1", ["a", "b", "c"], [1.0, 0.75, 0.05]),  # b was kept, c drawn; share .25
        shown("r1", ["a", "b", "c"], [1.0, 0.75, 0.05]),  # sent twice
        shown("r2", ["a", "d", "e"], [1.0, 0.75, 0.75], user="bob"),
        shown("r3", ["b"], [0.1], user="eve"),  # nothing was kept: the share is that of all other lists
        shown("r4", ["a", "b"], None),
        shown("r5", ["a", "b"], [1.0]),  # one propensity for two items
        shown("r6", ["b"], [0.75], domain="news"),
        click("a"),  # its place does not explore
        click("b"),
        click("b", 2),  # the same place again
        click("c", 31),  # too late
        click("d", user="bob", request="r9"),  # of another list
        click("e", user="bob", kind="view"),  # no click
        click("b", user="eve"),
    ]
    archive(tmp_path, events)
    report = json.loads(run(tmp_path, "--explore", "0", "--explore", "0.5", "--json").stdout)
    policies = report.pop("policies")
    assert report == {
        "domain": "shop",
        "impressions": 5,
        "explored": 3,
        "places": 5,
        "clicks": 2,
        "malformed": 1,
        "unknown_share": 0,
    }
    assert [policy["share"] for policy in policies] == [None, 0.0, 0.5]
    # the places: b .75 clicked, c .05, d .75, e .75, b .1 clicked; kept are those of .75
    assert policies[0]["ips"] == policies[0]["snips"] == pytest.approx(2 / 5)
    assert policies[1]["ips"] == pytest.approx((1 / 0.75) / 5)
    assert policies[1]["snips"] == pytest.approx(1 / 3)
    assert policies[1]["effective"] == pytest.approx(3)
    weights = [0.5 / 0.75, 2, 0.5 / 0.75, 0.5 / 0.75, 2]  # a drawn item is twice as likely at twice the share
    assert policies[2]["ips"] == pytest.approx((weights[0] + weights[4]) / 5)
    assert policies[2]["snips"] == pytest.approx((weights[0] + weights[4]) / sum(weights))
    lines = run(tmp_path).stdout.splitlines()
    assert lines[0] == "shop: 3 of 5 impressions explored, with 5 exploring places and 2 clicks on them"
    assert lines[1].startswith("left out: 1 impressions with unreadable propensities")
    assert lines[-1].startswith("0 ")
    assert "0.3333 [" in lines[-1]
    hour = json.loads(run(tmp_path, "--within", "1h", "--json").stdout)
    assert hour["clicks"] == 3


def test_a_simulated_log_gives_the_rates_of_other_shares(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    events: list[Event] = []
    for number in range(3_000):
        user, items, propensities = f"u{number}", ["first"], [1.0]
        for place, draw in enumerate(explore([[1.0, 2.0]] * 4, False, 0.2, rng)):
            kind = "kept" if draw.place is None else "drawn"
            items.append(f"{kind}-{place}-{draw.place}")
            propensities.append(draw.propensity)
        events.append(shown(f"r{number}", items, propensities, user=user))
        events += [click(item, user=user) for item in items[1:] if rng.random() < CLICK_RATE[item.partition("-")[0]]]
    archive(tmp_path, events)
    report = json.loads(run(tmp_path, "--explore", "0", "--explore", "0.4", "--explore", "1", "--json").stdout)
    truth = {None: 0.26, 0.0: 0.3, 0.4: 0.22, 1.0: 0.1}
    for policy in report["policies"]:
        for estimator in ("ips", "snips"):
            low, high = policy[f"{estimator}_interval"]
            assert low < policy[estimator] < high
            margin = (high - low) / 2 / 1.96
            assert abs(policy[estimator] - truth[policy["share"]]) < 3 * margin, (policy["share"], estimator)
            assert margin < 0.02


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([], "none of 0 archived impressions explored"),
        ([shown("r", ["a", "b"], [1.0, 1.0]), click("b")], "none of 1 archived impressions explored"),
        ([shown("r", ["a", "b"], ["x"])], r"\(1 with unreadable propensities\): ask for recommendations with explore="),
    ],
)
def test_a_log_without_exploration_is_an_error_that_names_the_fix(
    tmp_path: Path, events: list[Event], message: str
) -> None:
    archive(tmp_path, events)
    failed = run(tmp_path)
    assert isinstance(failed.exception, ModelError)
    with pytest.raises(ModelError, match=message):
        raise failed.exception


def test_shares_and_times_are_checked(tmp_path: Path) -> None:
    archive(tmp_path, [shown("r", ["a", "b"], [1.0, 0.9])])
    assert "give an exploration share between 0 and 1" in str(run(tmp_path, "--explore", "1.5").exception)
    assert isinstance(run(tmp_path, "--within", "soon").exception, ColdstreamError | ValueError)


def test_lists_of_unknown_exploration_share_are_left_out(tmp_path: Path) -> None:
    lists = [([0.9, 0.02], "r1"), ([0.8, 0.8], "r2"), ([0.1, 0.1], "r3")]
    archive(tmp_path, [shown(request, ["a", "b"], propensities) for propensities, request in lists])
    report = json.loads(run(tmp_path, "--json").stdout)
    assert (report["explored"], report["places"], report["unknown_share"]) == (3, 4, 1)
