"""`coldstream evaluate` on files: its figures are checked against its predictions by another way."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from models.evaluation.studies import DEFAULTS, DRAWN, new_study
from serving.cli import app
from stream.errors import ColdstreamError

NOON = 1_760_000_000_000
RING = 30


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users go round a ring of items, with a stray step now and then; items of even number are red."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    with (folder / "events.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["uid", "sku", "ts", "kind"])
        for user in range(120):
            place = int(rng.integers(RING))
            for step in range(int(rng.integers(4, 14))):
                place = (place + 1) % RING if rng.random() < 0.8 else int(rng.integers(RING))
                rows.writerow([f"u{user}", f"i{place}", NOON + 60_000 * step + user, "purchase"])
    lines = [f"i{item},Item {item},{'red' if item % 2 == 0 else 'blue'}" for item in range(RING)]
    (folder / "items.csv").write_text("item_id,title,category\n" + "\n".join(lines) + "\n")
    lines = [f"u{user},{'old' if user % 3 else 'young'}" for user in range(120)]
    (folder / "users.csv").write_text("user_id,segment\n" + "\n".join(lines) + "\n")
    return folder


def args(files: Path, *more: str) -> list[str]:
    fixed = ["evaluate", "--events", str(files / "events.csv"), "--map", "user_id=uid,item_id=sku,at=ts,kind=kind"]
    tables = ["--items", str(files / "items.csv"), "--users", str(files / "users.csv")]
    return [*fixed, *tables, *more]


def last_items(files: Path) -> dict[str, str]:
    events = pl.read_csv(files / "events.csv").sort("ts", maintain_order=True)
    return dict(events.group_by("uid", maintain_order=True).agg(pl.col("sku").last()).iter_rows())


def test_the_figures_match_the_predictions(files: Path, tmp_path: Path) -> None:
    out, report = tmp_path / "lists.parquet", tmp_path / "report"
    more = ["--recommender", "popularity,sequential-rules", "--trials", "3", "--seen", "keep", "--json"]
    result = CliRunner().invoke(app, args(files, *more, "--predictions", str(out), "--report", str(report)))
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert (content["protocol"], content["cases"], content["mask_seen"]) == ("leave-one-out", 120, False)
    assert [figures["recommender"] for figures in content["figures"]] == ["popularity", "sequential-rules", "blend"]
    lists, targets = pl.read_parquet(out), last_items(files)
    for figures in content["figures"]:
        mine = lists.filter(pl.col("recommender") == figures["recommender"]).sort("user_id", "rank")
        gains = [
            1 / np.log2(rank + 1) if item == targets[user] and rank <= 10 else 0.0
            for user, rank, item in mine.select("user_id", "rank", "item_id").iter_rows()
        ]
        assert figures["metrics"]["ndcg@10"] == pytest.approx(sum(gains) / 120, abs=1e-9)
        shown = mine.filter(pl.col("rank") <= 10)["item_id"].n_unique()
        assert figures["metrics"]["coverage@10"] == pytest.approx(shown / RING)
        low, high = figures["intervals"]["ndcg@10"]
        assert low <= figures["metrics"]["ndcg@10"] <= high
        assert {part["by"] for part in figures["segments"]} == {"history length", "profile", "target item"}
        assert "diversity@10" in figures["metrics"]
    by_name = {figures["recommender"]: figures["metrics"]["ndcg@10"] for figures in content["figures"]}
    assert by_name["sequential-rules"] > 2 * by_name["popularity"]
    assert content["chosen"] in {"sequential-rules", "blend"}
    assert (report / "report.html").read_text().count("<svg") == 2


@pytest.mark.parametrize("split", ["random:0.3", "last-days:1"])
def test_auc_is_reported_if_negative_events_are_held_out(tmp_path: Path, split: str) -> None:
    """Everyone takes i0 to i4 and dislikes i5 to i9, in turns, so what is popular is in the right order throughout."""
    rows = [
        f"u{user},i{(user + step) % 5 + 5 * (step % 2)},{NOON + 14_400_000 * step},{('view', 'dislike')[step % 2]}"
        for user in range(60)
        for step in range(20)
    ]
    (tmp_path / "events.csv").write_text("\n".join(["user_id,item_id,at,kind", *rows]) + "\n")
    (tmp_path / "items.csv").write_text("\n".join(["item_id,title", *(f"i{n},Item {n}" for n in range(10))]) + "\n")
    fixed = ["evaluate", "--events", str(tmp_path / "events.csv"), "--items", str(tmp_path / "items.csv")]
    more = ["--split", split, "--recommender", "popularity", "--trials", "1", "--seen", "keep", "--json"]
    result = CliRunner().invoke(app, [*fixed, *more])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["figures"][0]["metrics"]["auc"] == 1


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten days of a dozen items, one to four of them a day; `all` takes every item on the first day already."""
    folder = tmp_path_factory.mktemp("days")
    rng = np.random.default_rng(1)
    lines = [f"all,i{item},{NOON + item}" for item in range(12)]
    for day in range(10):
        lines.append(f"all,i{day},{NOON + 86_400_000 * day + 50}")
        for user in range(40):
            items = rng.choice(12, int(rng.integers(1, 5)), replace=False, p=np.arange(12, 0, -1) / 78)
            lines += [f"u{user},i{item},{NOON + 86_400_000 * day + 100 * user + n}" for n, item in enumerate(items)]
    (folder / "events.csv").write_text("\n".join(["user_id,item_id,at", *lines]) + "\n")
    return folder


