"""Numbers as people and spreadsheets write them: decimal commas, thousands, currencies, dashes; ids turned into floats.

What a text can mean is decided for a whole column: `1,234` is 1.234 where another value is written `12,50`.
"""

from typing import Final

import polars as pl

PLAIN: Final = r"^-?(0|[1-9]\d{0,14})(\.\d+)?$"
"""A number for certain; leading zeros mark a code."""
BLANKS: Final = r"[\s\u{00A0}\u{202F}\u{2009}'\u{2019}]"
CURRENCY: Final = (
    r"(?i)^(-?)(?:[\p{Sc}]|R\$|US\$|EUR|USD|GBP|CHF|JPY|CNY|INR|SEK|NOK|DKK|PLN|CZK|HUF|BRL|CAD|AUD|kr\.?|zł|Kč|Fr\.?)"
)
CURRENCY_BEHIND: Final = (
    r"(?i)(?:[\p{Sc}]|EUR|USD|GBP|CHF|JPY|CNY|INR|SEK|NOK|DKK|PLN|CZK|HUF|BRL|CAD|AUD|kr\.?|zł|Kč|Fr\.?|,-|\.-)$"
)
DASHES: Final = r"^[-\u{2013}\u{2014}\u{2212}]+$"
COMMA_DECIMAL: Final = (r"^-?\d+,(\d{1,2}|\d{4,})$", r"^-?\d{1,3}(\.\d{3})+,\d+$", r"^-?0,\d+$")
POINT_DECIMAL: Final = (r"^-?\d+\.(\d{1,2}|\d{4,})$", r"^-?\d{1,3}(,\d{3})+\.\d+$", r"^-?0\.\d+$")
COMMA_THOUSANDS: Final = r"^-?\d{1,3}(,\d{3})+(\.\d+)?$"
POINT_THOUSANDS: Final = r"^-?\d{1,3}(\.\d{3})+(,\d+)?$"

SPREADSHEET_INTEGER: Final = r"^\d+(\.0+|,0)$"
SPREADSHEET_DECIMAL: Final = r"^\d+\.\d+$"
SPREADSHEET_LARGE: Final = r"^\d([.,]\d+)?E\+\d{2}$"
MAX_EXACT: Final = 2.0**53


def read_numbers(column: pl.Series) -> tuple[pl.Series, str | None]:
    """The column as Float64, null where it is no finite number; and how other than plain numbers were understood."""
    if column.dtype.is_numeric() or column.dtype.is_decimal() or column.dtype == pl.Boolean:
        return _finite(column.cast(pl.Float64)), None
    if column.dtype == pl.Duration:
        return column.dt.total_milliseconds().cast(pl.Float64) / 1000, "durations, taken as seconds"
    if column.dtype != pl.String:
        return pl.Series(column.name, [None], pl.Float64).new_from_index(0, len(column)), None
    numbers = column.cast(pl.Float64, strict=False)
    other = numbers.is_null() & column.is_not_null()
    if not other.any():
        return _finite(numbers), None
    bare = _bare(column.filter(other))
    comma = _count(bare, COMMA_DECIMAL) > _count(pl.concat([bare, column.filter(~other).drop_nulls()]), POINT_DECIMAL)
    if comma:  # then 1.234 is a thousand
        other |= column.str.contains(POINT_THOUSANDS).fill_null(value=False)
        bare = _bare(column.filter(other))
    read = _localized(bare, comma=comma)
    places = other.arg_true()
    result = _finite(numbers.scatter(places, read))
    if not read.is_not_null().any():
        return result, None
    first = read.is_not_null().arg_true()[0]
    example = f"{column[places[first]]!r} as {read[first]:g}"
    return result, f"numbers in another form ({'comma' if comma else 'point'} before decimals), such as {example}"


def is_dash(column: pl.Series) -> pl.Series:
    """Whether each text is only a dash, as tables write "nothing"."""
    return column.str.contains(DASHES).fill_null(value=False)


