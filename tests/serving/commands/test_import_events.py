"""`coldstream import` without a broker: what a dry run shows, and what is refused before the first row."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serving.cli import app
from serving.commands.options import check_domain
from serving.errors import SettingsError
from serving.settings import read


def run(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    events, items = tmp_path / "events.csv", tmp_path / "items.csv"
    rows = [f"ann,tea,{1_700_000_000 + n},1.5" for n in range(12)]
    events.write_text("\n".join(["user,item,ts,price", *rows]) + "\n")
    items.write_text("item_id,title,brand\ntea,Green tea,House\n")
    return events, items


def test_a_dry_run_shows_ten_rows_of_each_file_and_sends_nothing(files: tuple[Path, Path]) -> None:
    options = ("--map", "value=price,user_id=user,item_id=item,at=ts", "--items", str(files[1]), "--dry-run")
    lines = run("--kafka", "127.0.0.1:1", "import", str(files[0]), *options).splitlines()
    start = lines.index("events: the first 10 as they are read")
    assert lines[start + 1].split() == ["event_id", "user_id", "item_id", "kind", "at", "value"]
    assert lines[start + 2].split()[1:] == ["ann", "tea", "view", "2023-11-14T22:13:20Z", "1.5"]
    assert lines[start + 12 :] == [
        "items: the first 1 as they are read",
        "  item_id  title      attributes",
        "  tea      Green tea  brand=House",
        "nothing was sent",
    ]


def test_a_dry_run_of_items_alone_as_json(files: tuple[Path, Path]) -> None:
    shown = json.loads(run("--kafka", "127.0.0.1:1", "import", "--items", str(files[1]), "--dry-run", "--json"))
    (item,) = shown["rows"]["items"]
    assert (item["item_id"], item["title"], item["attributes"]) == ("tea", "Green tea", {"brand": "House"})
    assert (shown["sent"], list(shown["rows"])) == (None, ["items"])


@pytest.mark.parametrize(
    "words",
    [
        ("import", "none.csv", "--domain", "shpo"),
        ("import", "none.csv", "--domain", "shpo", "--dry-run"),
        ("train", "--once", "--domain", "shpo"),
        ("evaluate", "--events", "none.csv", "--domain", "shpo"),
        ("tune", "--events", "none.csv", "--domain", "shpo"),
    ],
)
def test_an_unknown_domain_is_refused_before_anything_is_read(words: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match="domain 'shpo' is not one of shop, music, video, news") as refused:
        run("--kafka", "127.0.0.1:1", *words)
    assert "Did you mean 'shop'?" in str(refused.value)
    assert 'write the line domains = "shop,music,video,news,shpo" into coldstream.toml' in str(refused.value)


def test_the_line_that_the_refusal_names_adds_the_domain(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match='domains = "shop,video,wine"'):
        check_domain(read(environment={}, flags={"domains": "shop,video"}), "wine")
    file = tmp_path / "coldstream.toml"
    file.write_text('domains = "shop,video,wine"\n')
    check_domain(read(file, environment={}), "wine")
    table = "[domains.shop]\n"
    file.write_text(table)
    with pytest.raises(SettingsError, match=r"write the line \[domains.wine\]"):
        check_domain(read(file, environment={}), "wine")
    file.write_text(f"{table}[domains.wine]\n")
    check_domain(read(file, environment={}), "wine")


def test_a_data_set_of_an_unknown_domain_is_not_replayed(tmp_path: Path) -> None:
    flags = ("--kafka", "127.0.0.1:1", "--state", str(tmp_path))
    runner = CliRunner(env={"COLDSTREAM_DOMAINS": "music", "COLDSTREAM_DOMAIN": "music"})
    result = runner.invoke(app, [*flags, "replay", "complete-journey"])
    assert isinstance(result.exception, SettingsError)
    assert "domain 'shop' is not one of music" in str(result.exception)