@pytest.mark.parametrize("seen", ["keep", "mask"])
def test_every_figure_of_several_targets_can_be_computed_from_the_predictions_alone(
    days: Path, tmp_path: Path, seen: str
) -> None:
    out = tmp_path / "lists.parquet"
    fixed = ["evaluate", "--events", str(days / "events.csv"), "--split", "last-days:2", "--seen", seen, "--json"]
    more = ["--recommender", "popularity,item-knn", "--trials", "1", "--predictions", str(out)]
    result = CliRunner().invoke(app, [*fixed, *more])
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    lists = pl.read_parquet(out)
    for figures in content["figures"]:
        mine = lists.filter(pl.col("recommender") == figures["recommender"])
        users = mine.partition_by("user_id")
        assert len(users) == content["cases"] == 41
        assert max(len(user["targets"][0]) for user in users) > 3
        blank = mine.filter(pl.col("item_id").is_null())
        assert ("all" in blank["user_id"]) == (seen == "mask")  # nothing is left that it did not take
        assert not blank["hit"].any()
        assert blank["rank"].null_count() == blank.height
        for k in (5, 10, 20):
            each = [recomputed(user, k) for user in users]
            for metric in each[0]:
                mean = sum(values[metric] for values in each) / len(each)
                assert figures["metrics"][f"{metric}@{k}"] == pytest.approx(mean, abs=1e-9), (metric, k)


def recomputed(user: pl.DataFrame, k: int) -> dict[str, float]:
    """A user's metrics at k, by what the field says of them."""
    targets = set(user["targets"][0])
    shown = {rank: item for rank, item in user.select("rank", "item_id").iter_rows() if rank is not None and rank <= k}
    assert user["hit"].to_list() == [item in targets for item in user["item_id"]]
    ranks = sorted(rank for rank, item in shown.items() if item in targets)
    precision, recall = len(ranks) / k, len(ranks) / len(targets)
    ideal = sum(1 / np.log2(1 + rank) for rank in range(1, min(k, len(targets)) + 1))
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if ranks else 0.0,
        "ndcg": sum(1 / np.log2(1 + rank) for rank in ranks) / ideal,
        "hr": float(bool(ranks)),
        "mrr": 1 / ranks[0] if ranks else 0.0,
        "map": sum((n + 1) / rank for n, rank in enumerate(ranks)) / min(k, len(targets)),
    }


