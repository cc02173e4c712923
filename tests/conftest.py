"""What every test may ask for."""

import os
from pathlib import Path

import pytest

# What a test compiles is computed a few times only.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def public_data() -> Path:
    """The folder of public data sets; the test is skipped where there is none."""
    named = os.environ.get("COLDSTREAM_DATA")
    folder = Path(named) if named else CHECKOUT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no public data at {folder}; set COLDSTREAM_DATA to the folder that holds it")
    return folder
