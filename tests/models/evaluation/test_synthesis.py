"""The report on synthesizers: figures in their ranges, verdicts that follow from them, pages that show them."""

from typing import Any

import msgspec
import pytest

from models.errors import TrainingError
from models.evaluation.report_page import html_page, markdown_page
from models.evaluation.synthesis import SynthesisPlan, evaluate_synthesizers, first_events
from models.evaluation.synthesis_report import (
    Ceiling,
    GeneratorResults,
    SynthesisReport,
    failed_aspects,
    page_of,
    verdicts,
)
from models.evaluation.utility import Utility
from models.privacy.canaries import histories_of
from models.privacy.membership import AttackResult
from testing.interactions import ring

START = 1_700_000_000_000


@pytest.fixture(scope="module")
def report() -> SynthesisReport:
    frame = ring(200, 8)
    plan = SynthesisPlan(generators={"markov": {"window": 2}}, users=40, epochs=0, canaries=3)
    return evaluate_synthesizers(frame.assign(at=frame["at"] + START), plan, "ring", lambda *_: None)


def test_a_chain_on_a_ring_is_as_close_as_real_users_are(report: SynthesisReport) -> None:
    results = report.generators[0]
    assert [generator.name for generator in report.generators] == ["markov"]
    assert results.params["window"] == 2
    assert results.fidelity["items"] > 0.8
    assert results.fidelity["transitions"] > 0.6
    assert 0 <= results.feature_auc <= 1
    assert results.log_prob is not None
    assert -3 < results.log_prob < 0
    assert results.canaries_returned == 0
    assert results.utility.synthetic > 1.2 * results.utility.popularity
    assert results.utility.ratio > 0.8


def test_what_is_reported_is_shown_on_the_pages(report: SynthesisReport) -> None:
    page = page_of(report)
    text, html = markdown_page(page), html_page(page)
    for expected in ("publication", "markov", "likelihood-ratio", "Fidelity", "sequence"):
        assert expected in text
        assert expected in html
    assert html.count("<svg") >= 6
    assert msgspec.json.decode(msgspec.json.encode(report), type=SynthesisReport).users == 201


def test_too_few_users_are_refused() -> None:
    with pytest.raises(TrainingError, match="21 users are too few"):
        evaluate_synthesizers(ring(20, 3), SynthesisPlan(generators={}), "few", lambda *_: None)


def test_only_the_first_events_are_kept() -> None:
    kept = first_events(histories_of([[1, 2, 3], [4], [5, 6]]), 2)
    assert kept.items.tolist() == [1, 2, 4, 5, 6]
    assert kept.starts.tolist() == [0, 2, 3, 5]


CEILING = Ceiling({"items": 0.9, "lengths": 0.9, "coverage": 0.9}, 0.5, 0.5)
GOOD: dict[str, Any] = {
    "name": "good",
    "params": {},
    "fit_seconds": 1.0,
    "users_per_second": 1.0,
    "fidelity": {"items": 0.87, "lengths": 0.82, "coverage": 0.75},
    "feature_auc": 0.55,
    "sequence_auc": None,
    "log_prob": None,
    "utility": Utility(0.1, 0.095, 0.11, 0.02, (1.1, 1.05, 1.2)),
    "attacks": [AttackResult("nearest-neighbor", 0.52, 0.011)],
    "copies": 0.0,
    "held_out_copies": 0.0,
    "canaries_returned": 0,
    "exposure": None,
    "curve": [],
    "shapes": {},
}


def passed(**changes: Any) -> list[str]:
    """The uses that pass with the given changes to a generator that passes everything."""
    return [verdict.use for verdict in verdicts(GeneratorResults(**{**GOOD, **changes}), CEILING) if verdict.passed]


EVERY = ["test data", "training without real events", "more training data", "publication"]


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        ({}, []),
        ({"fidelity": {**GOOD["fidelity"], "items": 0.85}}, ["test data"]),
        ({"fidelity": {**GOOD["fidelity"], "lengths": 0.80}}, ["test data"]),
        ({"fidelity": {**GOOD["fidelity"], "coverage": 0.70}}, ["test data"]),
        ({"feature_auc": 0.61}, ["test data"]),
        ({"sequence_auc": 0.61}, ["test data"]),
        ({"utility": Utility(0.1, 0.08, 0.11, 0.02, (1.1, 1.05, 1.2))}, ["training without real events"]),
        ({"utility": Utility(0.1, 0.095, 0.11, 0.096, (1.1, 1.05, 1.2))}, ["training without real events"]),
        ({"utility": Utility(0.1, 0.095, 0.11, 0.02, (1.1, 0.99, 1.2))}, ["more training data"]),
        ({"utility": Utility(0.1, 0.095, 0.11, 0.02, (1.04, 1.02, 1.2))}, ["more training data"]),
        ({"attacks": [AttackResult("density-ratio", 0.56, 0.01)]}, ["publication"]),
        ({"attacks": [AttackResult("density-ratio", 0.52, 0.03)]}, ["publication"]),
        ({"copies": 0.01}, ["publication"]),
        ({"canaries_returned": 1}, ["publication"]),
    ],
)
def test_a_verdict_falls_with_its_figure(changes: dict[str, Any], lost: list[str]) -> None:
    assert passed(**changes) == [use for use in EVERY if use not in lost]


def test_aspects_without_a_ceiling_are_not_judged() -> None:
    results = GeneratorResults(**{**GOOD, "fidelity": {"items": 0.1}})
    assert failed_aspects(results, Ceiling({"items": 0.9}, 0.5, None)) == ["items"]
