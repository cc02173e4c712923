"""A working folder full of modules that must never be imported: names of the standard library and of dependencies."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

NAMES: Final = (
    *("attr", "json", "random", "types", "logging", "asyncio", "sitecustomize", "feast", "kafka", "aiokafka", "faust"),
    *("msgspec", "numpy", "pandas", "polars", "keras", "tensorflow", "onnxruntime", "litestar", "granian", "redis"),
    *("stream", "features", "models", "serving", "typer", "rich", "httpx", "duckdb", "pyarrow", "optuna", "mlflow"),
)


def foreign_modules(folder: Path, names: Sequence[str] = NAMES) -> Path:
    """Fill the folder: each module ends the process that imports it, and says so."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        text = f"import os\nos.write(2, b'imported {name} from the working folder\\n')\nos._exit(70)\n"
        (folder / f"{name}.py").write_text(text)
    return folder
