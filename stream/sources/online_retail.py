"""UCI Online Retail (Chen, Sain & Guo 2012): a British shop's purchases, December 2010 to December 2011.

An invoice is a session, the amount (quantity times price) the value, the country the segment. A row whose invoice
begins with C takes a purchase back. By default such rows leave the data set together with what they take back: each
takes its quantity from the same customer's latest earlier purchases of the product; a purchase with nothing left is
removed, one with something left stays with its smaller amount. With `cancellations="emit"` all purchases stay and the
row becomes an event of kind `cancel`: what a live system would have seen.
"""

from pathlib import Path
from typing import Final, Literal

import polars as pl

from stream.cleaning import LINE, Cleaner, CleaningOptions
from stream.sources.delimited import TextForm, read_text
from stream.sources.files import find
from stream.sources.source import Source, assemble, keep_first, keep_users, row_faults, unique_ids
from stream.sources.times import to_epoch_ms

NAME: Final = "online-retail"
NOT_PRODUCTS: Final = "not products"
CANCELLATIONS: Final = "cancellations"
CANCELLED: Final = "cancelled purchases"
PRODUCT: Final = r"^\d{5}[A-Za-z]*$"
"""Other stock codes are postage, discounts, bank charges, manual corrections."""

Cancellations = Literal["remove", "emit"]


def open_online_retail(
    folder: Path,
    *,
    domain: str = "shop",
    cancellations: Cancellations = "remove",
    cleaning: CleaningOptions | None = None,
) -> Source:
    """online_retail.csv or OnlineRetail.csv (gz or not) in `folder`, or that file itself.

    Raises:
        SourceError: it is missing or cannot be read.
    """
    cleaner = Cleaner(NAME, cleaning or CleaningOptions())
    file = folder if folder.is_file() else find(folder, "online_retail.csv", "OnlineRetail.csv", "data.csv")
    raw = keep_users(cleaner, read_text(file, cleaner, TextForm(delimiter=",", fallback="cp1252")), "CustomerID")
    rows = keep_first(cleaner, _typed(cleaner, file, raw))
    rows = cleaner.keep(NOT_PRODUCTS, rows, pl.col("item_id").str.contains(PRODUCT))
    items, users = _items(rows), _users(rows)
    rows = rows.with_columns(event_id=unique_ids(pl.format("uci-{}-{}", "session_id", "item_id")))
    events = _take_back(cleaner, rows) if cancellations == "remove" else _emit(cleaner, rows)
    return assemble(cleaner, NAME, domain, events.drop("quantity", "price"), items=items, users=users, listed=False)


def _typed(cleaner: Cleaner, file: Path, raw: pl.DataFrame) -> pl.DataFrame:
    at, note = to_epoch_ms(raw["InvoiceDate"])
    cleaner.note(f"at: {note} (the shop's local time)")
    quantity, price = (pl.col(name).cast(pl.Float64, strict=False) for name in ("Quantity", "UnitPrice"))
    cancels = pl.col("InvoiceNo").str.starts_with("C")
    typed = raw.select(
        LINE,
        user_id=pl.col("CustomerID").str.replace(r"\.0$", ""),
        item_id=pl.col("StockCode").str.strip_chars(),
        kind=pl.when(cancels).then(pl.lit("cancel")).otherwise(pl.lit("purchase")),
        at=at,
        value=(quantity * price).abs().round(2),
        session_id="InvoiceNo",
        quantity=quantity,
        price=price,
        description=pl.col("Description").str.strip_chars(),
        country="Country",
    )
    amount = raw.select(pl.concat_str("Quantity", "UnitPrice", separator=" x ", ignore_nulls=True)).to_series()
    return cleaner.keep_parsed(
        file.name, raw, typed, row_faults(typed, cleaner.now_ms, {"at": raw["InvoiceDate"], "value": amount})
    )


def _take_back(cleaner: Cleaner, rows: pl.DataFrame) -> pl.DataFrame:
    """Without cancellations and what they cancel; purchases that are cancelled in part keep the rest."""
    rows = rows.with_row_index("row")
    pairs = rows.filter(pl.col("kind") == "cancel").select("user_id", "item_id").unique()
    concerned = rows.join(pairs, on=["user_id", "item_id"], how="semi").sort("at", maintain_order=True)
    left, unmatched = _quantities_left(concerned)
    gone = [row for row, quantity in left.items() if quantity <= 0]
    smaller = {row: quantity for row, quantity in left.items() if quantity > 0}
    kept = cleaner.keep(CANCELLATIONS, rows, pl.col("kind") != "cancel")
    kept = cleaner.keep(CANCELLED, kept, ~pl.col("row").is_in(gone))
    cleaner.note(
        f"cancellations: {len(gone):,} purchases were taken back whole, {len(smaller):,} in part (these stay, with the "
        f"rest); {unmatched:,} cancellations have no earlier purchase here"
    )
    rest = pl.col("row").replace_strict(smaller, default=pl.col("quantity"), return_dtype=pl.Float64)
    return kept.with_columns(value=(rest * pl.col("price")).abs().round(2)).drop("row")


def _quantities_left(concerned: pl.DataFrame) -> tuple[dict[int, float], int]:
    """What is left of each purchase that something was taken from; and how many cancellations found none."""
    bought: dict[tuple[str, str], list[int]] = {}
    quantities: dict[int, float] = {}
    left: dict[int, float] = {}
    unmatched = 0
    for row, user, item, kind, quantity in concerned.select(
        "row", "user_id", "item_id", "kind", "quantity"
    ).iter_rows():
        purchases = bought.setdefault((user, item), [])
        if kind == "purchase":
            purchases.append(row)
            quantities[row] = quantity
            continue
        unmatched += not purchases
        back = abs(quantity)
        while purchases and back > 0:
            latest = purchases[-1]
            taken = min(back, quantities[latest])
            quantities[latest] = left[latest] = quantities[latest] - taken
            back -= taken
            if quantities[latest] <= 0:
                purchases.pop()
    return left, unmatched


def _emit(cleaner: Cleaner, rows: pl.DataFrame) -> pl.DataFrame:
    cleaner.note(
        f"cancellations: {rows.filter(pl.col('kind') == 'cancel').height:,} rows sent as events of kind cancel"
    )
    return rows


def _items(rows: pl.DataFrame) -> pl.DataFrame:
    """A product's title is its most frequent description."""
    titles = (
        rows.drop_nulls("description")
        .group_by("item_id", "description", maintain_order=True)
        .len()
        .sort("len", descending=True, maintain_order=True)
        .unique("item_id", keep="first", maintain_order=True)
    )
    known = rows.select("item_id").unique(maintain_order=True)
    return known.join(titles.select("item_id", title="description"), on="item_id", how="left", maintain_order="left")


def _users(rows: pl.DataFrame) -> pl.DataFrame:
    latest = rows.unique("user_id", keep="last", maintain_order=True)
    return latest.select("user_id", segment="country", attributes=pl.struct("country"))
