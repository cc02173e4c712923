"""Times as people write them, into epoch milliseconds. One form is chosen for a whole column, and said in the report.

Times without a zone are taken as UTC.
"""

from typing import Final

import numpy as np
import polars as pl

from stream.errors import SourceError
from stream.sources.time_zones import ABBREVIATIONS, in_zones, without_zones

COMMA_NUMBER: Final = r"^(\d{5,}),(\d+)$"
"""A number of a spreadsheet whose country writes a comma before decimals."""
NUMBER: Final = r"^[+-]?\d+(\.\d+)?([eE]\+?\d+)?$"
UNITS: Final = ((1e11, 1000.0, "seconds"), (1e14, 1.0, "milliseconds"), (1e17, 1e-3, "microseconds"))
"""A column whose middle value lies below the first figure holds that unit; above the last one, nanoseconds."""
SAMPLE: Final = 2_000

SPREADSHEET_DAYS: Final = (25_569, 73_415)
"""Days since 1899-12-30 from 1970 to 2100, as spreadsheets store times."""
COMPACT: Final = ((19_000_101_000_000, 21_001_231_235_959, 14), (190_001_010_000, 210_012_312_359, 12))
"""YYYYMMDDhhmmss and YYYYMMDDhhmm as numbers."""

ISO_DATES: Final = ("%Y-%m-%d",)
DAY_FIRST: Final = ("%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y", "%d/%m/%y", "%d.%m.%y", "%d-%m-%y")
MONTH_FIRST: Final = ("%m/%d/%Y", "%m.%d.%Y", "%m-%d-%Y", "%m/%d/%y", "%m.%d.%y", "%m-%d-%y")
SHORT_YEAR_FIRST: Final = ("%y-%m-%d", "%y/%m/%d", "%y.%m.%d")
WORDED: Final = (
    "%d %b %Y",
    "%d %B %Y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%b %d %Y",
    "%B %d %Y",
    "%a, %d %b %Y",
    "%a %b %d %Y",
    "%d-%b-%Y",
    "%d/%b/%Y",
    "%d-%b-%y",
    "%d %b %y",
    "%m %d, %Y",
)
CLOCKS: Final = (" %H:%M:%S%.f", " %H:%M", " %I:%M:%S %p", " %I:%M %p")
PLAIN_TIME: Final = (
    r"^(?:\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?Z?)?"
    r"|\d{1,2}[/.-]\d{1,2}[/.-]\d{2,4}(?: \d{1,2}:\d{2})?)$"
)
AUTO: Final = "auto"
"""Among forms that the user names: what is detected."""
FULL_YEAR: Final = r"\d{4}"


def to_epoch_ms(column: pl.Series, form: str | None = None) -> tuple[pl.Series, str]:
    """The column as Int64 epoch milliseconds, null where it is no time; and a sentence on how it was understood.

    `form` is a strftime form such as `%d/%m/%Y %H:%M`; without it numbers are told apart by magnitude and texts by
    trying ISO 8601 / RFC 3339 and the common forms. Several forms, with `|` between them, are tried in their order;
    `auto` is the one that is detected.

    Raises:
        SourceError: `form` is none.
    """
    if column.dtype in (pl.Date, pl.Datetime):
        return _from_temporal(column)
    if form is not None:
        return _in_forms(_written(column), form.split("|"))
    if column.dtype.is_numeric() or column.dtype.is_decimal():
        return _from_numbers(column.cast(pl.Float64))
    if column.dtype not in (pl.String, pl.Null, pl.Categorical):
        return pl.Series(column.name, [None], pl.Int64).new_from_index(0, len(column)), "no column of times"
    text = column.cast(pl.String).str.strip_chars().str.replace(COMMA_NUMBER, "$1.$2")
    present = text.drop_nulls()
    if len(present) and present.str.contains(NUMBER).mean() > 0.5:  # type: ignore[operator]
        moments, note = _from_numbers(text.cast(pl.Float64, strict=False))
        cut = "; a spreadsheet cut the digits of some" if present.str.contains("E+", literal=True).any() else ""
        return moments, note + cut
    return _from_text(text)


