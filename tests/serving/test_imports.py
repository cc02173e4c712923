"""What serves does not import what trains: seconds and hundreds of megabytes for nothing."""

import importlib.metadata
import os
import subprocess
import sys

import pytest

LOOK = "import sys, {module}; print([name for name in {unwanted} if name in sys.modules])"
TRAINING = ("tensorflow", "keras", "tf2onnx", "mlflow")
HEAVY = ("feast", "pandas", "kafka", "polars", "litestar")


def loaded(module: str, unwanted: tuple[str, ...]) -> str:
    script = LOOK.format(module=module, unwanted=unwanted)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return run.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "module",
    [
        "serving.http.app",
        "serving.consume.app",
        "serving.consume.archiver",
        "serving.cli",
        "serving.process.supervisor",
    ],
)
def test_no_serving_process_imports_what_trains(module: str) -> None:
    assert loaded(module, TRAINING) == "[]"


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    assert loaded("serving.cli", HEAVY) == "[]"


def test_no_gpu_is_no_error() -> None:
    build = "keras.layers.Dense(2).build((None, 3)); print('built')"
    script = f"import models.recommenders.neural.recommender, keras; {build}"
    variables = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=variables)
    assert run.stdout == "built\n"
    assert [line for line in run.stderr.splitlines() if "cuInit" in line or line.startswith("E0000")] == []


def test_the_version_is_said() -> None:
    command = [sys.executable, "-m", "serving.cli", "--version"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == f"coldstream {importlib.metadata.version('coldstream')}\n"
