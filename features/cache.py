"""Interactions of a domain, kept beside the archive so that a run reads only the parts that are new or have grown.

One Parquet file a domain: the rows in training order, each event once, and in its metadata which parts they came from,
by name and size. What comes out equals `dataset.interactions` over the whole archive, row for row.
"""

import os
from pathlib import Path
from typing import Final

import msgspec
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from features import dataset
from features.archive import parts
from features.errors import ArchiveError

VERSION: Final = 1
META: Final = b"coldstream"
COLUMNS: Final = (*dataset.COLUMNS, "event_id")


class CacheIndex(msgspec.Struct, frozen=True):
    """What a cache was made of: the size in bytes of each part by name, and the last offset read of each."""

    version: int = VERSION
    sizes: dict[str, int] = {}
    offsets: dict[str, int] = {}


class CacheStats(msgspec.Struct, frozen=True):
    """How a reading went: which parts were opened, how many are there, and how many rows were new."""

    opened: list[str]
    parts: int
    new: int


def interactions(archive: Path, domain: str, folder: Path) -> tuple[pd.DataFrame, CacheStats]:
    """What `dataset.interactions(archive, domain)` gives, and what was read for it; `folder` holds the caches.

    A part that is smaller than it was, or gone, makes the cache begin anew; so does a cache that cannot be read.

    Raises:
        ArchiveError: there is no archive yet, or a part is damaged.
    """
    there = {path.stem: path for path in parts(archive, "events")}
    if not there:
        raise ArchiveError(f"{archive}: no events are archived yet; is the archive process running?")
    sizes = {name: path.stat().st_size for name, path in there.items()}
    path = folder / f"{domain}.parquet"
    index, kept = _read(path)
    if any(sizes.get(name, -1) < size for name, size in index.sizes.items()):
        index, kept = CacheIndex(), None
    opened = [name for name, size in sizes.items() if index.sizes.get(name) != size]
    fresh, offsets = [], dict(index.offsets)
    for name in opened:
        rows, last = _rows(there[name], domain, offsets.get(name, -1))
        fresh.append(rows)
        offsets[name] = last
    new = sum(len(one) for one in fresh)
    if kept is None or new:
        kept = dataset.in_training_order(pl.concat([*([kept] if kept is not None else []), *fresh]).lazy()).collect()
    if opened:
        _write(path, kept, CacheIndex(sizes=sizes, offsets=offsets))
    return kept.drop(dataset.ORDER_COLUMNS).to_pandas(), CacheStats(opened, len(there), new)


def _rows(path: Path, domain: str, after: int) -> tuple[pl.DataFrame, int]:
    """The interactions of a domain in a part behind an offset, and the part's last offset."""
    try:
        lines = pl.scan_parquet(path.open("rb"))  # it may be replaced by a longer one while it is read
        wanted = (pl.col("type") == "interaction") & (pl.col("domain") == domain) & (pl.col("offset") > after)
        last = lines.select(pl.col("offset").max()).collect().item()
        return lines.filter(wanted).select(COLUMNS).collect(), int(last if last is not None else after)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ArchiveError(
            f"{path} is damaged ({error}); delete it and the archive is written again from the log"
        ) from error


def _read(path: Path) -> tuple[CacheIndex, pl.DataFrame | None]:
    """The cache, or an empty one where there is none that this version can read: it is only a copy."""
    if not path.exists():
        return CacheIndex(), None
    try:
        raw = (pq.read_schema(path).metadata or {}).get(META, b"{}")
        index = msgspec.json.decode(raw, type=CacheIndex)
        if index.version != VERSION:
            return CacheIndex(), None
        return index, pl.read_parquet(path)
    except (pa.ArrowInvalid, OSError, msgspec.DecodeError, pl.exceptions.PolarsError):
        path.unlink()
        return CacheIndex(), None


def _write(path: Path, frame: pl.DataFrame, index: CacheIndex) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = frame.to_arrow()
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), META: msgspec.json.encode(index)})
    aside = path.with_suffix(f".{os.getpid()}.aside")  # a run and a look at drift may write at once
    with aside.open("wb") as file:
        pq.write_table(table, file, compression="lz4")
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
