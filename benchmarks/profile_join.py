"""Reading profiles and joining them to every event, point in time: our join over Feast's offline files, and Feast's.

`python -m benchmarks.profile_join`. Each join runs in a process of its own; decision 0016 quotes the table.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from features.archive import Archive, ArchiveRow
from stream.events import User

USERS: Final = 2_469
UPDATES: Final = 4
START: Final = 1_760_000_000_000
SPAN_MS: Final = 36_000_000_000
EVENTS_FILE: Final = "events.parquet"


def write_data(folder: Path, events: int) -> None:
    """An archive of four profiles per user over 417 days, and events at random times in between."""
    profiles = [
        User(user_id=str(user), at=START + update * SPAN_MS // UPDATES + user, segment=f"s{user % 6}", attributes=known)
        for update in range(UPDATES)
        for user in range(USERS)
        for known in [{"age": f"{user % 7}", "income": f"{user % 12}", "kids": str(user % 4), "home": "owner"}]
    ]
    archive = Archive(folder / "archive")
    archive.append("users", [ArchiveRow(0, number, START + number, user) for number, user in enumerate(profiles)])
    archive.flush()
    rng = np.random.default_rng(0)
    users, at = rng.integers(0, USERS, events).astype(str), START + rng.integers(0, SPAN_MS, events)
    frame = pd.DataFrame({"user_id": users, "at": at}).sort_values("at", ignore_index=True)
    frame.to_parquet(folder / EVENTS_FILE)


def join_ours(folder: Path, events: pd.DataFrame) -> int:
    """The profile before each event, by binary search; the number of events with one."""
    from features.offline import OfflineStore
    from models.data.profiles import ProfileHistory

    store = OfflineStore(folder / "archive", ["shop"])
    store.update()
    history = ProfileHistory.from_frame(store.profile_history("shop"))
    rows = history.before_events(events["user_id"].to_numpy(), events["at"].to_numpy()).rows
    return int((rows > 0).sum())


def join_feast(folder: Path, events: pd.DataFrame) -> int:
    """The same by `get_historical_features`."""
    from features.store import open_store

    feast = open_store(folder / "feast", "sqlite", ["shop"]).feast
    entities = events.assign(event_timestamp=pd.to_datetime(events["at"] - 1, unit="ms", utc=True))
    joined = feast.get_historical_features(entities, ["shop_profile:record"]).to_df()
    return int(joined["record"].notna().sum())


def measure(folder: Path, name: str) -> None:
    """Print one line: processor and wall seconds, additional peak memory."""
    events = pd.read_parquet(folder / EVENTS_FILE)
    join = {"ours": join_ours, "feast": join_feast}[name]
    peak, cpu_s, wall_s = _peak_mb(), time.process_time(), time.monotonic()
    matched = join(folder, events)
    cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - wall_s
    print(f"{name:<6} {cpu_s:6.1f} s of CPU {wall_s:6.1f} s  +{_peak_mb() - peak:,.0f} MB  {matched:,} events matched")


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """A line per join; ours twice, since the first one also writes the offline files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_400_000)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=["ours", "feast"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        measure(options.folder, options.only)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), options.events)
        for name in ("ours", "ours", "feast"):
            command = [sys.executable, "-m", "benchmarks.profile_join", "--folder", folder, "--only", name]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
