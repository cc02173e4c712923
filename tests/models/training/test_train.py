"""A training run on a small archive: item-kNN, then a neural recommender; the better release is promoted."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from features.activity import History
from features.archive import Archive, ArchiveRow
from models.domains.preset import DomainPreset, TunedParams
from models.errors import TrainingError
from models.recommenders.registry import DEFAULT_MEMBERS
from models.releases import release_store
from models.releases.gate import CHECKS
from models.releases.manifest import Manifest, read_manifest
from models.training import tracking, warm_start
from models.training.champion_challenger import judge
from models.training.run import TrainingRun, read_serving
from models.training.train import train
from stream.events import KIND_CODES, Interaction, Item, User
from testing import training

NOON = 1_760_000_000_000
MINUTE = 60_000
DAY = 24 * 60 * MINUTE


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After item n comes 7n + 1 (of 40), but for every tenth step."""
    rng = np.random.default_rng(0)
    events = []
    for user in range(60):
        at, place = NOON + user, int(rng.integers(40))
        for step in range(60):
            event_id = f"{user}-{step}"
            at += MINUTE
            place = (7 * place + 1) % 40 if rng.random() < 0.9 else int(rng.integers(40))
            events.append(Interaction(event_id=event_id, user_id=f"u{user}", item_id=f"i{place}", kind="view", at=at))
    events.sort(key=lambda event: event.at)
    folder = tmp_path_factory.mktemp("archive")
    kept = Archive(folder)
    kept.append("events", [ArchiveRow(0, n, NOON, event) for n, event in enumerate(events)])
    people = [User(f"u{n}", NOON - 1, attributes={"group": "even" if n % 2 == 0 else "odd"}) for n in range(60)]
    kept.append("users", [ArchiveRow(0, n, NOON, user) for n, user in enumerate(people)])
    kept.append("items", [ArchiveRow(0, 0, NOON, Item(item_id="fresh", at=NOON, title="a new thing"))])
    kept.flush()
    return folder


@pytest.mark.timeout(240)
def test_the_better_one_is_promoted_and_a_history_leads_to_the_next_item(archive: Path, tmp_path: Path) -> None:
    progress_calls: list[tuple[str, float]] = []
    run = TrainingRun(archive, tmp_path, "shop", minutes=1, epochs=20)
    record_progress = lambda stage, done, _: progress_calls.append((stage, done))  # noqa: E731
    first = training.item_knn(run, record_progress)
    assert training.decide(run, [first]).serving == first.manifest.id  # the first has no opponent
    second = training.tuned(run, record_progress)
    result = training.decide(run, [first, second])
    counts, tuned = first.manifest, read_manifest(tmp_path / "shop" / second.manifest.id)
    assert tuned.metrics["ndcg@10"] > counts.metrics["ndcg@10"]
    assert result.serving == release_store.current_id(tmp_path, "shop") == tuned.id
    assert tuned.recommender in result.reason
    check_card(tuned, counts.id)
    assert tuned.params["tuning"][tuned.recommender] == max(tuned.params["tuning"].values())
    assert set(tuned.params["tuning"]) == {*DEFAULT_MEMBERS, "blend"}
    assert {stage for stage, _ in progress_calls} == {"counts", "blend", *DEFAULT_MEMBERS}
    assert all(0 <= done <= 1 for _, done in progress_calls)
    served = release_store.load(tmp_path / "shop" / tuned.id)
    items = [3]
    for _ in range(9):
        items.append((7 * items[-1] + 1) % 40)
    history = History([f"i{n}" for n in items], [KIND_CODES["view"]] * 10, [n * MINUTE for n in range(10)], [None] * 10)
    best = [served.item_ids[place] for place in np.argsort(-served.scores([history])[0])[:3]]
    assert f"i{(7 * items[-1] + 1) % 40}" in best
    assert tuned.events == 3_600
    assert tuned.data == counts.data
    tracking.log_release(tmp_path / "mlflow", tuned)
    assert list((tmp_path / "mlflow").rglob("ndcg_at_10"))


def check_card(card: Manifest, parent: str) -> None:
    assert card.parent == parent
    assert card.held_out_from < card.cutoff_at
    assert card.seconds > 0
    assert len(card.data) == 16
    low, high = card.intervals["ndcg@10"]
    assert low < card.metrics["ndcg@10"] < high
    assert 0 < card.metrics["next_hr@10"] <= 1
    assert card.gate is not None
    assert card.gate.champion == parent
    assert card.gate.comparison == "as of the cut"
    assert {check.name for check in card.gate.checks} == set(CHECKS)
    assert card.gate.passed
    assert card.gate.users == card.metrics["users"]