def _from_temporal(column: pl.Series) -> tuple[pl.Series, str]:
    zone = getattr(column.dtype, "time_zone", None)
    note = f"its own times ({zone})" if zone else "its own times, without a zone: taken as UTC"
    moments = column.cast(pl.Datetime("ms")) if column.dtype == pl.Date else column
    return moments.dt.epoch("ms"), note


def _from_numbers(numbers: pl.Series) -> tuple[pl.Series, str]:
    finite = numbers.drop_nulls().filter(numbers.drop_nulls().is_finite())
    for low, high, digits in COMPACT:
        if len(finite) and finite.is_between(low, high).all():
            text = numbers.cast(pl.Int64, strict=False).cast(pl.String)
            return _from_text(_spread(text))[
                0
            ], f"numbers read as dates YYYYMMDDhhmm{'ss' if digits == 14 else ''}, UTC"
    if len(finite) and finite.is_between(*SPREADSHEET_DAYS).all():
        days = (numbers - SPREADSHEET_DAYS[0]) * 86_400_000
        return _whole(days), "numbers read as a spreadsheet's days, UTC"
    if len(finite) and finite.is_between(19_000_101, 21_001_231).all():
        days, _ = _from_text(numbers.cast(pl.Int64, strict=False).cast(pl.String), ("%Y%m%d",))
        return days, "numbers read as dates YYYYMMDD, UTC"
    middle = abs(_median(finite))
    _, factor, unit = next((entry for entry in UNITS if middle < entry[0]), (0.0, 1e-6, "nanoseconds"))
    return _whole(numbers * factor), f"numbers read as epoch {unit}"


def _whole(scaled: pl.Series) -> pl.Series:
    rounded = scaled.round()
    inside = rounded.is_finite() & (rounded.abs() < 2**53)
    return pl.select(pl.when(inside).then(rounded).cast(pl.Int64)).to_series()


def _median(finite: pl.Series) -> float:
    middle = finite.median()
    return float(middle) if isinstance(middle, int | float) else 0.0


def _from_text(text: pl.Series, dates: tuple[str, ...] | None = None) -> tuple[pl.Series, str]:
    body, offset, zones = _bodies(text)
    sample = body.drop_nulls().head(SAMPLE)
    if dates is None:
        dates, note = _choose(sample, body)
    else:
        note = ""
    forms = [date + clock for date in dates for clock in (*CLOCKS, "")]
    forms.sort(key=lambda form: -_parsed(sample, form))
    moments = pl.Series([None], dtype=pl.Int64).new_from_index(0, len(body))
    for form in forms:
        missing = (moments.is_null() & body.is_not_null()).arg_true()
        if not len(missing):
            break
        moments = moments.scatter(missing, _milliseconds(body.gather(missing), form))
    if zones.null_count() < len(zones):
        moments = in_zones(moments, zones)
    return moments - offset, note + _zones_said(text, offset, zones)


def _written(column: pl.Series) -> pl.Series:
    """The column as texts; whole numbers with the zeros in front that they have lost."""
    if column.dtype.is_numeric() or column.dtype.is_decimal():
        digits = column.cast(pl.Int64, strict=False).cast(pl.String)
        longest = digits.str.len_chars().max()
        return digits.str.zfill(longest if isinstance(longest, int) else 0)
    if column.dtype not in (pl.String, pl.Null, pl.Categorical):
        return pl.Series(column.name, [None], pl.String).new_from_index(0, len(column))
    return column.cast(pl.String).str.strip_chars()


def _in_forms(text: pl.Series, forms: list[str]) -> tuple[pl.Series, str]:
    moments = pl.Series([None], dtype=pl.Int64).new_from_index(0, len(text))
    notes: list[str] = []
    for form in map(str.strip, forms):
        rest = (moments.is_null() & text.is_not_null()).arg_true()
        written = text.gather(rest)
        read, note = to_epoch_ms(written) if form == AUTO else _in_form(written, form)
        moments = moments.scatter(rest, read)
        notes.append(note)
    return moments, "; then ".join(notes)


