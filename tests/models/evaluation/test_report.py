"""The report: every figure in it, nothing that asks for the network, nothing that a name could break."""

import json
from pathlib import Path

from models.evaluation.metrics import Segment
from models.evaluation.report import EvaluationReport, RecommenderResults, html, markdown, write


def example_report() -> EvaluationReport:
    metrics = {"ndcg@10": 0.1234, "hr@10": 0.3, "mrr@10": 0.2, "recall@10": 0.25, "auc": float("nan"), "gini@10": 0.9}
    parts = [
        Segment("history length", "1-2", 7, {"ndcg@10": 0.05}),
        Segment("history length", "3-5", 9, {"ndcg@10": 0.2}),
    ]
    curve = [{"epoch": 0.0, "loss": 3.0, "ndcg@10": 0.1}, {"epoch": 1.0, "loss": 2.0, "ndcg@10": 0.12}]
    first = RecommenderResults(
        "<b>dnn</b>", {"blocks": 2}, metrics, {"ndcg@10": (0.1, 0.15)}, parts, curve, 0.11, 3, 12.0
    )
    second = RecommenderResults("item-knn", {}, {**metrics, "ndcg@10": 0.2}, {"ndcg@10": (0.18, 0.22)}, parts)
    return EvaluationReport("a|b", 1_000, 10, 20, 16, "leave-one-out", 0, True, "item-knn", [first, second], ["a note"])


def test_the_best_comes_first_with_its_interval() -> None:
    lines = markdown(example_report()).splitlines()
    rows = [line for line in lines if line.startswith(("| item-knn |", "| <b>dnn</b> |"))]
    assert rows[0].startswith("| item-knn | 0.2000 [0.1800, 0.2200] |")
    assert rows[1].startswith("| <b>dnn</b> | 0.1234 [0.1000, 0.1500] |")
    assert "| recommender | 1-2 (7) | 3-5 (9) |" in lines
    assert any("cannot be recommended again. Chosen on the tuning cases: item-knn." in line for line in lines)
    assert "nan" not in markdown(example_report())


def test_the_page_is_self_contained_and_escapes_names() -> None:
    page = html(example_report())
    assert page.count("<svg") == 3  # bars, by length, learning curves
    assert "<b>dnn</b>" not in page
    assert "&lt;b&gt;dnn&lt;/b&gt;" in page
    for external in ("src=", "<script", "@import", "<link"):
        assert external not in page


def test_report_files_are_complete(tmp_path: Path) -> None:
    paths = write(example_report(), tmp_path / "new")
    assert [path.name for path in paths] == ["report.md", "report.html", "report.json"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in paths)
    content = json.loads(paths[2].read_text())
    assert content["figures"][1]["metrics"]["ndcg@10"] == 0.2
    assert content["figures"][0]["metrics"]["auc"] is None
