"""import, evaluate and tune read files with the same options, and every option that an error names exists."""

import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from serving.cli import app
from serving.commands.table_options import table_options

ROOM = Path(__file__).resolve().parents[3] / "stream"
OWN = {"--items", "--users", "--map"}


def options_of(command: str) -> set[str]:
    """The options of a command, as its help and its parser know them."""
    group = typer.main.get_command(app)
    registered = group.commands[command]  # type: ignore[attr-defined]
    return {name for parameter in registered.params for name in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("command", ["import", "evaluate", "tune"])
def test_every_option_that_reading_names_exists(command: str) -> None:
    sources = [*(ROOM / "sources").glob("*.py"), *ROOM.glob("cleaning*.py")]
    named = {name for file in sources for name in re.findall(r"--[a-z][a-z-]+", file.read_text("utf-8"))}
    assert named > OWN
    assert named <= options_of(command)
    assert {"--encoding", "--no-quotes", "--delimiter", "--time-format", "--kind", "--kind-map"} <= options_of(command)


def test_the_options_as_one_value() -> None:
    table = table_options(
        mapping="user_id=uid,value=price, EUR", map_items="title=name", kind_map="fav=like", missing="NA,", quotes=False
    )
    assert table.columns == {"user_id": "uid", "value": "price, EUR"}
    assert (table.item_columns, table.kinds, table.quotes) == ({"title": "name"}, {"fav": "like"}, False)
    assert table.missing == ("NA", "")
    assert table_options().describe_file() is False
    assert table_options(kind="view").describe_file() is True


def test_options_of_a_file_are_refused_with_a_named_data_set() -> None:
    result = CliRunner().invoke(app, ["evaluate", "--source", "complete-journey", "--kind", "view"])
    assert "describe a file of your own: give --events FILE" in str(result.exception)


def test_an_evaluation_reads_and_reports_like_an_import(tmp_path: Path) -> None:
    rows = [f"u{n % 30};i{n * 7 % 11};{n // 30 + 1}.3.23 10:00;{n},50" for n in range(240)]
    file = tmp_path / "events.csv"
    file.write_bytes("\n".join(["user;item;date;price", *rows, "caf\u00e9;i1;soon;1"]).encode("cp1252"))
    command = ["evaluate", "--events", str(file), "--encoding", "cp1252", "--time-format", "%d.%m.%y %H:%M"]
    result = CliRunner().invoke(app, [*command, "--recommender", "popularity", "--trials", "1"])
    assert result.exit_code == 0, result.output
    assert re.search(r"unparseable +-1\n +at not a time +-1\n", result.output)
    assert re.search(r"events kept +240\n", result.output)
