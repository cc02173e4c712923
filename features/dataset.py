"""Training sets from the archive, as of a cut in time."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import msgspec
import pandas as pd
import polars as pl

from features.activity import DAY_MS, Activity, FoldSettings, LoggedEvent, apply
from features.archive import partitions, parts, read_events
from features.errors import ArchiveError

if TYPE_CHECKING:
    from feast import FeatureStore

COLUMNS: Final = ("user_id", "item_id", "kind", "value", "at", "category", "partition", "offset")
ORDER_COLUMNS: Final = ("partition", "offset", "event_id")
"""Where an interaction stands in the log, and its id: what order and uniqueness are made of."""
TIMESTAMP: Final = "event_timestamp"
NO_RECORDS: Final[dict[str, list[str]]] = {"id": [], "label": [], "record": []}


def interactions(folder: Path, domain: str, until_at: int | None = None) -> pd.DataFrame:
    """Every interaction of `domain` before `until_at` (epoch ms, exclusive), each event once.

    Columns user_id, item_id, kind, value, at, category; sorted by `at`, ties in log order. `folder` is the archive's.

    Raises:
        ArchiveError: there is no archive yet.
    """
    if not any((folder / "events").glob("*.parquet")):
        raise ArchiveError(f"{folder}: no events are archived yet; is the archive process running?")
    lines = scan_topic(folder, "events").filter((pl.col("type") == "interaction") & (pl.col("domain") == domain))
    if until_at is not None:
        lines = lines.filter(pl.col("at") < until_at)
    return in_training_order(lines.select([*COLUMNS, "event_id"])).drop(ORDER_COLUMNS).collect().to_pandas()


def scan_topic(folder: Path, topic: str) -> pl.LazyFrame:
    """Every line of a topic that is archived now; there is at least one part.

    The newest part of each partition grows by being replaced, and Polars opens a path more than once: so those are
    opened here, and stay what they are.
    """
    every = parts(folder, topic)
    newest = set({path.stem.rsplit("-", 1)[0]: path for path in every}.values())
    opened: list[IO[bytes]] = [path.open("rb") for path in every if path in newest]
    lines = [pl.scan_parquet(opened)]
    if len(newest) < len(every):
        lines.append(pl.scan_parquet([path for path in every if path not in newest]))
    return pl.concat(lines)


def in_training_order(lines: pl.LazyFrame) -> pl.LazyFrame:
    """Interactions by `at`, ties in log order, each event of a user once."""
    placed = lines.sort(["at", "partition", "offset"])
    return placed.unique(["user_id", "event_id"], keep="first", maintain_order=True)


def catalogue(folder: Path, domain: str) -> pd.DataFrame:
    """The newest word on every item of `domain`: id, label (the category), record (JSON)."""
    return _newest(folder, "items", domain)


def profiles(folder: Path, domain: str) -> pd.DataFrame:
    """The newest word on every user of `domain`: id, label (the segment), record (JSON)."""
    return _newest(folder, "users", domain)


def profile_words(folder: Path, domain: str) -> pd.DataFrame:
    """Every word on the users of `domain` in log order, so that one can ask what was known when: id, label, record."""
    lines = _words(folder, "users", domain)
    return lines.collect().to_pandas() if lines is not None else pd.DataFrame(NO_RECORDS)


def _newest(folder: Path, topic: str, domain: str) -> pd.DataFrame:
    lines = _words(folder, topic, domain)
    if lines is None:
        return pd.DataFrame(NO_RECORDS)
    return lines.unique("id", keep="last", maintain_order=True).collect().to_pandas()


def _words(folder: Path, topic: str, domain: str) -> pl.LazyFrame | None:
    if not any((folder / topic).glob("*.parquet")):
        return None
    lines = scan_topic(folder, topic).filter(pl.col("domain") == domain)
    return lines.sort(["partition", "offset"]).select(*NO_RECORDS)


def write_snapshots(
    archive: Path, domain: str, offline: Path, rules: FoldSettings, *, every_ms: int = DAY_MS, since_at: int = 0
) -> int:
    """Feast's offline side, from the archive: users' states as they were, and their profiles; the states written.

    A state is kept at a user's last event of every `every_ms` (0: at each event) from `since_at` on (epoch ms), under
    that event's own time. States are folded in order of time, so what came late is in its place.

    Raises:
        ArchiveError: there is no archive yet.
    """
    states: list[tuple[str, int, bytes]] = []
    for user_id, entries in _by_user(archive, domain):
        state: Activity | None = None
        for entry, following in pairwise([*entries, None]):
            assert entry is not None
            state = apply(state, [entry], rules)
            at = entry.event.at
            next_at = following.event.at if following is not None else None
            last = next_at is None or (next_at != at and (not every_ms or next_at // every_ms != at // every_ms))
            if last and at >= since_at:
                states.append((user_id, at, msgspec.json.encode(state)))
    _write_offline(offline / f"{domain}_activity.parquet", "user_id", "state", states, pl.Binary)
    users = profiles(archive, domain)
    records = zip(users["id"].astype(str), users["record"].astype(str), strict=True)
    lines = [(identity, int(msgspec.json.decode(record)["at"]), record) for identity, record in records]
    _write_offline(offline / f"{domain}_profile.parquet", "user_id", "record", lines, pl.String)
    return len(states)


def training_set(feast: "FeatureStore", domain: str, rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` [user_id, at, ...] with the columns state and record: each user as known strictly before `at` (epoch ms).

    Asked of Feast's point-in-time join over what `write_snapshots` wrote. A row of which nothing was known yet is
    dropped by that join; here it stays, with missing values.
    """
    asked = rows[["user_id"]].assign(
        row=range(len(rows)), event_timestamp=pd.to_datetime(rows["at"] - 1, unit="ms", utc=True)
    )
    found = feast.get_historical_features(asked, feast.get_feature_service(domain)).to_df()
    known = found.set_index("row")[["state", "record"]].reindex(range(len(rows)))
    return rows.assign(state=known["state"].to_numpy(), record=known["record"].to_numpy())


def _by_user(archive: Path, domain: str) -> Iterator[tuple[str, list[LoggedEvent]]]:
    """Each user's events in order of time, ties in log order, positions counted anew."""
    users: dict[str, list[LoggedEvent]] = {}
    numbers = partitions(archive, "events")
    if not numbers:
        raise ArchiveError(f"{archive}: no events are archived yet; is the archive process running?")
    for number in numbers:
        for entry in read_events(archive, "events", number):
            if entry.event.domain == domain:
                users.setdefault(entry.event.user_id, []).append(entry)
    for user_id, entries in users.items():
        entries.sort(key=lambda one: one.event.at)
        yield user_id, [LoggedEvent(one.event, one.partition, number) for number, one in enumerate(entries)]


def _write_offline(path: Path, key: str, feature: str, lines: Sequence[tuple[str, int, object]], dtype: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pl.DataFrame(lines, {key: pl.String, TIMESTAMP: pl.Int64, feature: dtype}, orient="row")
    aside = path.with_suffix(".aside")
    frame.with_columns(pl.from_epoch(TIMESTAMP, "ms").dt.replace_time_zone("UTC")).write_parquet(aside)
    aside.replace(path)