def _in_form(text: pl.Series, form: str) -> tuple[pl.Series, str]:
    chrono = form.replace(".%f", "%.f").replace(",%f", "%.f")
    if ",%f" in form:
        text = text.str.replace(r"(:\d{2}),(\d)", "$1.$2")
    try:
        moments = _milliseconds(text, chrono)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).splitlines()[0][:120]
        raise SourceError(
            f"--time-format {form!r}: cannot be used ({reason}); give a strftime form such as '%d.%m.%y %H:%M'"
        ) from None
    return moments, f"read as {form}, times without a zone taken as UTC"


def _bodies(text: pl.Series) -> tuple[pl.Series, pl.Series, pl.Series]:
    """The times' bodies, offsets (ms) and zones, as `without_zones`; only what is not plain takes the long way."""
    other = ~text.str.contains(PLAIN_TIME).fill_null(value=True)
    body = text.str.replace("T", " ", literal=True).str.strip_suffix("Z")
    offset = pl.Series([0], dtype=pl.Int64).new_from_index(0, len(text))
    zones = pl.Series([None], dtype=pl.String).new_from_index(0, len(text))
    if other.any():
        places = other.arg_true()
        parts = without_zones(_spread(text.gather(places)))
        body, offset, zones = (
            whole.scatter(places, part) for whole, part in zip((body, offset, zones), parts, strict=True)
        )
    return body, offset, zones


def _spread(text: pl.Series) -> pl.Series:
    """Basic ISO forms with their signs, a blank for the T, a point before fractions of a second."""
    return (
        text.str.replace(r"^[\['](.*?)[\]']?$", "$1")
        .str.replace(r"(?i)\b([ap])\.m\.$", "${1}m")
        .str.replace(r" (?i:utc)$", "Z")
        .str.replace(r"^([A-Z][a-z]{2} [A-Z][a-z]{2} +\d{1,2} [\d:]+ \d{4}) ([+-]\d{4})$", "$1$2")
        .str.replace(r"^(\d{4}-\d{2}-\d{2})[T ](\d{2})$", "$1 $2:00")
        .str.replace(r"^(\d{4})(\d{2})(\d{2})[Tt _-]?(\d{2}):?(\d{2}):?(\d{2})", "$1-$2-$3 $4:$5:$6")
        .str.replace(r"^(\d{4})(\d{2})(\d{2})[Tt _]?(\d{2}):?(\d{2})(Z|$|[+-])", "$1-$2-$3 $4:$5$6")
        .str.replace(r"^(\d{4})(\d{2})(\d{2})(?: ?Z)?$", "$1-$2-$3")
        .str.replace(r"^(\d{4})[/.](\d{1,2})[/.](\d{1,2})", "$1-$2-$3")
        .str.replace(r"(\d)[Tt](\d)", "$1 $2")
        .str.replace(r"^(\d{1,2}/[A-Za-z]{3}/\d{4}):(\d)", "$1 $2")
        .str.replace(r"^([A-Z][a-z]{2} [A-Z][a-z]{2} +\d{1,2}) ([\d:.]+)(.*?) (\d{4})$", "$1 $4 $2$3")
        .str.replace(r"(\d{4}|/\d{2}|\.\d{2}), (\d)", "$1 $2")
        .str.replace(r"(:\d{2}),(\d+)", "$1.$2")
        .str.replace_all(r"  +", " ")
    )


def _zones_said(text: pl.Series, offset: pl.Series, zones: pl.Series) -> str:
    names = sorted(set(zones.drop_nulls().head(SAMPLE).to_list()))[:3]
    short = text.filter(offset != 0).str.extract(r"\b([A-Z]{3,5})$").drop_nulls().unique().sort().to_list()[:3]
    hours = [f"{name} as UTC{ABBREVIATIONS[name]:+g}" for name in short if name in ABBREVIATIONS]
    written = [*names, *hours]
    return f"; zones: {', '.join(written)}" if written else ""


