"""Challengers before the gate, with real releases on disk: which releases may replace which, and why others may not."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from features import cache
from features.archive import Archive, ArchiveRow
from models.data.batch import batch_histories
from models.data.interactions import Interactions
from models.evaluation import metrics
from models.recommenders.item_knn import ItemKNN
from models.releases import release_store
from models.releases.gate import GateReport, GateThresholds
from models.releases.manifest import Manifest, read_manifest
from models.releases.release_store import KEPT_RELEASES
from models.training import champion_challenger, drift
from models.training.run import TrainingRun
from stream.events import Interaction
from testing import training

NOON = 1_760_000_000_000
MINUTE = 60_000
CLUB = 40
"""Half of the users take items 0 to 39, the others 40 to 79; everyone begins anew, so histories are short."""


def write(folder: Path, first: int, events: int) -> None:
    rng = np.random.default_rng(first)
    kept = Archive(folder)
    rows = []
    for n in range(first, first + events):
        user = int(rng.integers(200))
        item = CLUB * (user % 2) + min(int(rng.geometric(0.08)) - 1, CLUB - 1)
        event = Interaction(f"e{n}", f"u{user}", f"i{item}", "view", NOON + MINUTE * n)
        rows.append(ArchiveRow(0, n, NOON, event))
    kept.append("events", rows)
    kept.flush()


@pytest.fixture
def run(tmp_path: Path) -> TrainingRun:
    write(tmp_path / "archive", 0, 2_000)
    return TrainingRun(
        tmp_path / "archive", tmp_path / "releases", "shop", "counts", cache=tmp_path / "cache", refresh_ms=0
    )


def serve_first(run: TrainingRun) -> Manifest:
    first = training.item_knn(run)
    assert training.decide(run, [first]).serving == first.manifest.id
    return read_manifest(run.root / "shop" / first.manifest.id)


def verdict_of(run: TrainingRun, release: str) -> GateReport:
    report = read_manifest(run.root / "shop" / release).gate
    assert report is not None
    return report


def test_the_first_release_needs_no_champion_and_an_equal_one_does_not_replace_it(run: TrainingRun) -> None:
    first = serve_first(run)
    assert first.gate is not None
    assert (first.gate.champion, first.gate.comparison, first.gate.passed) == (None, "nothing serves yet", True)
    again = training.item_knn(run)
    result = training.decide(run, [again])
    assert result.serving == release_store.current_id(run.root, "shop") == first.id
    assert result.refused == {again.manifest.id: ["not-better"]}
    assert "is refused: not-better: NDCG@10" in result.reason
    releases = {release.id: release for release in release_store.list_releases(run.root, "shop")}
    assert (releases[again.manifest.id].state, releases[again.manifest.id].reason) == ("refused", "not-better")
    assert (releases[first.id].state, releases[first.id].judged) == ("serving", True)
    kept = json.loads((run.root / "shop" / again.manifest.id / "refused.json").read_text())
    assert kept["reason"] == "not-better"
    verdict = verdict_of(run, again.manifest.id)
    assert (verdict.champion, verdict.comparison) == (first.id, "as of the cut")
    assert [check.bound for check in verdict.checks if check.name == "coverage"] == [0.1]  # of counts, not half
    assert training.decide(run, [training.item_knn(run)]).serving == first.id  # and so it stays


def test_required_coverage_is_half_of_a_tuned_champion_and_a_tenth_of_item_knn(run: TrainingRun) -> None:
    counts = serve_first(run)
    tuned = msgspec.structs.replace(counts, recommender="ease")
    assert champion_challenger.thresholds_against(tuned, GateThresholds()).coverage == 0.5
    assert champion_challenger.thresholds_against(counts, GateThresholds()).coverage == 0.1
    assert champion_challenger.thresholds_against(counts, GateThresholds(coverage=0.05)).coverage == 0.05


def test_an_old_champion_is_evaluated_as_it_serves_and_an_equal_challenger_may_replace_it(run: TrainingRun) -> None:
    first = serve_first(run)
    write(run.archive, 2_000, 600)
    fresh = training.item_knn(run)
    assert fresh.held_out_from > first.cutoff_at
    still = msgspec.structs.replace(run, refresh_ms=600 * MINUTE + 1)
    training.decide(still, [fresh])
    assert verdict_of(run, fresh.manifest.id).comparison == "as it serves"
    result = training.decide(msgspec.structs.replace(run, refresh_ms=600 * MINUTE), [fresh])
    verdict = verdict_of(run, fresh.manifest.id)
    (check,) = [check for check in verdict.checks if check.name == "not-better"]
    assert check.bound == -0.03
    assert verdict.comparison == "as it serves; its data are old enough that an equal release may replace it"
    assert (result.serving == fresh.manifest.id) == check.passed == (check.value > -0.03)


def test_a_champion_gains_nothing_from_having_seen_the_holdout(run: TrainingRun) -> None:
    first = serve_first(run)
    candidate = training.item_knn(run)
    numbers = {item: n for n, item in enumerate(candidate.vocabulary.item_ids)}
    release = release_store.load(run.root / "shop" / first.id)
    for item in release.item_ids:
        numbers.setdefault(item, len(numbers))
    leaking = champion_challenger.holdout_answers(
        release.recommender, candidate.cases, numbers, history_length=50, mask_seen=False
    )
    recommender, how = champion_challenger.as_of(release, candidate.before, candidate.held_out_from)
    honest = champion_challenger.holdout_answers(
        recommender, candidate.cases, numbers, history_length=50, mask_seen=False
    )
    assert how == "as of the cut"
    blind = ItemKNN()
    blind.fit(Interactions.from_frame(candidate.before, release.vocabulary))
    batch = batch_histories([case.history for case in candidate.cases], blind.vocabulary, 50)
    ranked = metrics.rank(lambda a, b: blind.score(batch.slice(a, b)), blind.vocabulary, candidate.cases, 10)
    expected = metrics.per_user(ranked, blind.vocabulary, candidate.cases, (10,))["ndcg@10"]
    np.testing.assert_allclose(honest.ndcg, expected)
    assert leaking.ndcg.mean() > honest.ndcg.mean()


def vouched(folder: Path, name: str, array: np.ndarray) -> None:
    """Another array in a release, and a manifest that vouches for it."""
    np.save(folder / name, array)
    manifest = json.loads((folder / "manifest.json").read_text())
    described = release_store._described(folder / name)
    manifest["files"][name] = {"sha256": described.sha256, "bytes": described.bytes}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_release_with_shuffled_neighbors_is_refused_despite_good_metrics(run: TrainingRun) -> None:
    challenger = training.item_knn(run)
    folder = run.root / "shop" / challenger.manifest.id
    items = json.loads((folder / "items.json").read_text())
    places = {item: n for n, item in enumerate(items)}
    other = [places.get(f"i{(int(item[1:]) + CLUB) % (2 * CLUB)}", 0) for item in items]  # of the other club
    for name in ("neighbors.npy", "similarities.npy"):
        vouched(folder, name, np.load(folder / name)[other])
    spoilt = msgspec.structs.replace(challenger, manifest=read_manifest(folder))
    result = training.decide(run, [spoilt])
    assert result.serving is None
    assert result.refused == {challenger.manifest.id: ["not-personalized"]}


def test_a_damaged_challenger_is_refused_and_a_damaged_champion_is_replaced(run: TrainingRun) -> None:
    first, second = serve_first(run), training.item_knn(run)
    (run.root / "shop" / second.manifest.id / "neighbors.npy").write_bytes(b"broken")
    assert training.decide(run, [second]).refused == {second.manifest.id: ["hash-mismatch"]}
    (run.root / "shop" / first.id / "neighbors.npy").unlink()
    third = training.item_knn(run)
    assert training.decide(run, [third]).serving == third.manifest.id
    assert verdict_of(run, third.manifest.id).comparison == "the serving release cannot be loaded: missing-file"


def test_old_refused_releases_are_deleted(run: TrainingRun) -> None:
    first = serve_first(run)
    for _ in range(KEPT_RELEASES + 1):
        challenger = training.item_knn(run)
        training.decide(run, [challenger])
    left = [info.id for info in release_store.list_releases(run.root, "shop")]
    assert len(left) == KEPT_RELEASES + 1  # the newest, and the serving one
    assert left[-1] == first.id
    assert left[0] == challenger.manifest.id


def test_a_manual_promotion_clears_the_refusal(run: TrainingRun) -> None:
    serve_first(run)
    again = training.item_knn(run)
    training.decide(run, [again])
    release_store.promote(run.root, "shop", again.manifest.id)
    (listed,) = [info for info in release_store.list_releases(run.root, "shop") if info.id == again.manifest.id]
    assert (listed.state, listed.reason) == ("serving", None)


def test_a_run_reads_only_new_events_and_saves_the_drift_reference(run: TrainingRun) -> None:
    first = serve_first(run)
    folder = run.root / "shop" / first.id
    assert list(first.extras) == [drift.REFERENCE]
    assert drift.REFERENCE not in first.files
    reference = msgspec.json.decode(release_store.read_extra(folder, first, drift.REFERENCE), type=drift.DriftReference)
    assert (reference.events, reference.until_at) == (200, first.cutoff_at)
    assert run.cache is not None
    assert cache.interactions(run.archive, "shop", run.cache)[1].opened == []
    (folder / drift.REFERENCE).write_bytes(b"{}")
    with pytest.raises(release_store.ReleaseError, match=r"training\.reference\.json has 2 bytes, not \d+"):
        release_store.read_extra(folder, first, drift.REFERENCE)
    (folder / drift.REFERENCE).unlink()
    assert release_store.load(folder).id == first.id  # no serving process asks for it


def test_a_card_of_an_older_version_can_be_read(run: TrainingRun) -> None:
    first = serve_first(run)
    path = run.root / "shop" / first.id / "manifest.json"
    old = json.loads(path.read_text())
    for name in ("intervals", "held_out_from", "data", "seconds", "warm_start", "gate", "extras"):
        del old[name]
    path.write_text(json.dumps(old))
    assert release_store.load(path.parent).manifest.gate is None
    training.decide(run, [training.item_knn(run)])
    assert release_store.current_id(run.root, "shop") == first.id
