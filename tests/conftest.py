"""What every test may ask for."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.temporary_folder import removed_if_killed

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


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A run that is killed leaves no process and no temporary folder."""
    with removed_if_killed(tmp_path_factory.getbasetemp()):
        yield
