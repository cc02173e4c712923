"""Time zones as people write them behind a time: offsets, abbreviations, names such as Europe/Berlin."""

from typing import Final

import polars as pl

OFFSET: Final = r"(?:\d|[AaPp][Mm]) ?(?:UTC|GMT)?([+-]\d{2}:?\d{2})$"
SHORT_OFFSET: Final = r"(:\d{2}(?:\.\d+)?(?: ?[AaPp][Mm])?) ?(?:UTC|GMT)?([+-])(\d{1,2})$"
NAME: Final = r"(?:\d|[AaPp][Mm]) ?\[?([A-Za-z]+/[A-Za-z_/+-]+\d*|[A-Z][A-Za-z]{1,4})\]?$"
IN_THE_MIDDLE: Final = r"^(\D+ \d+ [\d:.]+) ([A-Z]{3,5}|[+-]\d{4}) (\d{4})$"
"""Wed Jan 31 10:15:00 CET 2024, as `date` and Java print it."""
HOUR: Final = 3_600_000
ABBREVIATIONS: Final[dict[str, float]] = {
    "UTC": 0,
    "GMT": 0,
    "Z": 0,
    "WET": 0,
    "WEST": 1,
    "BST": 1,
    "CET": 1,
    "MEZ": 1,
    "CEST": 2,
    "MESZ": 2,
    "EET": 2,
    "EEST": 3,
    "MSK": 3,
    "EST": -5,
    "EDT": -4,
    "CST": -6,
    "CDT": -5,
    "MST": -7,
    "MDT": -6,
    "PST": -8,
    "PDT": -7,
    "AKST": -9,
    "AKDT": -8,
    "HST": -10,
    "AST": -4,
    "ADT": -3,
    "BRT": -3,
    "IST": 5.5,
    "SGT": 8,
    "HKT": 8,
    "JST": 9,
    "KST": 9,
    "AEST": 10,
    "AEDT": 11,
    "ACST": 9.5,
    "AWST": 8,
    "NZST": 12,
    "NZDT": 13,
    "SAST": 2,
}
"""Hours from UTC. Some abbreviations mean several zones; the report says how they were taken."""
MILLISECONDS: Final = {name: round(hours * HOUR) for name, hours in ABBREVIATIONS.items()}


def without_zones(text: pl.Series) -> tuple[pl.Series, pl.Series, pl.Series]:
    """Times as written, their offset from UTC in ms (0 where none is written), and names of zones that have rules.

    `2020-01-02 03:04:05+01:00` is `2020-01-02 03:04:05`, one hour, no name. An offset before a name wins over it.
    """
    plain = (
        text.str.replace(r" ?\([^)]*\)$", "")
        .str.replace(IN_THE_MIDDLE, "$1 $3 $2")
        .str.replace(r"([+-]\d{2}:?\d{2}|[Zz]) ?\[[^\]]*\]$", "$1")
        .str.replace(r"(\d) ?[Zz]$", "$1")
        .str.replace(SHORT_OFFSET, "$1${2}0$3:00")
        .str.replace(r"([+-])0(\d\d):00$", "$1$2:00")
    )
    offset = pl.Series([0], dtype=pl.Int64).new_from_index(0, len(plain))
    names = pl.Series([None], dtype=pl.String).new_from_index(0, len(plain))
    written = plain.str.extract(OFFSET).set(~plain.str.contains(":").fill_null(value=False), None)
    if written.null_count() < len(written):
        digits = written.str.replace(":", "", literal=True)
        sign = pl.select(pl.when(digits.str.starts_with("-")).then(-1).otherwise(1)).to_series()
        minutes = digits.str.slice(1, 2).cast(pl.Int64) * 60 + digits.str.slice(3, 2).cast(pl.Int64)
        offset = (sign * minutes * 60_000).fill_null(0)
        cut = plain.str.replace(r" ?(?:UTC|GMT)?[+-]\d{2}:?\d{2}$", "")
        plain = pl.select(pl.when(written.is_not_null()).then(cut).otherwise(plain)).to_series()
    zone = plain.str.extract(NAME)
    if zone.null_count() < len(zone):
        known = zone.str.to_uppercase().replace_strict(MILLISECONDS, default=None, return_dtype=pl.Int64)
        named = zone.str.contains("/", literal=True).fill_null(value=False)
        taken = known.is_not_null() | named
        offset = pl.select(pl.when(known.is_not_null() & (offset == 0)).then(known).otherwise(offset)).to_series()
        names = zone.set((~named).fill_null(value=True), None)
        cut = plain.str.replace(r" ?\[?[A-Za-z]+(?:/[A-Za-z_/+-]+\d*)?\]?$", "")
        plain = pl.select(pl.when(taken).then(cut).otherwise(plain)).to_series()
    return plain, offset, names


def in_zones(moments: pl.Series, names: pl.Series) -> pl.Series:
    """Epoch ms that were read as UTC, moved to where their named zones were; null where there is no such zone."""
    for name in names.drop_nulls().unique():
        here = names == name
        local = moments.set(~here.fill_null(value=False), None).cast(pl.Datetime("ms"))
        try:
            moved = local.dt.replace_time_zone(name, ambiguous="earliest", non_existent="null").dt.epoch("ms")
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            moved = pl.Series([None], dtype=pl.Int64).new_from_index(0, len(moments))
        moments = pl.select(pl.when(here.fill_null(value=False)).then(moved).otherwise(moments)).to_series()
    return moments
