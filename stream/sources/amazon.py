"""Amazon reviews 2014, 5-core (McAuley et al.): a review stands for a purchase. JSON lines, or Parquet.

Times have the resolution of a day, so ties are common; they keep the file's order. The stars, where the file has them,
are in the context. The sets have no catalogue: titles and categories stay empty.
"""

from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from stream.cleaning import LINE, Cleaner, CleaningOptions
from stream.errors import SourceError
from stream.sources.files import read_json_lines, read_parquet
from stream.sources.source import Source, assemble, keep_first, keep_users, row_faults, unique_ids

NAME: Final = "amazon"
KEY: Final = pl.format("amazon-{}-{}", "user_id", "item_id")


class Review(msgspec.Struct):
    """The fields of a review that are used."""

    asin: str
    reviewerID: str | None = None  # noqa: N815 - as the file spells it
    unixReviewTime: int | str | None = None  # noqa: N815
    overall: float | None = None


def open_amazon(file: Path, *, domain: str = "shop", cleaning: CleaningOptions | None = None) -> Source:
    """One category: `reviews_*.json`, `*_5.json.gz` or a Parquet file with reviewerID, asin and unixReviewTime.

    Raises:
        SourceError: it cannot be read.
    """
    cleaner = Cleaner(f"{NAME}-{file.name.split('.')[0].lower()}", cleaning or CleaningOptions())
    if file.suffix == ".parquet":
        raw = read_parquet(file, cleaner)
        _check(file, raw)
    else:
        raw = read_json_lines(file, cleaner, Review)
    raw = keep_users(cleaner, raw, "reviewerID")
    typed = _typed(raw)
    reasons = row_faults(typed, cleaner.now_ms, {"at": raw["unixReviewTime"]})
    events = keep_first(cleaner, cleaner.keep_parsed(file.name, raw, typed, reasons))
    cleaner.note("at: epoch seconds, whole days")
    events = events.with_columns(event_id=unique_ids(KEY))
    return assemble(cleaner, cleaner.source, domain, events)


def _check(file: Path, raw: pl.DataFrame) -> None:
    missing = {"reviewerID", "asin", "unixReviewTime"} - set(raw.columns)
    if missing:
        raise SourceError(
            f"{file}: has no column {', '.join(sorted(missing))}; it has {', '.join(raw.columns[:-1])}; "
            "import it with a column map"
        )


def _typed(raw: pl.DataFrame) -> pl.DataFrame:
    rated = pl.struct(pl.col("overall").cast(pl.Float64).alias("rating"))
    context = {"context": rated} if "overall" in raw.columns else {}
    return raw.select(
        LINE,
        user_id="reviewerID",
        item_id="asin",
        kind=pl.lit("purchase"),
        at=pl.col("unixReviewTime").cast(pl.Int64, strict=False) * 1000,
        **context,
    )