def _choose(sample: pl.Series, body: pl.Series) -> tuple[tuple[str, ...], str]:
    """The dates' order, by what parses most of the sample; of day and month, by the whole column."""
    zone = "those without a zone taken as UTC"
    counts = {family: sum(_parsed(sample, date, loose=True) for date in family) for family in (ISO_DATES, WORDED)}
    best = max(counts, key=lambda family: counts[family])
    numeric = max(sum(_parsed(sample, date, loose=True) for date in family) for family in (DAY_FIRST, MONTH_FIRST))
    if counts[best] * 2 > len(sample) or counts[best] > numeric:
        return best, f"read as {'ISO 8601 / RFC 3339' if best is ISO_DATES else 'dates with words'}, {zone}"
    written = body.str.extract(r"^(\S+)").unique()
    day, month, year = (
        sum(_parsed(written, date) for date in family) for family in (DAY_FIRST, MONTH_FIRST, SHORT_YEAR_FIRST)
    )
    if year > max(day, month) or (year and year == max(day, month) and _narrower(written, day=day >= month)):
        both = "" if year > max(day, month) else " (which gives the smaller range of dates; if not so: --time-format)"
        return SHORT_YEAR_FIRST, f"read as year-month-day with two digits for the year{both}, {zone}"
    if day == month == 0:
        return (*ISO_DATES, *WORDED), f"read as dates, {zone}"
    if day == month:
        return MONTH_FIRST, f"read as month/day/year (day/month/year would fit as well; if so: --time-format), {zone}"
    chosen, order = (DAY_FIRST, "day/month/year") if day > month else (MONTH_FIRST, "month/day/year")
    return chosen, f"read as {order}, {zone}"


def _narrower(body: pl.Series, *, day: bool) -> bool:
    """Whether dates with the year first lie closer together than with the day (or the month) first."""
    ranges: list[int] = []
    for family in (SHORT_YEAR_FIRST, DAY_FIRST if day else MONTH_FIRST):
        dates = pl.concat([_milliseconds(body, form) for form in family]).drop_nulls()
        ranges.append(int(np.ptp(dates.to_numpy())) if len(dates) else 0)
    return ranges[0] < ranges[1]


def _parsed(text: pl.Series, form: str, *, loose: bool = False) -> int:
    """How many of `text` the form fits; `loose`: only their date."""
    if loose:
        parts = form.count(" ") + 1
        text = text.str.split(" ").list.head(parts).list.join(" ")
    return len(text) - _milliseconds(text, form).null_count()


def _milliseconds(text: pl.Series, form: str) -> pl.Series:
    zoned = any(part in form for part in ("%z", "%#z", "%:z"))
    if "%Y" in form:  # strptime takes 10 for the year 10
        text = text.set(~text.str.contains(FULL_YEAR).fill_null(value=True), None)
    if "%H" not in form and "%I" not in form and "%T" not in form and "%s" not in form and "%R" not in form:
        return text.str.to_date(form, strict=False).cast(pl.Datetime("ms")).dt.epoch("ms")
    times = text.str.to_datetime(form, strict=False, time_unit="ms", time_zone="UTC" if zoned else None)
    return times.dt.epoch("ms")


def form_of(text: pl.Series) -> str | None:
    """The strftime form that fits most of some texts; None if no common one fits any, or `auto` if only that does."""
    sample = text.drop_nulls().head(SAMPLE)
    dates = (*ISO_DATES, *DAY_FIRST, *MONTH_FIRST, *SHORT_YEAR_FIRST, *WORDED)
    fitting = {date + clock: _parsed(sample, date + clock) for date in dates for clock in (*CLOCKS, "")}
    best = max(fitting, key=lambda form: fitting[form])
    if fitting[best]:
        return best
    return AUTO if to_epoch_ms(sample)[0].is_not_null().any() else None
