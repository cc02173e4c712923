"""Globo.com news clicks (de Souza Pereira Moreira, 2018): readers' clicks on articles in October 2017, by session.

Device, system, country, region and referrer of a click are its context; a reader's segment is the region of the first
click. With articles_metadata.csv beside the clicks, articles have its categories; the set has no text.
"""

from pathlib import Path
from typing import Final

import polars as pl

from stream.cleaning import LINE, Cleaner, CleaningOptions
from stream.errors import SourceError
from stream.sources.delimited import TextForm, read_text
from stream.sources.files import find_optional, read_parquet
from stream.sources.source import Source, assemble, keep_first, keep_users, row_faults, unique_ids

NAME: Final = "globo"
COMMA: Final = TextForm(delimiter=",")
CONTEXT: Final = {
    "environment": "click_environment",
    "device": "click_deviceGroup",
    "os": "click_os",
    "country": "click_country",
    "region": "click_region",
    "referrer": "click_referrer_type",
}


def open_globo(folder: Path, *, domain: str = "news", cleaning: CleaningOptions | None = None) -> Source:
    """clicks.parquet, or every clicks_hour_*.csv (gz or not) in `folder` or its folder `clicks`; or one such file.

    Raises:
        SourceError: none is there, or one cannot be read.
    """
    cleaner = Cleaner(NAME, cleaning or CleaningOptions())
    parts = []
    for file in _files(folder):
        raw = read_parquet(file, cleaner) if file.suffix == ".parquet" else read_text(file, cleaner, COMMA)
        raw = keep_users(cleaner, raw, "user_id")
        typed = _typed(raw)
        reasons = row_faults(typed, cleaner.now_ms, {"at": raw["click_timestamp"]})
        parts.append(cleaner.keep_parsed(file.name, raw, typed, reasons))
    cleaner.note("at: epoch milliseconds")
    events = keep_first(cleaner, pl.concat(parts))
    key = pl.format("globo-{}-{}-{}", "session_id", "item_id", "at")
    events = events.with_columns(event_id=unique_ids(key))
    home = folder if folder.is_dir() else folder.parent
    return assemble(cleaner, NAME, domain, events, items=_items(cleaner, home), users=_users(events))


def _files(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    whole = folder / "clicks.parquet"
    if whole.is_file():
        return [whole]
    hours = sorted([*folder.glob("clicks_hour_*.csv*"), *folder.glob("clicks/clicks_hour_*.csv*")])
    if not hours:
        raise SourceError(f"{folder}: has neither clicks.parquet nor clicks_hour_*.csv; give the data set's folder")
    return hours


def _typed(raw: pl.DataFrame) -> pl.DataFrame:
    return raw.select(
        LINE,
        user_id=pl.col("user_id").cast(pl.String),
        item_id=pl.col("click_article_id").cast(pl.String),
        kind=pl.lit("click"),
        at=pl.col("click_timestamp").cast(pl.Int64, strict=False),
        session_id=pl.col("session_id").cast(pl.String),
        context=pl.struct(pl.col(column).cast(pl.Int64, strict=False).alias(name) for name, column in CONTEXT.items()),
    )


def _items(cleaner: Cleaner, home: Path) -> pl.DataFrame | None:
    described = find_optional(home, "articles_metadata.csv")
    if described is None:
        return None
    raw = read_text(described, cleaner.of("items"), COMMA)
    number = {name: pl.col(name).cast(pl.Int64, strict=False) for name in ("created_at_ts", "words_count")}
    return raw.select(
        item_id="article_id",
        category="category_id",
        attributes=pl.struct(number["created_at_ts"].alias("created_at"), number["words_count"].alias("words")),
    )


def _users(events: pl.DataFrame) -> pl.DataFrame:
    first = events.sort("at", maintain_order=True).unique("user_id", keep="first", maintain_order=True)
    fields = pl.col("context").struct
    region = pl.format("region {}", fields.field("region"))
    known = [fields.field(name) for name in ("device", "os", "country", "region")]
    return first.select("user_id", segment=region, attributes=pl.struct(known))
