"""A cache of a domain's interactions, so that a training run reads only archived parts that are new or have grown.

One Parquet file a domain: the rows in training order, each event once, and in its metadata which parts they came from,
by name and size. What comes out equals `dataset.interactions` over the whole archive, row for row.
"""

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
from stream.files import replacing

VERSION: Final = 1
META: Final = b"coldstream"
COLUMNS: Final = (*dataset.COLUMNS, "event_id")


class CacheIndex(msgspec.Struct, frozen=True):
    """What a cache was made of: the size in bytes of each part by name, and the last offset read of each."""

    version: int = VERSION
    sizes: dict[str, int] = {}
    offsets: dict[str, int] = {}


class CacheStats(msgspec.Struct, frozen=True):
    """Which parts were opened, how many parts there are, and how many rows were new."""

    opened: list[str]
    parts: int
    new: int


def interactions(archive: Path, domain: str, folder: Path) -> tuple[pd.DataFrame, CacheStats]:
    """The result of `dataset.interactions(archive, domain)`, and what was read for it; `folder` holds the caches.

    The cache is rebuilt if a part is smaller than it was, or gone, or if the cache cannot be read.

    Raises:
        ArchiveError: there is no archive yet, or a part is damaged.
    """
    archived = {path.stem: path for path in parts(archive, "events")}
    if not archived:
        raise ArchiveError(f"{archive}: no events are archived yet; is the archive process running?")
    sizes = {name: path.stat().st_size for name, path in archived.items()}
    path = folder / f"{domain}.parquet"
    index, cached = _read(path)
    if any(sizes.get(name, -1) < size for name, size in index.sizes.items()):
        index, cached = CacheIndex(), None
    opened = [name for name, size in sizes.items() if index.sizes.get(name) != size]
    new_rows, offsets = [], dict(index.offsets)
    for name in opened:
        rows, last = _rows(archived[name], domain, offsets.get(name, -1))
        new_rows.append(rows)
        offsets[name] = last
    added = sum(len(rows) for rows in new_rows)
    if cached is None or added:
        rows = pl.concat([*([cached] if cached is not None else []), *new_rows])
        cached = dataset.in_training_order(rows.lazy()).collect()
    if opened:
        _write(path, cached, CacheIndex(sizes=sizes, offsets=offsets))
    return cached.drop(dataset.ORDER_COLUMNS).to_pandas(), CacheStats(opened, len(archived), added)


def _rows(path: Path, domain: str, after: int) -> tuple[pl.DataFrame, int]:
    """A domain's interactions in a part after an offset, and the last offset of the part."""
    try:
        lines = pl.scan_parquet(path.open("rb"))  # it may be replaced by a longer one while it is read
        matching = (pl.col("type") == "interaction") & (pl.col("domain") == domain) & (pl.col("offset") > after)
        last = lines.select(pl.col("offset").max()).collect().item()
        return lines.filter(matching).select(COLUMNS).collect(), int(last if last is not None else after)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ArchiveError(
            f"{path} is damaged ({error}); delete it and the archive is written again from the log when it starts"
        ) from error


def _read(path: Path) -> tuple[CacheIndex, pl.DataFrame | None]:
    """The cache, or an empty one where this version cannot read it: it is only a copy."""
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
    table = frame.to_arrow()
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), META: msgspec.json.encode(index)})
    with replacing(path) as temporary:  # a run and a look at drift may write at once
        pq.write_table(table, temporary, compression="lz4")