def test_a_requested_recommender_serves(archive: Path, tmp_path: Path) -> None:
    run = TrainingRun(archive, tmp_path, "video", recommender="popularity,sequential-rules", mask_seen=True)
    with pytest.raises(TrainingError, match="0 interactions"):
        training.tuned(run)
    shop = msgspec.structs.replace(run, domain="shop", recommender="popularity", mask_seen=False)
    counts = training.item_knn(shop)
    assert training.decide(shop, [counts]).serving == counts.manifest.id
    tuned = training.tuned(shop)
    assert tuned.manifest.metrics["ndcg@10"] < counts.manifest.metrics["ndcg@10"] + 1  # it need not be better
    assert training.decide(shop, [counts, tuned]).serving == tuned.manifest.id
    served = release_store.load(tmp_path / "shop" / tuned.manifest.id)
    card = served.manifest
    assert card.recommender == "popularity"
    assert served.item_ids[-1] == "fresh"  # of the catalogue; nobody took it yet
    assert card.gate is not None
    assert card.gate.champion is None
    assert "requested by name" in card.gate.comparison
    better = training.item_knn(shop)  # item-kNN has more events now, but popularity was requested by name
    assert training.decide(shop, [better]).serving == tuned.manifest.id
    with pytest.raises(TrainingError, match="no recommender is called 'sasrec'; there are all, blend, popularity"):
        training.tuned(msgspec.structs.replace(shop, recommender="sasrec"))


def test_live_popularity_is_a_member_that_counts_until_each_request(archive: Path, tmp_path: Path) -> None:
    """The gate asks the saved release, and later the champion, with the counts of each moment."""
    run = TrainingRun(archive, tmp_path, "shop", recommender="item-knn,sequential-rules,live-1d,live-30d")
    tuned = training.tuned(msgspec.structs.replace(run, recommender="item-knn,live-1d"))
    assert training.decide(run, [tuned]).serving == tuned.manifest.id
    assert tuned.manifest.recommender in {"blend", "item-knn"}
    both = training.tuned(run)
    assert set(both.manifest.params["tuning"]) == {"item-knn", "sequential-rules", "live-1d", "live-30d", "blend"}
    report = judge(tmp_path, both, tmp_path / "shop" / tuned.manifest.id, run.comparison_rules)
    assert {check.name for check in report.checks} == set(CHECKS)
    assert next(check for check in report.checks if check.name == "not-personalized").passed
    release = release_store.load(tmp_path / "shop" / both.manifest.id)
    if both.manifest.recommender == "blend":
        assert set(release.live_weights) == {DAY, 30 * DAY}
    with pytest.raises(TrainingError, match="live popularity is a member of a blend"):
        training.tuned(msgspec.structs.replace(run, recommender="live-1d,live-7d"))


def archived(folder: Path, stars: list[float], title: str = "tea", group: str = "even") -> Path:
    kept = Archive(folder)
    events = [
        Interaction(f"e{n}", f"u{n % 50}", f"i{n % 30}", "rate", NOON + n, value=stars[n % len(stars)])
        for n in range(1_200)
    ]
    kept.append("events", [ArchiveRow(0, n, NOON, event) for n, event in enumerate(events)])
    kept.append("users", [ArchiveRow(0, 0, NOON, User("u0", NOON, attributes={"group": group}))])
    kept.append("items", [ArchiveRow(0, 0, NOON, Item(item_id="i0", at=NOON, title=title))])
    kept.flush()
    return folder


def test_the_data_fingerprint_covers_everything_that_training_reads(tmp_path: Path) -> None:
    def hashed(name: str, stars: list[float], **other: str) -> str:
        run = TrainingRun(
            archived(tmp_path / name, stars, **other), tmp_path / "releases", "shop", cache=tmp_path / name / "c"
        )
        plain = training.item_knn(msgspec.structs.replace(run, cache=None)).manifest.data
        assert training.item_knn(run).manifest.data == plain  # read in another way, the same data
        return plain

    first = hashed("first", [5.0, 1.0])
    assert hashed("again", [5.0, 1.0]) == first
    others = {
        hashed("swapped", [1.0, 5.0]),
        hashed("title", [5.0, 1.0], title="cups"),
        hashed("profile", [5.0, 1.0], group="odd"),
    }
    assert len({first, *others}) == 4


