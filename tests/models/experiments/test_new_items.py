"""New items: nothing of hidden items is learned; text that decides passes, text that is noise does not."""

from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

from features.catalogue import CatalogueEntry
from models.data.item_features import ItemFeatures
from models.errors import TrainingError
from models.evaluation.report_page import html_page
from models.experiments.new_items import CurvePoint, NewItems, at_loss, judge_arms, prices, sentences_of, values_of
from models.experiments.new_items_arms import ARMS, RIDGE, ArmInputs, Questions, base_of, ndcg_of_list, part_columns
from models.experiments.new_items_lists import (
    ItemLists,
    ListBuilder,
    NewItemsResults,
    among_new,
    mixed,
    reach_of,
    with_slots,
)
from models.experiments.new_items_report import new_items_report, page_of, text_of
from models.experiments.new_items_split import HidingPlan, NewItemsFolds, check_planted
from models.experiments.run import Unit
from models.recommenders.new_item_columns import ContentFeatures
from models.recommenders.new_item_scorer import NewItemScorer
from models.recommenders.top_k import top_k

TASTES, SYNONYMS, ITEMS, NOISE = 6, 6, 40, 40


def shop(*, noise: bool, users: int = 300, seed: int = 0) -> tuple[pd.DataFrame, ItemFeatures]:
    """Users of one taste each. A title has one of the taste's six words, which only users tell to be synonyms, and two
    words that say nothing; with `noise` titles are exchanged at random."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 6)) for _ in range(TASTES * SYNONYMS + NOISE)]
    titles = {}
    for taste in range(TASTES):
        for number in range(ITEMS):
            others = [words[TASTES * SYNONYMS + place] for place in rng.permutation(NOISE)[:2]]
            titles[f"i{taste}-{number:02d}"] = " ".join([words[taste * SYNONYMS + number % SYNONYMS], *others])
    if noise:
        titles = dict(zip(titles, rng.permutation(list(titles.values())).tolist(), strict=True))
    rows = []
    for user in range(users):
        own = rng.permutation(ITEMS)[:10]
        rows += [(f"u{user}", f"i{user % TASTES}-{item:02d}", "purchase", place) for place, item in enumerate(own)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "at"]).sort_values("at", kind="stable")
    entries = [CatalogueEntry(item_id=item, at=0, title=title) for item, title in titles.items()]
    return frame, ItemFeatures.from_items(entries, 0)


@pytest.fixture(scope="module")
def planted() -> NewItemsResults:
    frame, features = shop(noise=False)
    return NewItems(frame, features, HidingPlan(), predictions=True).results_of(Unit(0, 0))


def test_each_item_is_hidden_once_and_never_learned() -> None:
    frame, features = shop(noise=False)
    folds = NewItemsFolds(frame, features)
    hidden = [item for number in range(5) for item in folds.hidden_in(number)]
    assert sorted(hidden) == folds.items
    fold = folds.fold(1)
    check_planted(folds, fold)
    assert not set(fold.test.rows["item_id"]) & folds.hidden_in(1)
    assert not set(fold.tuning.training.vocabulary.item_ids) & folds.hidden_in(1)
    assert not set(fold.tuning.rows["item_id"]) & fold.tuning.hidden
    for question in fold.test.questions:  # ten events each: the newest two are asked
        own = frame[frame["user_id"] == question.user_id]["item_id"].tolist()
        assert question.history.items == [item for item in own[:8] if item not in fold.test.hidden]
        assert {*question.new, *question.warm} == set(own[8:])


def test_the_planted_check_notices_what_learns_from_hidden_items(monkeypatch: pytest.MonkeyPatch) -> None:
    folds = NewItemsFolds(*shop(noise=False))
    fold = folds.fold(0)
    others = frozenset(sorted(fold.test.hidden)[1:])
    monkeypatch.setattr(folds, "hidden_in", lambda _number: others)
    with pytest.raises(AssertionError):
        check_planted(folds, fold)


def test_without_text_there_is_nothing_to_learn_from() -> None:
    frame, features = shop(noise=False)
    with pytest.raises(TrainingError, match="nothing to learn from; give a catalogue"):
        NewItemsFolds(frame, ItemFeatures(features.item_ids))


def test_text_that_decides_passes(planted: NewItemsResults) -> None:
    values = values_of([planted])
    rng = np.random.default_rng(0)
    verdicts = judge_arms(values, rng)
    assert any(verdict.passed for verdict in verdicts)
    assert set(values.arms) == set(ARMS)
    lines = sentences_of(verdicts, prices(values, rng))
    assert any(line.startswith("Rank new items by sum") for line in lines)
    assert "1 of 10 places cost known items" in lines[-1]


def test_text_that_is_noise_does_not() -> None:
    frame, features = shop(noise=True)
    values = values_of([NewItems(frame, features, HidingPlan()).results_of(Unit(0, 0))])
    rng = np.random.default_rng(0)
    lines = sentences_of(judge_arms(values, rng), prices(values, rng))
    assert lines[0].startswith("Do not rank new items by more than their content")


def test_results_come_back_from_a_folder(planted: NewItemsResults, tmp_path: Path) -> None:
    planted.write(tmp_path)
    again = NewItemsResults.read(tmp_path)
    assert again.users == planted.users
    assert again.facts["shares"] == planted.facts["shares"]
    for arm in ARMS:
        assert np.array_equal(again.new[arm].hits, planted.new[arm].hits)
    kept = pd.read_parquet(tmp_path / "predictions.parquet")
    first = kept[(kept["arm"] == "sum") & (kept["user_id"] == planted.users[0])]
    assert first["rank"].tolist() == list(range(1, 21))


def test_the_report_says_the_verdict_first(planted: NewItemsResults) -> None:
    facts = {"events": 1, "users": 2, "items": 3, "units": ["a"], "missing": ["b"]}
    report = new_items_report(values_of([planted]), 0, source="shop", **facts)
    html = html_page(page_of(report))
    assert html.count("<svg") == 2
    assert text_of(report).startswith(report.verdict[0])
    curve = report.curves["opponent-blend"]
    assert curve[0].warm == 1.0
    assert curve[0].reach == 0.0
    assert curve[-1].reach > curve[3].reach
    assert [point.warm for point in report.at_price["sum"]] == pytest.approx([0.99, 0.98, 0.95])


def test_lists_by_hand() -> None:
    known = ItemLists(np.zeros((1, 20), np.bool_), np.linspace(1, 0.05, 20, dtype=np.float32)[None])
    known.hits[0, 9] = True
    new = ItemLists(np.zeros((1, 20), np.bool_), np.full((1, 20), 0.5, np.float32))
    new.hits[0, 0] = True
    counts = np.array([1], np.int64)
    assert among_new(new, counts)[0].tolist() == [1.0]
    alone = reach_of(mixed(known, new, 0.0), counts, counts)
    assert (alone.new_ndcg[0], alone.new_share[0]) == (0.0, 0.0)
    assert alone.warm_ndcg[0] == pytest.approx(1 / np.log2(11))
    slot = reach_of(with_slots(known, new, 1), counts, counts)
    assert slot.warm_ndcg[0] == 0.0
    assert slot.new_ndcg[0] == pytest.approx(1 / np.log2(11))
    assert slot.new_share[0] == pytest.approx(0.1)
    assert np.isnan(reach_of(with_slots(known, new, 2), np.zeros(1, np.int64), counts).new_ndcg[0])


def test_ndcg_of_a_list_by_hand() -> None:
    items = np.array([5, 3, 8])
    assert ndcg_of_list(items, [3]) == pytest.approx(1 / np.log2(3))
    assert ndcg_of_list(items, [5, 8]) == pytest.approx((1 + 0.5) / (1 + 1 / np.log2(3)))


def test_between_points_of_the_curve() -> None:
    points = [CurvePoint(0.0, 0.0, 0.0, 0.0, 1.0), CurvePoint(0.2, 0.1, 0.04, 0.08, 0.96)]
    assert msgspec.structs.astuple(at_loss(points, 0.01)) == pytest.approx((0.05, 0.025, 0.01, 0.02, 0.99))


def test_full_lists_are_those_of_a_scorer_of_the_full_catalogue() -> None:
    frame, features = shop(noise=False, users=100)
    holdout = NewItemsFolds(frame, features).fold(0).test
    inputs = ArmInputs(holdout.training, ContentFeatures.fit(holdout.training), 50.0, 0)
    base, questions = base_of(inputs, 0.9), Questions(holdout, holdout.questions, 50)
    columns = part_columns(RIDGE, inputs, {"reg": 1.0})
    builder = ListBuilder(questions, base, holdout.training.vocabulary.item_ids, predictions=False)
    builder.add(RIDGE, columns, 0.9)
    results = builder.results({})
    scores = NewItemScorer(RIDGE, base, columns, decay=0.9, share=0.4).score(questions.batch)
    for row, seen in enumerate(questions.seen):
        scores[row, list(seen)] = -np.inf
    lists = mixed(results.known, results.new[RIDGE], 0.4)
    best = top_k(scores, 10)[0]
    assert np.array_equal(lists.is_new, best >= holdout.known)
    assert 0 < lists.is_new.mean() < 1
    new_hits = [
        np.isin(row, [holdout.known + target for target in targets])
        for row, targets in zip(best, questions.new, strict=True)
    ]
    assert np.array_equal(lists.new_hits > 0, np.array(new_hits))
