"""Last.fm, HetRec 2011: how often 1,892 listeners played each of 17,632 artists, and their friends. No times at all.

A pair is one event of kind `play`, its count the value. Times are made up: each listener's artists come one an hour
from 2011-05-01 on, in an order drawn from a hash of the pair. It is an order without real time: good for trying the
system and for co-occurrence, worthless for anything about sequence. The report says so.
"""

from hashlib import blake2b
from pathlib import Path
from typing import Final

import polars as pl

from stream.cleaning import LINE, Cleaner, CleaningOptions
from stream.sources.delimited import TextForm, read_text
from stream.sources.files import find, find_optional
from stream.sources.source import Source, assemble, keep_first, keep_users, row_faults, unique_ids

NAME: Final = "lastfm-hetrec"
TABS: Final = TextForm(delimiter="\t", quotes=False)
BEGIN_MS: Final = 1_304_208_000_000
"""2011-05-01, the month of the data set."""
STEP_MS: Final = 60 * 60 * 1000


def open_lastfm(folder: Path, *, domain: str = "music", cleaning: CleaningOptions | None = None) -> Source:
    """user_artists.dat, artists.dat and user_friends.dat, gz or not.

    Raises:
        SourceError: a file is missing or cannot be read.
    """
    cleaner = Cleaner(NAME, cleaning or CleaningOptions())
    file = find(folder, "user_artists.dat")
    raw = keep_users(cleaner, read_text(file, cleaner, TABS), "userID")
    typed = raw.select(
        LINE,
        user_id="userID",
        item_id="artistID",
        kind=pl.lit("play"),
        at=pl.lit(BEGIN_MS, pl.Int64),
        value=pl.col("weight").cast(pl.Float64, strict=False),
    )
    reasons = row_faults(typed, cleaner.now_ms, {"value": raw["weight"]})
    events = keep_first(cleaner, cleaner.keep_parsed(file.name, raw, typed, reasons), ["user_id", "item_id"])
    cleaner.note(
        "times are made up: an order without real time, each user's artists one an hour, by a hash of the pair"
    )
    events = _timed(events).with_columns(event_id=unique_ids(pl.format("lastfm-{}-{}", "user_id", "item_id")))
    return assemble(cleaner, NAME, domain, events, items=_artists(cleaner, folder), users=_friends(cleaner, folder))


def _timed(events: pl.DataFrame) -> pl.DataFrame:
    pairs = zip(events["user_id"], events["item_id"], strict=True)
    drawn = [int.from_bytes(blake2b(f"{user}/{item}".encode(), digest_size=7).digest()) for user, item in pairs]
    ordered = events.with_columns(drawn=pl.Series(drawn, dtype=pl.Int64))
    number = pl.col("drawn").rank("ordinal").over("user_id").cast(pl.Int64) - 1
    return ordered.with_columns(at=pl.col("at") + number * STEP_MS).drop("drawn")


def _artists(cleaner: Cleaner, folder: Path) -> pl.DataFrame:
    raw = read_text(find(folder, "artists.dat"), cleaner.of("items"), TABS)
    return raw.select(item_id="id", title="name", attributes=pl.struct("url"))


def _friends(cleaner: Cleaner, folder: Path) -> pl.DataFrame | None:
    file = find_optional(folder, "user_friends.dat")
    if file is None:
        return None
    counted = cleaner.of("friends")
    raw = read_text(file, counted, TABS)
    counted.close(raw.height)
    friends = raw.group_by("userID", maintain_order=True).agg(pl.col("friendID").alias("friends"))
    return friends.select(user_id="userID", attributes=pl.struct("friends"))
