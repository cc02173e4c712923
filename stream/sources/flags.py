"""Texts and numbers that mean true or false: whether an item is available."""

from typing import Final

import polars as pl

from stream.sources.columnar import flat

TRUE: Final = (
    *("true", "t", "yes", "y", "1", "on", "instock", "available", "active", "enabled", "ja", "wahr", "oui"),
    *("vrai", "si", "verdadero", "verfügbar", "lieferbar", "preorder", "backorder", "limitedavailability"),
    *("onlineonly", "instoreonly"),
)
FALSE: Final = (
    *("false", "f", "no", "n", "0", "off", "outofstock", "soldout", "unavailable", "notavailable", "inactive"),
    *("disabled", "discontinued", "nein", "falsch", "non", "faux", "falso", "nichtverfügbar", "nichtlieferbar"),
)
"""As `_plain` leaves them. Feeds of shops and schema.org write InStock, out_of_stock, PreOrder."""
MAX_SHOWN: Final = 4


def read_flags(column: pl.Series) -> tuple[pl.Series, str | None]:
    """The column as Boolean, null where it is neither true nor false; and which texts were read as which."""
    if column.dtype == pl.Boolean:
        return column, None
    written = flat(column).cast(pl.String)
    meanings = {**dict.fromkeys(TRUE, True), **dict.fromkeys(FALSE, False)}
    flags = _plain(written).replace_strict(meanings, default=None, return_dtype=pl.Boolean).rename(column.name)
    return flags, _readings(written, flags)


def _plain(text: pl.Series) -> pl.Series:
    """Small letters without blanks, `_` and `-` between them, without the address of schema.org; 1.0 as 1."""
    return (
        text.str.replace(r"^https?://schema\.org/", "")
        .str.to_lowercase()
        .str.replace_all(r"(\p{L})[\s_-]+", "$1")
        .str.replace(r"^([01])\.0+$", "$1")
    )


def _readings(written: pl.Series, flags: pl.Series) -> str | None:
    readings = []
    for meaning in (True, False):
        texts = written.filter((flags == meaning).fill_null(value=False)).unique().sort()
        if len(texts):
            more = " ..." if len(texts) > MAX_SHOWN else ""
            readings.append(f"{', '.join(texts.head(MAX_SHOWN))}{more} read as {str(meaning).lower()}")
    return "; ".join(readings) or None
