"""The state folder: its format is written once and checked at every start."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serving.cli import app
from serving.errors import StateFolderError
from serving.process.state_folder import (
    FORMAT,
    check_state_folder,
    format_of,
    is_running,
    prepare_state_folder,
)
from serving.settings import Settings
from stream.files import try_lock


def test_the_first_start_writes_the_format(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    check_state_folder(folder)
    assert not folder.exists()
    prepare_state_folder(folder)
    content = json.loads((folder / "format.json").read_text())
    assert content["format"] == FORMAT
    assert content["created_by"].startswith("coldstream ")
    (folder / "kafka").mkdir()
    prepare_state_folder(folder)
    assert json.loads((folder / "format.json").read_text()) == content


@pytest.mark.parametrize("prepared", ["releases", "archive"])
def test_releases_and_archive_may_be_there_before_the_first_start(tmp_path: Path, prepared: str) -> None:
    (tmp_path / prepared).mkdir()
    assert format_of(tmp_path) is None
    prepare_state_folder(tmp_path)
    assert format_of(tmp_path) == FORMAT


@pytest.mark.parametrize("left", ["up.lock", "kafka", "feast"])
def test_a_folder_of_the_earlier_form_is_refused_with_the_cure(tmp_path: Path, left: str) -> None:
    (tmp_path / left).mkdir()
    assert format_of(tmp_path) == 1
    for use in (check_state_folder, prepare_state_folder):
        with pytest.raises(StateFolderError) as refused:
            use(tmp_path)
        for part in (str(tmp_path), "has format 1", f"format {FORMAT}", f"mv {tmp_path} {tmp_path}.old", "import"):
            assert part in str(refused.value)
    assert not (tmp_path / "format.json").exists()


def test_a_later_format_asks_for_the_version_that_wrote_it(tmp_path: Path) -> None:
    (tmp_path / "format.json").write_text(json.dumps({"format": FORMAT + 1, "created_by": "coldstream 9"}))
    with pytest.raises(StateFolderError, match="use the version of Coldstream that wrote it"):
        check_state_folder(tmp_path)


@pytest.mark.parametrize("content", ["", "{", '{"format": "two"}', "[]"])
def test_a_damaged_format_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "format.json").write_text(content)
    with pytest.raises(StateFolderError, match=r"format\.json cannot be read"):
        check_state_folder(tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        ("up",),
        ("broker",),
        ("api",),
        ("consumer",),
        ("archive",),
        ("train",),
        ("train", "--once"),
        ("drift",),
        ("features", "rebuild"),
        ("releases", "list"),
        ("releases", "rollback"),
    ],
)
def test_every_command_that_uses_the_folder_refuses_an_earlier_form(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "feast").mkdir()
    refused = CliRunner().invoke(app, ["--state", str(tmp_path), *words])
    assert isinstance(refused.exception, StateFolderError)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "feast"]


def test_reset_deletes_a_folder_of_an_earlier_form(tmp_path: Path) -> None:
    (tmp_path / "state" / "feast").mkdir(parents=True)
    done = CliRunner().invoke(app, ["--state", str(tmp_path / "state"), "reset", "--yes"], catch_exceptions=False)
    assert done.exit_code == 0
    assert not (tmp_path / "state").exists()


def test_a_running_supervisor_is_seen_by_its_lock(tmp_path: Path) -> None:
    settings = Settings(state=str(tmp_path))
    assert not is_running(settings)
    lock = try_lock(tmp_path / "up.lock")
    assert lock is not None
    assert is_running(settings)
    lock.release()
    assert not is_running(settings)
