"""What serves does not import what trains: seconds and hundreds of megabytes for nothing."""

import subprocess
import sys

import pytest

LOOK = "import sys, {module}; print([name for name in ('tensorflow', 'keras', 'tf2onnx', 'mlflow') if name in sys.modules])"


@pytest.mark.parametrize(
    "module", ["serving.api", "serving.consumer", "serving.archiver", "serving.cli", "serving.supervisor"]
)
def test_no_serving_process_imports_what_trains(module: str) -> None:
    found = subprocess.run(
        [sys.executable, "-c", LOOK.format(module=module)], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip().splitlines()[-1] == "[]"


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    look = "import sys, serving.cli; print([name for name in ('feast', 'pandas', 'kafka', 'polars') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"