def test_the_same_seed_gives_the_same_figures(files: Path) -> None:
    more = ["--recommender", "item-knn", "--trials", "3", "--split", "random:0.3", "--json"]
    first, second = (json.loads(CliRunner().invoke(app, args(files, *more)).stdout) for _ in range(2))
    assert first["figures"][0]["metrics"] == second["figures"][0]["metrics"]


@pytest.fixture(scope="module")
def novelties(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everyone takes three of eight items, and at the end one that nobody had taken before."""
    folder = tmp_path_factory.mktemp("novelties")
    lines = []
    for user in range(60):
        taken = [f"i{(user + step) % 8}" for step in range(4)] + ["new" if user % 2 else "unheard-of"]
        lines += [f"u{user},{item},{NOON + 60_000 * step + user}" for step, item in enumerate(taken)]
    (folder / "events.csv").write_text("user_id,item_id,at\n" + "\n".join(lines) + "\n")
    rows = [f"i{item},Tea {item},{'tea' if item < 4 else 'cups'}" for item in range(8)]
    (folder / "items.csv").write_text("\n".join(["item_id,title,category", *rows, "new,Tea 9,tea"]) + "\n")
    return folder


def hits(folder: Path, *more: str) -> dict[str, float]:
    """Users by the item that they took last, and the share of them who were shown it."""
    out = folder / "lists.parquet"
    fixed = ["evaluate", "--events", str(folder / "events.csv"), "--trials", "1", "--seen", "keep", "--json"]
    done = CliRunner().invoke(app, [*fixed, "--predictions", str(out), *more])
    assert done.exit_code == 0, done.output
    last_items_of = {f"u{user}": "new" if user % 2 else "unheard-of" for user in range(60)}
    reached = [last_items_of[user] for user in pl.read_parquet(out).filter("hit")["user_id"]]
    return {item: reached.count(item) / 30 for item in ("new", "unheard-of")}


def test_catalogue_items_are_recommended_before_their_first_event(novelties: Path) -> None:
    """One that only the events name is not: nobody could have offered it."""
    items = ["--items", str(novelties / "items.csv")]
    assert hits(novelties, "--recommender", "popularity") == {"new": 0, "unheard-of": 0}
    assert hits(novelties, "--recommender", "popularity", *items) == {"new": 1, "unheard-of": 0}  # the last of nine


def test_an_encoder_places_a_new_item_by_its_title_and_category(novelties: Path) -> None:
    """Everyone took tea last: a new tea stands before the cups, which counts alone would never say."""
    out = novelties / "lists.parquet"
    small = novelties / "small.toml"
    small.write_text("[recommenders.dnn.params]\ncompiled = false\nembedding_size = 16\nblocks = 1\n")
    more = [
        "--recommender",
        "dnn",
        "--minutes",
        "0.05",
        "--preset",
        str(small),
        "--items",
        str(novelties / "items.csv"),
    ]
    assert hits(novelties, *more)["new"] == 1
    ranks = pl.read_parquet(out).filter(pl.col("item_id") == "new")["rank"]
    assert ranks.mean() < 8  # type: ignore[operator]  # with nothing known of it, it is the ninth of nine


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A month in the form of REES46, in which twenty users only look and thirty buy; and settings with own presets."""
    folder = tmp_path_factory.mktemp("shop")
    lines = ["event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"]
    for user in range(50):
        kind = "view" if user < 20 else "purchase"
        lines += [
            f"2019-10-01 {step:02}:{user:02}:00 UTC,{kind},{(user + step) % 8},1,tea,,1.0,{user},s" for step in range(5)
        ]
    (folder / "2019-Oct.csv").write_text("\n".join(lines) + "\n")
    (folder / "presets").mkdir()
    (folder / "presets" / "buyers.toml").write_text("[kinds]\npurchase = 1.0\n")
    (folder / "presets" / "likers.toml").write_text("[kinds]\nlike = 1.0\n")
    (folder / "presets" / "shop.toml").write_text("[kinds]\nview = 1.0\n")
    names = 'domain = "buyers"\ndomains = "shop,buyers,likers"\n'
    (folder / "coldstream.toml").write_text(f'presets = "{folder / "presets"}"\n{names}')
    return folder


@pytest.mark.parametrize(("more", "cases"), [([], 50), (["--domain", "buyers"], 30), (["--domain", "shop"], 20)])
def test_kind_weights_come_from_the_named_domain_or_the_data_sets_own(shop: Path, more: list[str], cases: int) -> None:
    fixed = ["--source", f"rees46:{shop / '2019-Oct.csv'}", "--recommender", "popularity", "--trials", "1", "--json"]
    chosen = ["--settings", str(shop / "coldstream.toml")]
    result = CliRunner().invoke(app, [*chosen, "evaluate", *fixed, *more])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["cases"] == cases


def test_tuning_uses_the_named_domain(shop: Path, tmp_path: Path) -> None:
    """Where only likes count, and nobody likes anything, nothing can be tuned."""
    fixed = ["--source", f"rees46:{shop / '2019-Oct.csv'}", "--recommender", "popularity", "--trials", "1"]
    kept = ["--study", str(tmp_path / "studies.log"), "--preset", str(tmp_path / "preset.toml")]
    arguments = ["--settings", str(shop / "coldstream.toml"), "tune", *fixed, *kept]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    refused = CliRunner().invoke(app, [*arguments, "--domain", "likers"])
    assert "leaves no test case" in str(refused.exception)


def test_freshness_wins_if_items_age(tmp_path: Path) -> None:
    """Every hour has an article of its own, read for four hours; who reads what is chance."""
    rng = np.random.default_rng(0)
    lines = []
    for hour in range(72):
        for number in range(60):
            article = hour - min(int(rng.exponential(1.0)), 3, hour)
            lines.append(f"u{rng.integers(80)},a{article},{NOON + 3_600_000 * hour + 60_000 * number}")
    (tmp_path / "clicks.csv").write_text("user_id,item_id,at\n" + "\n".join(lines) + "\n")
    fixed = ["evaluate", "--events", str(tmp_path / "clicks.csv"), "--split", "last-share:0.02", "--seen", "keep"]
    more = ["--recommender", "fresh,sequential-rules", "--trials", "6", "--json"]
    done = CliRunner().invoke(app, [*fixed, *more])
    assert done.exit_code == 0, done.output
    results = {figures["recommender"]: figures for figures in json.loads(done.stdout)["figures"]}
    assert results["fresh"]["metrics"]["ndcg@10"] > 1.1 * results["sequential-rules"]["metrics"]["ndcg@10"]
    assert set(results["fresh"]["params"]) == {"inside", "half_life_ms", "live_half_life_ms", "live"}
    assert results["fresh"]["trials"] == 6


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--split", "half"], "'half' is no split; give leave-one-out"),
        (["--recommender", "sasrec"], "no recommender is called 'sasrec'"),
        (["--seen", "maybe"], "--seen maybe: give auto, keep"),
        (["--source", "globo"], "give --events FILE"),
        (["--split", "last-days:400"], "leaves no test case"),
    ],
)
def test_invalid_options_are_errors(files: Path, more: list[str], message: str) -> None:
    result = CliRunner().invoke(app, args(files, *more))
    assert isinstance(result.exception, ColdstreamError)
    assert message in str(result.exception)


