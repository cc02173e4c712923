"""Training sets by Feast's point-in-time join: nothing of the future is in them."""

from pathlib import Path

import msgspec
import pandas as pd
import pytest

from features.activity import Activity, FoldSettings
from features.archive import Archive, ArchiveRow
from features.dataset import training_set
from features.errors import ArchiveError
from features.offline import write_activity_history
from features.store import open_store
from stream.events import Interaction, User

NOON = 1_760_000_000_000
HOUR = 60 * 60 * 1000


def seen(number: int, at: int, item: str, user: str = "ann") -> Interaction:
    return Interaction(event_id=f"e{number}", user_id=user, item_id=item, kind="view", at=at)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Ann's future was logged before her past: the log's order does not tell what was known when."""
    events = [
        seen(1, NOON + 2 * HOUR, "future"),
        seen(2, NOON, "now"),
        seen(3, NOON - HOUR, "past"),
        seen(4, NOON, "tie"),
        seen(5, NOON - HOUR, "other", "bob"),
    ]
    archive = Archive(tmp_path / "archive")
    archive.append("events", [ArchiveRow(0, n, NOON + 3 * HOUR, event) for n, event in enumerate(events)])
    archive.append("users", [ArchiveRow(0, 0, NOON, User(user_id="ann", at=NOON - 2 * HOUR, segment="old"))])
    archive.flush()
    return tmp_path / "archive"


def test_a_planted_future_event_does_not_leak(archive: Path, tmp_path: Path) -> None:
    store = open_store(tmp_path / "feast", "sqlite", ["shop"])
    written = write_activity_history(archive, "shop", FoldSettings(), every_ms=0)
    assert written == 4  # ann: past, both of now together, future; bob: one
    rows = pd.DataFrame(
        {
            "user_id": ["ann", "ann", "ann", "ann", "bob", "new"],
            "at": [NOON - HOUR, NOON, NOON + 1, NOON + 3 * HOUR, NOON, NOON],
            "label": ["past", "now", "after", "end", "bob", "new"],
        }
    )
    known = training_set(store.feast, "shop", rows).set_index("label")
    items = {
        label: msgspec.json.decode(state, type=Activity).recent.items if isinstance(state, bytes) else None
        for label, state in known["state"].items()
    }
    assert items == {
        "past": None,
        "now": ["past"],
        "after": ["past", "now", "tie"],
        "end": ["past", "now", "tie", "future"],
        "bob": ["other"],
        "new": None,
    }
    assert msgspec.json.decode(known.loc["now", "record"])["segment"] == "old"


def test_snapshots_by_day_are_older_but_never_from_the_future(archive: Path, tmp_path: Path) -> None:
    store = open_store(tmp_path / "feast", "sqlite", ["shop"])
    write_activity_history(archive, "shop", FoldSettings())
    rows = pd.DataFrame({"user_id": ["ann", "ann"], "at": [NOON + HOUR, NOON + 3 * HOUR]})
    states = training_set(store.feast, "shop", rows).sort_values("at")["state"].tolist()
    for state, least in zip(states, [0, 4], strict=True):
        items = msgspec.json.decode(state, type=Activity).recent.items if isinstance(state, bytes) else []
        assert len(items) == least


def test_nothing_is_archived_yet(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="no events are archived"):
        write_activity_history(tmp_path / "archive", "shop", FoldSettings())