@pytest.mark.timeout(240)
def test_the_next_run_starts_from_the_serving_weights(archive: Path, tmp_path: Path) -> None:
    small = {"dnn": TunedParams({"embedding_size": 16, "blocks": 1, "compiled": False})}
    run = TrainingRun(archive, tmp_path, "shop", "dnn", minutes=3.0, epochs=12, preset=DomainPreset(recommenders=small))
    first = training.tuned(run)
    assert training.decide(run, [first]).serving == first.manifest.id
    card = first.manifest
    assert card.warm_start is None
    assert {name for name in card.extras if name.endswith(".npz")} == {
        "training.dnn.tuning.npz",
        "training.dnn.final.npz",
    }
    starts, params = warm_start.of_serving(read_serving(tmp_path, "shop"))
    final, tuning = sorted(starts, key=lambda start: -start.until)
    assert tuning.until < final.until == card.held_out_from  # what tunes knows less than what is judged in the end
    assert params["dnn"]["embedding_size"] == final.items.shape[1]
    second = training.tuned(run)
    assert second.manifest.warm_start == card.id
    assert second.manifest.metrics["ndcg@10"] > 0
    (tmp_path / "shop" / card.id / "training.dnn.final.npz").write_bytes(b"PK broken")
    assert warm_start.of_serving(read_serving(tmp_path, "shop")) == ([], {})  # training goes on without


def test_too_few_events_are_an_error(tmp_path: Path) -> None:
    kept = Archive(tmp_path / "archive")
    event = Interaction(event_id="e", user_id="u", item_id="i", kind="view", at=NOON)
    kept.append("events", [ArchiveRow(0, 0, NOON, event)])
    kept.flush()
    with pytest.raises(TrainingError, match="1 interactions are archived; training needs 1000"):
        training.item_knn(TrainingRun(tmp_path / "archive", tmp_path, "shop"))


@pytest.mark.timeout(240)
def test_a_release_and_the_next_run_use_archived_profiles_and_time(archive: Path, tmp_path: Path) -> None:
    tuned_params = {
        "dnn": TunedParams({"profile": True, "context": True, "embedding_size": 16, "blocks": 1, "compiled": False})
    }
    run = TrainingRun(
        archive, tmp_path, "shop", "dnn", minutes=0.5, epochs=2, preset=DomainPreset(recommenders=tuned_params)
    )
    challenger = training.tuned(run)
    release_store.promote(tmp_path, "shop", challenger.manifest.id)
    served = release_store.load(tmp_path / "shop" / challenger.manifest.id)
    assert served.reads_profiles
    assert served.manifest.params["fields"] == [{"name": "group", "values": ["even", "odd"], "edges": []}]
    assert all(case.profile in ({"group": "even"}, {"group": "odd"}) for case in challenger.cases)
    again = training.tuned(msgspec.structs.replace(run, preset=DomainPreset()))
    assert again.manifest.warm_start == challenger.manifest.id
    assert again.manifest.params["profile"]  # what serves is where the next run begins
    assert again.manifest.params["context"]


def test_a_release_has_the_history_length_of_its_run(archive: Path, tmp_path: Path) -> None:
    run = TrainingRun(archive, tmp_path, "shop", history_length=55)  # users have 60 events
    challenger = training.item_knn(run)
    assert challenger.manifest.history_length == 55
    assert max(len(case.history.items) for case in challenger.cases) == 55
    assert training.decide(run, [challenger]).serving == challenger.manifest.id
    assert release_store.load(tmp_path / "shop" / challenger.manifest.id).history_length == 55
    tuned = training.tuned(msgspec.structs.replace(run, recommender="personal"))
    assert tuned.manifest.history_length == 55
    assert max(len(case.history.items) for case in tuned.cases) == 55


def test_a_whole_run_reads_the_serving_release_once_and_reports_what_goes_live(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    read = release_store.current_id

    def counted(root: Path, domain: str) -> str | None:
        reads.append(domain)
        return read(root, domain)

    monkeypatch.setattr("models.training.run.release_store.current_id", counted)
    run = TrainingRun(archive, tmp_path / "releases", "shop", "popularity", tracking=tmp_path / "mlflow")
    actions: list[str] = []
    result = train(run, on_rollout=actions.append)
    first, second = result.trained
    assert (result.serving, actions) == (second, ["promote", "promote"])  # popularity was requested by name
    assert read_manifest(tmp_path / "releases" / "shop" / second).parent == first  # the run passes on what it promoted
    assert list((tmp_path / "mlflow").rglob("ndcg_at_10"))
    assert reads == ["shop"]
