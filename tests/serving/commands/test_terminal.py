"""What reaches the terminal of the installed command, in a working folder full of foreign modules."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.console_script import leave_out
from serving.process.native_output import NOISE, without_native_lines
from stream.child_process import python_command
from stream.sources.table import open_table
from testing.foreign_modules import foreign_modules
from testing.supervised import COLDSTREAM

LINES = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795837347.408716    9954 port.cc:153] oneDNN custom operations are on.",
    "E0000 00:00:1795837347.408716    9954 cuda_dnn.cc:8310] Unable to register cuDNN factory",
    "2026-11-28 03:00:00.000001: I tensorflow/core/util/port.cc:153] oneDNN custom operations are on.",
    "WARNING:absl:You are saving your model as an HDF5 file",
    "WARNING:tensorflow:5 out of the last 5 calls",
    "INFO:tf2onnx.optimizer:Optimizing ONNX model",
]
WRITE = """
import os, subprocess, sys
from serving.console_script import leave_out
from serving.process.native_output import without_native_lines
with without_native_lines():
    os.write(2, b"I0000 00:00:1 2 port.cc:1] native\\nkept\\n")
    subprocess.run([sys.executable, "-c", "import os; os.write(2, b'I0000 00:00:1 2 child\\\\n')"])
    sys.stderr.write("from Python\\n")
    if len(sys.argv) > 1:
        os.write(2, b"last words\\n")
        os.abort()
sys.stderr.write("behind\\n")
"""


def command_environment(folder: Path) -> dict[str, str]:
    unset = ("TF_CPP_MIN_LOG_LEVEL", "PYTHONWARNINGS", "PYTHONSAFEPATH")
    variables = {name: value for name, value in os.environ.items() if name not in unset}
    return variables | {"COLDSTREAM_STATE": str(folder / "state")}


def events(folder: Path) -> Path:
    """1,200 events of 60 users."""
    file = folder / "events.csv"
    rows = [
        f"u{user},i{(user + 3 * step) % 40},{1_700_000_000 + 3_600 * step + user}"
        for user in range(60)
        for step in range(20)
    ]
    file.write_text("\n".join(["user_id,item_id,at", *rows]) + "\n")
    return file


@pytest.mark.timeout(300)
def test_a_neural_recommender_is_measured_and_tuned_without_a_foreign_line(tmp_path: Path) -> None:
    folder, variables = foreign_modules(tmp_path / "work"), command_environment(tmp_path)
    options = ["--events", str(events(tmp_path)), "--recommender", "dnn", "--trials", "1", "--minutes", "0.05"]
    processes = {
        word: subprocess.Popen(
            [COLDSTREAM, word, *options],
            cwd=folder,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for word in ("evaluate", "tune")
    }
    for word, process in processes.items():
        output, errors = process.communicate(timeout=280)
        cleaning = open_table(tmp_path / "events.csv").report.table()
        assert (process.returncode, errors) == (0, f"{cleaning}\n"), word
        assert "dnn" in output
        assert [line for line in output.splitlines() if NOISE.search(line)] == []


@pytest.mark.parametrize("line", LINES)
def test_lines_of_the_training_libraries_are_noise(line: str) -> None:
    assert NOISE.search(line)


@pytest.mark.parametrize(
    "line",
    ["error: no such file", "Traceback (most recent call last):", "Fatal Python error: Aborted", "20:11:05 WARNING x"],
)
def test_other_lines_are_not(line: str) -> None:
    assert not NOISE.search(line)


def test_native_lines_are_dropped_and_all_others_arrive_in_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", WRITE], capture_output=True, text=True, timeout=60, check=True)
    assert sorted(done.stderr.splitlines()) == ["behind", "from Python", "kept"]


def test_the_last_words_of_a_process_that_aborts_arrive() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITE, "abort"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -6
    assert "last words" in done.stderr


def test_output_that_a_test_captures_stays_where_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    with without_native_lines():
        sys.stderr.write("captured")
    assert capsys.readouterr().err == "captured"


@pytest.mark.parametrize("module", ["stream.broker", "serving.train.drift"])
def test_a_child_process_imports_nothing_of_the_working_folder(module: str, tmp_path: Path) -> None:
    command = python_command(module, "--help")
    folder = foreign_modules(tmp_path)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: python -m" in done.stdout


def test_the_installed_command_imports_nothing_of_the_working_folder(tmp_path: Path) -> None:
    folder = foreign_modules(tmp_path / "work")
    for words in (["--help"], ["settings"], ["doctor"]):
        done = subprocess.run(
            [COLDSTREAM, *words],
            cwd=folder,
            env=command_environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "from the working folder" not in done.stdout + done.stderr
        assert done.returncode in {0, 1}


@pytest.mark.parametrize("path", [".", ":/nonexistent", "{folder}"])
def test_not_even_where_pythonpath_names_the_working_folder(path: str, tmp_path: Path) -> None:
    folder = foreign_modules(tmp_path / "work", ("attr", "msgspec", "typer", "httpx", "json"))
    variables = command_environment(tmp_path) | {"PYTHONPATH": path.format(folder=folder)}
    done = subprocess.run(
        [COLDSTREAM, "settings"], cwd=folder, env=variables, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_children_do_not_search_the_working_folder_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = str(tmp_path / "modules")
    monkeypatch.setattr(sys, "path", [str(tmp_path), elsewhere])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", elsewhere, str(tmp_path)]))
    monkeypatch.chdir(tmp_path)
    leave_out(str(tmp_path))
    assert (sys.path, os.environ["PYTHONPATH"]) == ([elsewhere], elsewhere)


def test_a_deleted_working_folder_is_named(tmp_path: Path) -> None:
    words = ["sh", "-c", f"cd {tmp_path} && rmdir {tmp_path} && exec {COLDSTREAM} settings"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "error: the working folder was deleted; change to another one (cd)\n")
