"""REES46 e-commerce logs (one csv a month): views, carts and purchases of a shop, by session.

The event's price is its value, a product's category its category code; a product without one keeps its category id.
"""

from pathlib import Path
from typing import Final

import polars as pl

from stream.cleaning import LINE, Cleaner, CleaningOptions
from stream.errors import SourceError
from stream.sources.delimited import TextForm, read_text
from stream.sources.source import Source, assemble, content_ids, keep_first, keep_users, row_faults
from stream.sources.times import to_epoch_ms

NAME: Final = "rees46"
KINDS: Final = {"view": "view", "cart": "cart", "remove_from_cart": "remove", "purchase": "purchase"}


def open_rees46(place: Path, *, domain: str = "shop", cleaning: CleaningOptions | None = None) -> Source:
    """One month's csv (gz or not), or every csv of a folder.

    Raises:
        SourceError: there is none, or one cannot be read.
    """
    cleaner = Cleaner(NAME, cleaning or CleaningOptions())
    files = sorted(place.glob("*.csv*")) if place.is_dir() else [place]
    if not files:
        raise SourceError(f"{place}: has no csv file; give one month such as 2019-Oct.csv")
    rows = keep_first(cleaner, pl.concat(_typed(cleaner, file) for file in files))
    events = rows.with_columns(event_id=content_ids(NAME, rows))
    return assemble(cleaner, NAME, domain, events.drop("brand"), items=_items(rows), listed=False)


def _typed(cleaner: Cleaner, file: Path) -> pl.DataFrame:
    raw = keep_users(cleaner, read_text(file, cleaner, TextForm(delimiter=",")), "user_id")
    at, note = to_epoch_ms(raw["event_time"])
    cleaner.note(f"at: {note}")
    typed = raw.select(
        LINE,
        user_id="user_id",
        item_id="product_id",
        kind=pl.col("event_type").replace(KINDS),
        at=at,
        value=pl.col("price").cast(pl.Float64, strict=False),
        session_id="user_session",
        category=pl.coalesce("category_code", "category_id"),
        brand="brand",
    )
    reasons = row_faults(typed, cleaner.now_ms, {"at": raw["event_time"], "value": raw["price"]})
    return cleaner.keep_parsed(file.name, raw, typed, reasons)


def _items(rows: pl.DataFrame) -> pl.DataFrame:
    latest = rows.sort("at", maintain_order=True).unique("item_id", keep="last", maintain_order=True)
    leaf = pl.col("category").str.split(".").list.last().str.replace_all("_", " ")
    named = pl.when(~pl.col("category").str.contains(r"^\d+$")).then(leaf)
    title = pl.concat_str("brand", named, separator=" ", ignore_nulls=True)
    return latest.select(
        "item_id",
        "category",
        title=pl.when(title != "").then(title),
        attributes=pl.struct("brand", pl.col("value").alias("price")),
    )
