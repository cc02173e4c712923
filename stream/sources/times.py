"""Times as people write them, into epoch milliseconds. One form is chosen for a whole column, and said in the report.

Times without a zone are taken as UTC.
"""

from typing import Final

import polars as pl

NUMBER: Final = r"^[+-]?\d+(\.\d+)?([eE]\+?\d+)?$"
UNITS: Final = ((1e11, 1000.0, "seconds"), (1e14, 1.0, "milliseconds"), (1e17, 1e-3, "microseconds"))
"""A column whose middle value lies below the first figure holds that unit; above the last one, nanoseconds."""
SAMPLE: Final = 2_000

ISO_DATES: Final = ("%Y-%m-%d",)
DAY_FIRST: Final = ("%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y", "%d/%m/%y", "%d.%m.%y")
MONTH_FIRST: Final = ("%m/%d/%Y", "%m.%d.%Y", "%m-%d-%Y", "%m/%d/%y")
WORDED: Final = (
    "%d %b %Y",
    "%d %B %Y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%a, %d %b %Y",
    "%d-%b-%Y",
    "%d/%b/%Y",
    "%m %d, %Y",
)
CLOCKS: Final = (" %H:%M:%S%.f", " %H:%M", " %I:%M:%S %p", " %I:%M %p")
ZONE: Final = r":\d{2}(?:\.\d+)? ?([+-]\d{4})$"


def to_epoch_ms(column: pl.Series, form: str | None = None) -> tuple[pl.Series, str]:
    """The column as Int64 epoch milliseconds, null where it is no time; and a sentence on how it was understood.

    `form` is a strftime form such as `%d/%m/%Y %H:%M`; without it numbers are told apart by magnitude and texts by
    trying ISO 8601 / RFC 3339 and the common forms.
    """
    if column.dtype.is_temporal():
        return _from_temporal(column)
    if column.dtype.is_numeric():
        return _from_numbers(column.cast(pl.Float64))
    text = column.cast(pl.String).str.strip_chars()
    if form is not None:
        return _milliseconds(text, form), f"read as {form}, times without a zone taken as UTC"
    present = text.drop_nulls()
    if len(present) and present.str.contains(NUMBER).mean() > 0.5:  # type: ignore[operator]
        return _from_numbers(text.cast(pl.Float64, strict=False))
    return _from_text(text)


def _from_temporal(column: pl.Series) -> tuple[pl.Series, str]:
    zone = getattr(column.dtype, "time_zone", None)
    note = f"its own times ({zone})" if zone else "its own times, without a zone: taken as UTC"
    moments = column.cast(pl.Datetime("ms")) if column.dtype == pl.Date else column
    return moments.dt.epoch("ms"), note


def _from_numbers(numbers: pl.Series) -> tuple[pl.Series, str]:
    finite = numbers.drop_nulls().filter(numbers.drop_nulls().is_finite())
    if len(finite) and finite.is_between(19_000_101, 21_001_231).all():
        days, _ = _from_text(numbers.cast(pl.Int64, strict=False).cast(pl.String), ("%Y%m%d",))
        return days, "numbers read as dates YYYYMMDD, UTC"
    middle = abs(_median(finite))
    _, factor, unit = next((entry for entry in UNITS if middle < entry[0]), (0.0, 1e-6, "nanoseconds"))
    scaled = (numbers * factor).round()
    inside = scaled.is_finite() & (scaled.abs() < 2**53)
    return pl.select(pl.when(inside).then(scaled).cast(pl.Int64)).to_series(), f"numbers read as epoch {unit}"


def _median(finite: pl.Series) -> float:
    middle = finite.median()
    return float(middle) if isinstance(middle, int | float) else 0.0


def _from_text(text: pl.Series, dates: tuple[str, ...] | None = None) -> tuple[pl.Series, str]:
    body, offset = _without_zone(text)
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
    return moments - offset, note


def _choose(sample: pl.Series, body: pl.Series) -> tuple[tuple[str, ...], str]:
    """The dates' order, by what parses most of the sample; of day and month, by the whole column."""
    zone = "those without a zone taken as UTC"
    counts = {family: sum(_parsed(sample, date, loose=True) for date in family) for family in (ISO_DATES, WORDED)}
    best = max(counts, key=lambda family: counts[family])
    if counts[best] * 2 > len(sample):
        return best, f"read as {'ISO 8601 / RFC 3339' if best is ISO_DATES else 'dates with words'}, {zone}"
    day = sum(_parsed(body, date, loose=True) for date in DAY_FIRST)
    month = sum(_parsed(body, date, loose=True) for date in MONTH_FIRST)
    if day == month == 0:
        return (*ISO_DATES, *WORDED), f"read as dates, {zone}"
    if day == month:
        return MONTH_FIRST, f"read as month/day/year (day/month/year would fit as well; name the form if so), {zone}"
    chosen, order = (DAY_FIRST, "day/month/year") if day > month else (MONTH_FIRST, "month/day/year")
    return chosen, f"read as {order}, {zone}"


def _parsed(text: pl.Series, form: str, *, loose: bool = False) -> int:
    """How many of `text` the form fits; `loose`: only their date."""
    if loose:
        parts = form.count(" ") + 1
        text = text.str.split(" ").list.head(parts).list.join(" ")
    return len(text) - _milliseconds(text, form).null_count()


def _milliseconds(text: pl.Series, form: str) -> pl.Series:
    zoned = "%z" in form or "%#z" in form or "%:z" in form
    if "%H" not in form and "%I" not in form:
        return text.str.to_date(form, strict=False).cast(pl.Datetime("ms")).dt.epoch("ms")
    times = text.str.to_datetime(form, strict=False, time_unit="ms", time_zone="UTC" if zoned else None)
    return times.dt.epoch("ms")


def _without_zone(text: pl.Series) -> tuple[pl.Series, pl.Series]:
    """`2020-01-02T03:04:05+01:00` as `2020-01-02 03:04:05` and one hour in ms (0 where no zone is written)."""
    plain = (
        text.str.replace(r"^(\d{4})[/.](\d{1,2})[/.](\d{1,2})", "$1-$2-$3")
        .str.replace(r"(\d)[Tt](\d)", "$1 $2")
        .str.replace(r"(\d) ?(?:Z|z|UTC|GMT)$", "$1")
        .str.replace(r"(:\d{2}(?:\.\d+)?) ?([+-]\d{2})$", "$1${2}00")
        .str.replace(r"(:\d{2}(?:\.\d+)?) ?([+-]\d{2}):(\d{2})$", "$1$2$3")
    )
    zone = plain.str.extract(ZONE)
    if zone.null_count() == len(zone):
        return plain, pl.Series([0], dtype=pl.Int64).new_from_index(0, len(plain))
    sign = pl.select(pl.when(zone.str.starts_with("-")).then(-1).otherwise(1)).to_series()
    hours, minutes = zone.str.slice(1, 2).cast(pl.Int64), zone.str.slice(3, 2).cast(pl.Int64)
    offset = (sign * (hours * 60 + minutes) * 60_000).fill_null(0)
    return plain.str.replace(r" ?[+-]\d{4}$", ""), offset