def test_a_study_is_resumed_and_its_preset_starts_the_next_run(files: Path, tmp_path: Path) -> None:
    study, preset = tmp_path / "studies.log", tmp_path / "preset.toml"
    fixed = ["tune", *args(files)[1:5], "--recommender", "item-knn", "--seen", "keep", "--json"]
    fixed += ["--study", str(study), "--preset", str(preset)]
    shown = json.loads(CliRunner().invoke(app, [*fixed, "--trials", "3"]).stdout)
    first = shown["item-knn"]
    assert first["trials"] == 3
    assert shown["report"]["kept"] == shown["report"]["tables"][0]["kept"] > 0
    again = json.loads(CliRunner().invoke(app, [*fixed, "--trials", "3"]).stdout)["item-knn"]
    assert again == first  # nothing is left to try: what the study knows is what comes out
    more = json.loads(CliRunner().invoke(app, [*fixed, "--trials", "8"]).stdout)["item-knn"]
    assert (more["trials"], more["study"]) == (8, first["study"])
    assert more["ndcg@10"] >= first["ndcg@10"]
    begun = ["--recommender", "item-knn", "--seen", "keep", "--trials", "1", "--preset", str(preset), "--json"]
    figures = json.loads(CliRunner().invoke(app, args(files, *begun)).stdout)["figures"][0]
    assert figures["tuning"] == pytest.approx(more["ndcg@10"], abs=1e-6)
    assert figures["params"] == more["params"]