def whole_ids(ids: pl.Series) -> tuple[pl.Series, str | None]:
    """Ids as text, integers where a spreadsheet wrote them as floats; and what was changed.

    17850.0 becomes 17850, unless other ids of the column have decimals; 4.00638E+12 becomes 4006380000000.
    """
    if ids.dtype.is_float() or ids.dtype.is_decimal():
        return _from_floats(ids.cast(pl.Float64))
    text = ids.cast(pl.String)
    large = text.str.contains(SPREADSHEET_LARGE).fill_null(value=False)
    floats = text.str.contains(SPREADSHEET_INTEGER).fill_null(value=False)
    if floats.any() and (text.str.contains(SPREADSHEET_DECIMAL).fill_null(value=False) & ~floats).any():
        floats = floats & False
    if not (large.any() or floats.any()):
        return text, None
    whole = pl.select(
        pl.when(large)
        .then(
            text.str.replace(",", ".", literal=True)
            .cast(pl.Float64, strict=False)
            .cast(pl.Int64, strict=False)
            .cast(pl.String)
        )
        .when(floats)
        .then(text.str.replace(r"(\.0+|,0)$", ""))
        .otherwise(text)
    ).to_series()
    notes = [_change(text, whole, floats)] if floats.any() else []
    if large.any():
        notes.append(
            f"{_change(text, whole, large)}: a spreadsheet cut their digits, so different ids may have become one; "
            "export them as text"
        )
    return whole.rename(ids.name), "; ".join(notes)


def numbers_where_all_are(column: pl.Series) -> tuple[pl.Series, str | None]:
    """A column of texts as numbers where every one is; one with leading zeros holds codes and stays text.

    Prices with a currency or a decimal comma are numbers too; a dash among numbers is nothing.
    """
    text = column
    present = text.filter(text.is_not_null() & ~is_dash(text))
    if not len(present):
        return text, None
    if present.str.contains(PLAIN).all():
        bare = text.set(is_dash(text), None)
        whole = not present.str.contains(".", literal=True).any()
        return bare.cast(pl.Int64 if whole else pl.Float64), None
    if present.str.contains(r"^[+-]?0\d").any() or not present.str.contains(r"\d").all():
        return text, None
    numbers, note = read_numbers(text.set(is_dash(text), None))
    if note is None or numbers.null_count() > len(text) - len(present):
        return text, None
    return numbers, note


def _bare(text: pl.Series) -> pl.Series:
    """Without currency, blanks and a sign at the end; (12.50) is negative."""
    return (
        text.str.replace_all(BLANKS, "")
        .str.replace_all(r"[\u{2212}\u{2013}\u{2014}]", "-")
        .str.replace(CURRENCY, "$1")
        .str.replace(CURRENCY_BEHIND, "")
        .str.replace(r"^\((.+)\)$", "-$1")
        .str.replace(r"^([^-].*)-$", "-$1")
        .str.replace(CURRENCY, "$1")
    )


def _localized(bare: pl.Series, *, comma: bool) -> pl.Series:
    both = bare.str.contains(",", literal=True) & bare.str.contains(".", literal=True)
    last_is_comma = bare.str.contains(r",[^.]*$")
    as_comma = bare.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    as_point = bare.str.replace_all(",", "", literal=True)
    thousands = bare.str.contains(COMMA_THOUSANDS)
    grouped = bare.str.contains(POINT_THOUSANDS) | bare.str.contains(r"^-?\d+,\d+$")
    form = (
        pl.when(both)
        .then(pl.when(last_is_comma & grouped).then(as_comma).when(~last_is_comma & thousands).then(as_point))
        .when(thousands & (not comma))
        .then(as_point)
        .when(bare.str.contains(r"^-?\d+,\d+(E[+-]?\d+)?$"))
        .then(as_comma)
        .when(bare.str.contains(POINT_THOUSANDS) & comma)
        .then(as_comma)
        .when(thousands & bare.str.contains(r",.*,"))
        .then(as_point)
        .when(bare.str.contains(r"\.\d+\."))
        .then(pl.when(bare.str.contains(POINT_THOUSANDS)).then(as_comma))
        .otherwise(bare)
    )
    return pl.select(form).to_series().cast(pl.Float64, strict=False)


def _count(text: pl.Series, patterns: tuple[str, ...]) -> int:
    return int(sum(text.str.contains(pattern).sum() for pattern in patterns))


def _finite(numbers: pl.Series) -> pl.Series:
    return numbers.set(~numbers.is_finite().fill_null(value=True), None)


def _from_floats(ids: pl.Series) -> tuple[pl.Series, str | None]:
    ids = _finite(ids)
    whole = (ids == ids.floor()) & (ids.abs() <= 2.0**63 - 1024)
    text = pl.select(
        pl.when(whole).then(ids.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(ids.cast(pl.String))
    ).to_series()
    if not whole.any():
        return text.rename(ids.name), None
    note = f"floats, taken as whole numbers such as {text.filter(whole.fill_null(value=False))[0]}"
    if (ids.abs() > MAX_EXACT).any():
        note += "; above 2^53 they have lost digits, so different ids may have become one"
    return text.rename(ids.name), note


def _change(before: pl.Series, after: pl.Series, changed: pl.Series) -> str:
    first = changed.arg_true()[0]
    return f"{int(changed.sum()):,} written as {before[first]}, taken as {after[first]}"
