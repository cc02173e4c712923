"""Which column of a file holds what: a map as it is typed on the command line, or a guess by common names."""

from collections.abc import Mapping, Sequence
from typing import Final

from stream.cleaning import LINE
from stream.errors import SourceError

REQUIRED: Final = ("user_id", "item_id", "at")
OPTIONAL: Final = ("kind", "value", "session_id", "category", "segment", "event_id")
FIELDS: Final = REQUIRED + OPTIONAL

COMMON: Final[dict[str, tuple[str, ...]]] = {
    "user_id": (
        *("user_id", "userid", "user", "uid", "customer_id", "customerid", "customer", "visitor_id", "visitorid"),
        *("member_id", "household_id", "account_id", "reviewerid", "client_id"),
    ),
    "item_id": (
        *("item_id", "itemid", "item", "sku", "product_id", "productid", "product", "asin", "article_id"),
        *("movie_id", "movieid", "track_id", "song_id", "artist_id", "video_id", "stockcode", "isbn", "content_id"),
    ),
    "at": (
        *("at", "timestamp", "ts", "time", "event_time", "datetime", "date", "created_at", "occurred_at"),
        *("event_timestamp", "invoicedate", "unixreviewtime", "click_timestamp", "transaction_timestamp"),
    ),
    "kind": ("kind", "event_type", "event", "action", "type", "behavior", "behaviour"),
    "value": ("value", "rating", "price", "amount", "score", "weight", "sales_value", "watch_time"),
    "session_id": ("session_id", "sessionid", "session", "user_session", "basket_id", "order_id", "invoiceno"),
    "category": ("category", "category_code", "category_id", "genre", "department"),
    "segment": ("segment",),
    "event_id": ("event_id", "eventid"),
    "expires_at": ("expires_at",),
    "available": ("available", "is_available", "availability"),
    "title": ("title", "name", "product_name", "item_name", "description"),
}


def usable_name(name: str) -> str:
    """The name of a file's column, with `_` behind it where it is in use here or Polars takes it for a pattern."""
    return f"{name}_" if name == LINE or (name.startswith("^") and name.endswith("$")) else name


def parse_map(text: str | None, option: str = "--map") -> dict[str, str]:
    """`user_id=uid,item_id=sku,at=ts` as {field: column}; a comma in a column's name stays in it. None is empty.

    Raises:
        SourceError: a part is not FIELD=COLUMN, or names a field twice.
    """
    parts: list[str] = []
    for part in filter(str.strip, (text or "").split(",")):
        if "=" in part or not parts:
            parts.append(part)
        else:
            parts[-1] += f",{part}"
    chosen: dict[str, str] = {}
    for part in parts:
        field, equals, column = (piece.strip() for piece in part.partition("="))
        if not (field and equals and column):
            example = "favourite=like,wishlist=like" if option == "--kind-map" else "user_id=uid,item_id=sku,at=ts"
            raise SourceError(f"{option} {text!r}: {part!r} is not NAME=VALUE; give pairs such as {example}")
        if field in chosen:
            raise SourceError(f"{option} {text!r}: {field} is named twice")
        chosen[field] = column
    return chosen


def choose(
    file: str,
    columns: Sequence[str],
    column_map: Mapping[str, str] | None,
    *,
    required: Sequence[str] = REQUIRED,
    optional: Sequence[str] = OPTIONAL,
    guess: bool | None = None,
    option: str = "--map",
    hint: str = "",
) -> tuple[dict[str, str], dict[str, str]]:
    """The column of each field, and which of these were guessed. Optional fields are guessed only without a map, or
    where `guess` says so. `hint` ends the message on a required field that no column was found for.

    Raises:
        SourceError: the map names a field or a column that there is not, or a required field is not to be found.
    """
    chosen = dict(column_map or {})
    unknown = [field for field in chosen if field not in (*required, *optional)]
    if unknown:
        fields = ", ".join((*required, *optional))
        raise SourceError(f"{file}: {', '.join(unknown)} in the column map is no field; fields are {fields}")
    absent = [column for column in chosen.values() if column not in columns]
    if absent:
        raise SourceError(
            f"{file}: there is no column {', '.join(map(repr, absent))}; its columns are {', '.join(columns)}"
        )
    guessed = _guess(columns, set(chosen.values()), [field for field in required if field not in chosen])
    if guess if guess is not None else column_map is None:
        guessed |= _guess(columns, {*chosen.values(), *guessed.values()}, optional)
    lacking = [field for field in required if field not in chosen and field not in guessed]
    if lacking:
        like = ",".join(f"{field}=COLUMN" for field in lacking)
        raise SourceError(
            f"{file}: which column holds {', '.join(lacking)}? Its columns are {', '.join(columns)}; "
            f"map it: {option} {like}{hint}"
        )
    return chosen | guessed, guessed


def look_alikes(columns: Sequence[str], guessed: Mapping[str, str]) -> str | None:
    """Which columns could have been guessed as well, for they differ in capitals or signs alone; None: none."""
    pairs = [
        f"{field}={other}"
        for field, column in guessed.items()
        for other in columns
        if other != column and _plain(other) == _plain(column)
    ]
    return f"columns that could be meant as well: {', '.join(pairs)} (to take one: --map)" if pairs else None


def _plain(column: str) -> str:
    return column.strip().lower().replace(" ", "_").replace("-", "_")


def _guess(columns: Sequence[str], taken: set[str], fields: Sequence[str]) -> dict[str, str]:
    plain = {column: column for column in columns}  # a name that is exactly right comes first
    for column in columns:
        plain.setdefault(_plain(column), column)
    guessed: dict[str, str] = {}
    for field in fields:
        free = (plain[name] for name in COMMON.get(field, ()) if name in plain and plain[name] not in taken)
        for column in free:
            guessed[field] = column
            taken.add(column)
            break
    return guessed
