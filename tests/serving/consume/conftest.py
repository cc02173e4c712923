"""A real SQLite store for the consumer's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from features.store import OnlineStore, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OnlineStore]:
    opened = open_store(tmp_path / "feast", "sqlite", ["shop", "news"])
    yield opened
    opened.close()
