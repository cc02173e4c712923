"""Bring your own: events from a CSV or Parquet file of any shape, by a column map; users and items beside it.

A time may be epoch seconds or milliseconds, RFC 3339, or a common form of date; one form a column, UTC where no zone is
written. What was assumed stands in the report's notes.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import polars as pl

from stream.cleaning import DUPLICATES, LINE, Cleaner, CleaningOptions
from stream.errors import SourceError
from stream.events import DEFAULT_LIMITS
from stream.sources.columns import OF_ITEMS, choose
from stream.sources.delimited import NULLS, read_text
from stream.sources.files import is_parquet, read_parquet
from stream.sources.source import (
    EVENT_COLUMNS,
    IDENTITY,
    Source,
    assemble,
    content_ids,
    keep_first,
    keep_users,
    row_faults,
)
from stream.sources.table_options import TableOptions, check_kinds
from stream.sources.times import to_epoch_ms

DOMAIN: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
KIND: Final = "view"
ALIASES: Final[dict[str, str]] = {
    "pageview": "view",
    "detail_view": "view",
    "product_view": "view",
    "addtocart": "cart",
    "add_to_cart": "cart",
    "add-to-cart": "cart",
    "remove_from_cart": "remove",
    "transaction": "purchase",
    "order": "purchase",
    "buy": "purchase",
    "bought": "purchase",
    "listen": "play",
    "watch": "play",
    "rating": "rate",
    "favorite": "like",
    "fav": "like",
    "pv": "view",
}
"""Names that other systems give to kinds."""


def open_table(path: Path | None, options: TableOptions | None = None, *, domain: str = "shop") -> Source:
    """The events of a file, with the items and users of the files beside it; None reads only these.

    Fields of events are user_id, item_id, at and, where there are such, kind, value, session_id, category, segment,
    event_id; of items item_id, title, category, expires_at; of users user_id, segment. What else items and users hold
    becomes attributes. Columns that no map names are guessed, and the report says how.

    Raises:
        SourceError: a file cannot be read as asked, or the map does not fit it.
    """
    options = options or TableOptions()
    _check(domain, options)
    files = [file for file in (path, options.items, options.users) if file is not None]
    if not files:
        raise SourceError("there is nothing to read: give a file of events, --items FILE or --users FILE")
    cleaner = Cleaner(files[0].name, options.cleaning, events_expected=path is not None)
    events = _events(cleaner, path, options, domain) if path is not None else pl.DataFrame(schema=EVENT_COLUMNS)
    of_items = {field: column for field, column in options.columns.items() if field in OF_ITEMS}
    if of_items and options.items is None:
        raise SourceError(f"{', '.join(of_items)} in the column map is a field of items; give their file with --items")
    items_map = {**of_items, **options.item_columns}
    return assemble(
        cleaner,
        files[0].name,
        domain,
        events,
        items=_known(cleaner, options.items, "item_id", ("title", "category", "expires_at"), options, items_map),
        users=_known(cleaner, options.users, "user_id", ("segment",), options, options.user_columns),
    )


def _events(cleaner: Cleaner, path: Path, options: TableOptions, domain: str) -> pl.DataFrame:
    raw = _texts(_open(path, cleaner, options))
    of_events = {field: column for field, column in options.columns.items() if field not in OF_ITEMS}
    chosen = _choose(cleaner, path, raw, of_events or None)
    raw = keep_users(cleaner, _whole_ids(cleaner, raw, chosen), chosen["user_id"])
    typed = _typed(cleaner, raw, chosen, kind=options.kind or KIND, kinds=options.kinds, form=options)
    written = {"at": raw[chosen["at"]]} | ({"value": raw[chosen["value"]]} if "value" in chosen else {})
    whole = pl.concat([typed, raw.drop(LINE).select(pl.all().name.prefix("raw "))], how="horizontal")
    events = cleaner.keep_parsed(path.name, raw, whole, row_faults(typed, cleaner.now_ms, written))
    events = keep_first(cleaner, events, [name for name in events.columns if name.startswith("raw ")])
    return _identified(cleaner, events.select(typed.columns), domain)


def _check(domain: str, options: TableOptions) -> None:
    if not DOMAIN.fullmatch(domain):
        raise SourceError(f"domain {domain!r}: use a small letter, then small letters, digits and _, at most 32")
    check_kinds(options)


def _open(path: Path, cleaner: Cleaner, form: TableOptions) -> pl.DataFrame:
    if is_parquet(path):
        return read_parquet(path, cleaner)
    encoding = form.encoding or "utf-8"
    return read_text(path, cleaner, delimiter=form.delimiter, encoding=encoding, quote=form.quotes)


def _texts(raw: pl.DataFrame) -> pl.DataFrame:
    """Texts without blanks around them, null where empty."""
    text = pl.col(pl.String).str.strip_chars()
    return raw.with_columns(pl.when(~text.is_in(NULLS)).then(text).name.keep())


def _choose(cleaner: Cleaner, path: Path, raw: pl.DataFrame, columns: Mapping[str, str] | None) -> dict[str, str]:
    names = [name for name in raw.columns if name != LINE]
    chosen, guessed = choose(str(path), names, columns)
    if guessed:
        cleaner.note(f"columns guessed: {', '.join(f'{field}={column}' for field, column in guessed.items())}")
    return chosen


def _whole_ids(cleaner: Cleaner, raw: pl.DataFrame, chosen: Mapping[str, str]) -> pl.DataFrame:
    """Ids as text. Whole numbers that a table program wrote as 17850.0 become 17850."""
    for field in ("user_id", "item_id", "session_id", "event_id"):
        if field not in chosen:
            continue
        ids = raw[chosen[field]].cast(pl.String)
        present = ids.drop_nulls()
        if len(present) and present.str.contains(r"^\d+\.0$").all():
            cleaner.note(f"{field}: written as {present[0]}, taken as {present[0].removesuffix('.0')}")
            ids = ids.str.replace(r"\.0$", "")
        raw = raw.with_columns(ids.alias(chosen[field]))
    return raw


def _typed(
    cleaner: Cleaner,
    raw: pl.DataFrame,
    chosen: Mapping[str, str],
    *,
    kind: str,
    kinds: Mapping[str, str] | None,
    form: TableOptions,
) -> pl.DataFrame:
    at, note = to_epoch_ms(raw[chosen["at"]], form.time_format)
    cleaner.note(f"at: {note}")
    texts = {
        field: pl.col(chosen[field]).cast(pl.String)
        for field in ("user_id", "item_id", "session_id", "category", "segment", "event_id")
        if field in chosen
    }
    others: dict[str, Any] = {"at": at, "kind": pl.lit(kind)}
    if "kind" in chosen:
        names = pl.col(chosen["kind"]).cast(pl.String).str.to_lowercase()
        others["kind"] = names.replace({**ALIASES, **{name.lower(): target for name, target in (kinds or {}).items()}})
    else:
        cleaner.note(f"kind: every event is a {kind}")
    if "value" in chosen:
        others["value"] = pl.col(chosen["value"]).cast(pl.Float64, strict=False)
    return raw.select(LINE, **texts, **others)


def _identified(cleaner: Cleaner, events: pl.DataFrame, domain: str) -> pl.DataFrame:
    """Event ids of the file, or from what each row says (`content_ids`); the first row of each user and id."""
    if "event_id" not in events.columns:
        return events.with_columns(event_id=content_ids(domain, events))
    known = events.filter(pl.col("event_id").is_not_null())
    first = known.unique(["user_id", "event_id"], keep="first", maintain_order=True)
    cleaner.remove(DUPLICATES, known.height - first.height)
    differing = known.unique([*IDENTITY, "event_id"]).height - first.height
    if differing:
        cleaner.note(
            f"{differing:,} rows repeat an event id of their user but say something else, and are left out as "
            "duplicates; if that column holds no ids of events, give a --map without event_id"
        )
    bare = events.filter(pl.col("event_id").is_null())
    bare = bare.with_columns(event_id=content_ids(domain, bare))
    return pl.concat([first, bare]).sort(LINE)


def _known(
    cleaner: Cleaner,
    path: Path | None,
    key: str,
    labels: tuple[str, ...],
    form: TableOptions,
    column_map: Mapping[str, str] | None = None,
) -> pl.DataFrame | None:
    """A file of users or items: its key, its labels where it has such columns, and the rest as attributes."""
    if path is None:
        return None
    inner = Cleaner(path.name, CleaningOptions())
    raw = _texts(_open(path, inner, form))
    columns = [name for name in raw.columns if name != LINE]
    chosen, guessed = choose(str(path), columns, column_map, required=(key,), optional=labels, guess=True)
    guesses = ", ".join(f"{field}={column}" for field, column in guessed.items())
    cleaner.note(f"{path.name}: {raw.height:,} rows, columns guessed: {guesses}")
    if inner.rejected:
        cleaner.note(f"{path.name}: {inner.rejected:,} rows could not be read and are left out")
    raw = _whole_ids(cleaner, raw, chosen)
    rest = [_number_where_all_are(raw[name]) for name in columns if name not in chosen.values()]
    attributes = {"attributes": pl.struct(rest)} if rest else {}
    texts = {field: pl.col(column).cast(pl.String) for field, column in chosen.items() if field != "expires_at"}
    times = {"expires_at": _expiries(cleaner, path, raw, chosen["expires_at"])} if "expires_at" in chosen else {}
    return raw.select(**texts, **times, **attributes)


def _expiries(cleaner: Cleaner, path: Path, raw: pl.DataFrame, column: str) -> pl.Series:
    """When items expire, Int64 epoch ms, null where nothing is written.

    Raises:
        SourceError: the first one that is no time: an item that would be sold for ever is worse than a file to mend.
    """
    times, note = to_epoch_ms(raw[column])
    cleaner.note(f"{path.name}: expires_at: {note}")
    cure = "give RFC 3339 or epoch milliseconds, or nothing for an item that does not expire"
    wrong = (times.is_null() & raw[column].is_not_null()) | (times < DEFAULT_LIMITS.earliest_at).fill_null(False)
    for row in wrong.arg_true().head(1):
        why = "is not a time" if times[row] is None else f"lies before 1990 ({note})"
        written = str(raw[column][row])[:80]
        raise SourceError(f"{path} line {raw[LINE][row]}: expires_at='{written}' {why}; {cure}")
    return times


def _number_where_all_are(column: pl.Series) -> pl.Series:
    """A column of texts as numbers where every one is; one with leading zeros holds codes and stays text."""
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        return column
    text = column.cast(pl.String).str.slice(0, 4096)
    present = text.drop_nulls()
    if not len(present) or not present.str.contains(r"^-?(0|[1-9]\d{0,14})(\.\d+)?$").all():
        return text
    return text.cast(pl.Float64) if present.str.contains(".", literal=True).any() else text.cast(pl.Int64)