def test_other_kind_weights_are_another_study(files: Path, tmp_path: Path) -> None:
    """The music preset weighs purchases as the shop's does, and lets popularity fade more slowly."""
    fixed = ["tune", *args(files)[1:5], "--recommender", "popularity", "--trials", "1", "--seen", "keep", "--json"]
    fixed += ["--study", str(tmp_path / "studies.log"), "--preset", str(tmp_path / "preset.toml")]
    results = [
        json.loads(CliRunner().invoke(app, [*fixed, "--domain", name]).stdout) for name in ("shop", "music", "shop")
    ]
    names = [result["popularity"]["study"] for result in results]
    assert names[0] == names[2] != names[1]


def test_two_processes_search_in_one_study(files: Path, tmp_path: Path) -> None:
    study = ["--study", str(tmp_path / "studies.log"), "--preset", str(tmp_path / "preset.toml")]
    command = [sys.executable, "-m", "serving.cli", "tune", *args(files)[1:5], "--recommender", "item-knn", *study]
    command += ["--seen", "keep", "--trials", "40", "--json"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    results = [json.loads(process.communicate(timeout=60)[0])["item-knn"] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert results[0]["study"] == results[1]["study"]
    assert {result["trials"] for result in results} <= {
        40,
        41,
    }  # a trial that runs when the other process ends counts too
    ended = new_study(0, tmp_path / "studies.log", results[0]["study"])
    by = [trial.user_attrs.get(DEFAULTS) or trial.user_attrs[DRAWN] for trial in ended.trials]
    assert len({process for _, process in by}) == 2
    assert max(result["ndcg@10"] for result in results) == round(ended.best_value, 6)


@pytest.mark.timeout(200)
def test_profiles_reach_the_dense_encoder(files: Path, tmp_path: Path) -> None:
    """Everyone takes i0 and i1; what the young take next is i2, the old i3: only the file of users says who is who."""
    rows = [
        f"u{user},{item},{NOON + 1_000 * step + user}"
        for user in range(120)
        for step, item in enumerate(("i0", "i1", "i3" if user % 3 else "i2"))
    ]
    (tmp_path / "events.csv").write_text("\n".join(["user_id,item_id,at", *rows]) + "\n")
    reached = {}
    for profiles in ("true", "false"):
        params = (
            f"epochs = 20\nlearning_rate = 0.01\nlength = 8\nbatch_size = 16\ncompiled = false\nprofile = {profiles}"
        )
        (tmp_path / "preset.toml").write_text(f"[recommenders.dnn.params]\n{params}\n")
        data = ["--events", str(tmp_path / "events.csv"), "--users", str(files / "users.csv"), "--split", "random:0.2"]
        more = ["--recommender", "dnn", "--trials", "1", "--minutes", "1.5", "--seen", "mask", "--json"]
        result = CliRunner().invoke(app, ["evaluate", *data, *more, "--preset", str(tmp_path / "preset.toml")])
        assert result.exit_code == 0, result.output
        (figures,) = json.loads(result.stdout)["figures"]
        reached[profiles] = figures["metrics"]["mrr@5"]
        fields = figures["params"].get("fields", [])
        assert [field["values"] for field in fields] == ([["old", "young"]] if profiles == "true" else [])
    assert reached["true"] > reached["false"] + 0.1
