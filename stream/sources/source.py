"""A source: the events of one data set in time order, with its catalogue and its profiles.

Every loader ends in `assemble`, which checks, cleans, stamps and sorts, so that all sources keep the same promises.
"""

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from io import BytesIO
from typing import Any, Final

import msgspec
import polars as pl

from stream.cleaning import DUPLICATES, LINE, MISSING_USERS, Cleaner
from stream.cleaning_report import CleaningReport
from stream.events import DEFAULT_LIMITS, KINDS, MAX_EVENT_BYTES, Interaction, Item, User

BATCH: Final = 10_000
MAX_ID: Final = 256
MAX_TITLE: Final = 4096
ENVELOPE_BYTES: Final = 256
"""Of a message of an item or a user, at most: its type, domain and times."""
EVENT_COLUMNS: Final[dict[str, Any]] = {
    "event_id": pl.String,
    "user_id": pl.String,
    "item_id": pl.String,
    "kind": pl.String,
    "at": pl.Int64,
    "value": pl.Float64,
    "session_id": pl.String,
    "category": pl.String,
    "segment": pl.String,
}
ITEM_COLUMNS: Final[dict[str, Any]] = {"item_id": pl.String, "title": pl.String, "category": pl.String}
USER_COLUMNS: Final[dict[str, Any]] = {"user_id": pl.String, "segment": pl.String}
IDENTITY: Final = ("user_id", "item_id", "kind", "at")
"""What makes two rows without ids the same event. A corrected value or a column more does not make another one."""
OTHERS: Final = ("value", "session_id", "category", "segment")

_interactions: msgspec.json.Decoder[Interaction] = msgspec.json.Decoder(Interaction)
_items: msgspec.json.Decoder[Item] = msgspec.json.Decoder(Item)
_users: msgspec.json.Decoder[User] = msgspec.json.Decoder(User)

Message = tuple[bytes, bytes]
"""A Kafka key and value."""


class Source(msgspec.Struct, frozen=True):
    """A cleaned data set. `events` is sorted by `at` (epoch ms), ties in the order of the file.

    `events` has `EVENT_COLUMNS`, and a struct `context` where the data set has one; `items` and `users` have
    `ITEM_COLUMNS` and `USER_COLUMNS`, and a struct `attributes`; `items` also expires_at (epoch ms) and
    available (Boolean), where the data set has them. The first `listed`
    of the items stand in a catalogue of their own; of the others only the events know, so that nobody could have
    offered them before their first one. The first `described` of the items have a row of their own, in a catalogue or
    collected from the events; events name the others, which says nothing about them.
    """

    name: str
    domain: str
    events: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame
    report: CleaningReport
    listed: int = 0
    described: int = 0

    def __len__(self) -> int:
        return self.events.height

    @property
    def start(self) -> int:
        """The first event's time, epoch ms."""
        return int(self.events["at"][0])

    @property
    def end(self) -> int:
        """The last event's time, epoch ms."""
        return int(self.events["at"][-1])

    def fingerprint(self) -> str:
        """Stands for the events, their order and their times: another one means another dataset or window."""
        digest = blake2b(f"{self.name}/{self.domain}/{len(self)}".encode(), digest_size=12)
        ordered = self.events.select(pl.col("event_id"), pl.col("at").cast(pl.String))
        for batch in ordered.iter_slices(100_000):
            digest.update("\n".join(batch["event_id"]).encode())
            digest.update(",".join(batch["at"]).encode())
        return digest.hexdigest()

    def window(self, start: int | None = None, until: int | None = None) -> "Source":
        """Only the events with start <= at < until (epoch ms)."""
        low = 0 if start is None else int(self.events["at"].search_sorted(start, "left"))
        high = len(self) if until is None else int(self.events["at"].search_sorted(until, "left"))
        return msgspec.structs.replace(self, events=self.events.slice(low, max(0, high - low)))

    def since(self, start: int) -> "Source":
        """Only the events from `start` on, in memory of their own: what came before is given back."""
        window = self.window(start=start)
        parts = {"events": window.events, "items": window.items, "users": window.users}
        return msgspec.structs.replace(window, **{name: _apart(frame) for name, frame in parts.items()})

    def read(self, batch: int = BATCH) -> Iterator[list[Interaction]]:
        """The events, in lists of at most `batch`."""
        for messages in self.encoded(batch):
            yield [_interactions.decode(value) for _, value in messages]

    def catalogue(self, batch: int = BATCH) -> Iterator[list[Item]]:
        """The items, in lists of at most `batch`."""
        for messages in self._item_messages(self.items, batch, at=self.start):
            yield [_items.decode(value) for _, value in messages]

    def profiles(self, batch: int = BATCH) -> Iterator[list[User]]:
        """The users of whom more is known than what they do, in lists of at most `batch`."""
        for messages in self.encoded_users(batch):
            yield [_users.decode(value) for _, value in messages]

    def encoded(self, batch: int = BATCH, *, skip: int = 0, shift_ms: int = 0) -> Iterator[list[Message]]:
        """The events as Kafka messages, from number `skip` on, their times moved by `shift_ms`.

        Six times as fast as one struct after the other: the JSON is made by column.
        """
        for first in range(skip, len(self), batch):
            yield self.messages(first, batch, shift_ms=shift_ms)

    def messages(self, first: int, count: int, *, shift_ms: int = 0, without: pl.Series | None = None) -> list[Message]:
        """Events number `first` to `first + count` as Kafka messages, but those for which `without` is true.

        `without` is a Boolean for every event of the source.
        """
        part = self.events.slice(first, count).with_columns(pl.col("at") + shift_ms)
        if without is not None:
            part = part.filter(~without.slice(first, count))
        return self._messages(part, "interaction", pl.col("user_id")) if part.height else []

    def encoded_items(
        self, batch: int = BATCH, *, at: int | None = None, valid_from: int | None = None, shift_ms: int = 0
    ) -> Iterator[list[Message]]:
        """The described items as Kafka messages, stamped with `at` (epoch ms; the first event's time by default).

        `valid_from` (epoch ms) is since when they hold. `shift_ms` moves times of expiry.
        """
        items = self.items.head(self.described)
        moved = [pl.col(name) + shift_ms for name in items.columns if name == "expires_at"]
        at = self.start + shift_ms if at is None else at
        yield from self._item_messages(items.with_columns(moved), batch, at, valid_from)

    def encoded_users(
        self, batch: int = BATCH, *, at: int | None = None, valid_from: int | None = None, shift_ms: int = 0
    ) -> Iterator[list[Message]]:
        """The profiles as Kafka messages, stamped as `encoded_items`."""
        at = self.start + shift_ms if at is None else at
        for part in self.users.iter_slices(batch):
            yield self._messages(_stamped(part, at, valid_from), "user", self._key("user_id"))

    def _item_messages(
        self, items: pl.DataFrame, batch: int, at: int, valid_from: int | None = None
    ) -> Iterator[list[Message]]:
        for part in items.iter_slices(batch):
            yield self._messages(_stamped(part, at, valid_from), "item", self._key("item_id"))

    def _key(self, name: str) -> pl.Expr:
        return pl.format("{}/{}", pl.lit(self.domain), name)

    def _messages(self, part: pl.DataFrame, tag: str, key: pl.Expr) -> list[Message]:
        rows = part.select(pl.lit(tag).alias("type"), pl.all(), pl.lit(self.domain).alias("domain"))
        values = rows.select(_without_nulls(pl.struct(pl.all()).struct.json_encode(), rows)).to_series()
        keys = part.select(key).to_series()
        return list(zip(keys.cast(pl.Binary).to_list(), values.cast(pl.Binary).to_list(), strict=True))


def _stamped(updates: pl.DataFrame, at: int, valid_from: int | None) -> pl.DataFrame:
    times = {"at": at} if valid_from is None else {"at": at, "valid_from": valid_from}
    return updates.with_columns(pl.lit(time, pl.Int64).alias(name) for name, time in times.items())


def _apart(frame: pl.DataFrame) -> pl.DataFrame:
    """A copy that shares no memory: a slice's texts would keep those of the whole frame."""
    copy = BytesIO()
    frame.write_ipc(copy)
    copy.seek(0)
    return pl.read_ipc(copy)


def assemble(
    cleaner: Cleaner,
    name: str,
    domain: str,
    events: pl.DataFrame,
    *,
    items: pl.DataFrame | None = None,
    users: pl.DataFrame | None = None,
    listed: bool = True,
) -> Source:
    """The source of events that are parsed and checked: ids made unique, bots out, stamped, sorted.

    `events` has at least event_id, user_id, item_id, kind and at. Category and segment come from `items` and `users`
    where the events have none of their own. `listed`: whether `items` are a catalogue, not collected from the events.
    """
    named = _filled(cleaner.of("items"), items, ITEM_COLUMNS, "item_id")
    items = _with_unlisted(cleaner, named, events)
    users = _filled(cleaner.of("users"), users, USER_COLUMNS, "user_id")
    missing = [pl.lit(None, kind).alias(name) for name, kind in EVENT_COLUMNS.items() if name not in events.columns]
    events = cleaner.keep_people(events.with_columns(missing))
    events = _stamp(_stamp(events, items, "item_id", "category"), users, "user_id", "segment")
    context = [pl.col("context")] if "context" in events.columns else []
    events = events.select(*EVENT_COLUMNS, *context).sort("at", maintain_order=True)
    report = cleaner.finish(events.height)
    return Source(name, domain, events, items, users, report, named.height if listed else 0, named.height)


def keep_users(cleaner: Cleaner, frame: pl.DataFrame, user_id: str) -> pl.DataFrame:
    """Rows that name a user; the others are counted as missing users."""
    return cleaner.keep(MISSING_USERS, frame, pl.col(user_id).is_not_null())


def keep_first(cleaner: Cleaner, frame: pl.DataFrame, columns: list[str] | None = None) -> pl.DataFrame:
    """The first of rows that are the same in `columns` (every column of the file where none are named)."""
    chosen = columns or [name for name in frame.columns if name != LINE]
    kept = frame.unique(chosen, keep="first", maintain_order=True)
    cleaner.remove(DUPLICATES, frame.height - kept.height)
    return kept


def unique_ids(key: pl.Expr) -> pl.Expr:
    """Event ids from a natural key: rows that share it are told apart by their number in the order of the file."""
    number = pl.int_range(pl.len()).over(key)
    return pl.when(number == 0).then(key).otherwise(pl.format("{}~{}", key, number))


def content_ids(name: str, events: pl.DataFrame) -> pl.Series:
    """Event ids for rows without an id, from what makes them the same event: `IDENTITY`.

    Rows that agree in it are told apart by their number among them, in the order of their other contents. So a file
    that has grown, is sorted otherwise, or was exported again in another form gives its old rows their old ids.
    """
    texts = events.select(pl.concat_str(pl.col(IDENTITY).cast(pl.String), separator="\x1f")).to_series()
    keys = [f"{name}-{blake2b(text.encode(), digest_size=12).hexdigest()}" for text in texts]
    others = [name for name in OTHERS if name in events.columns]
    keyed = pl.DataFrame([pl.Series("key", keys, pl.String), *events.select(others)]).with_row_index("row")
    several = keyed.filter(pl.col("key").is_duplicated()).sort(["key", *others, "row"])
    numbered = several.select("row", unique_ids(pl.col("key")).alias("number"))
    joined = keyed.join(numbered, "row", "left", maintain_order="left")
    return joined.select(pl.coalesce("number", "key").alias("event_id")).to_series()


def row_faults(typed: pl.DataFrame, now_ms: int, written: Mapping[str, pl.Series] | None = None) -> pl.DataFrame:
    """What the event schema would have against each row: `fault` in general, `reason` in full; null where nothing.

    Columns of `typed` are as in `EVENT_COLUMNS`. `written` holds columns (at, value) as the file has them: for the
    message, and to tell a missing value from a bad one.
    """
    rows = typed.with_columns(
        (written or {}).get(name, pl.lit(None)).cast(pl.String).alias(f"written_{name}") for name in ("at", "value")
    )
    rules = [*_id_rules(typed.columns), *_time_rules(now_ms), *_value_rules(typed.columns)]
    bad = rows.select(pl.any_horizontal(rule.fill_null(value=False) for rule, _, _ in rules).alias("bad")).to_series()
    empty = pl.Series([None], dtype=pl.String).new_from_index(0, len(bad))
    faults = pl.DataFrame({"fault": empty, "reason": empty})
    if not bad.any():
        return faults
    fault = pl.coalesce(pl.when(rule).then(pl.lit(name)) for rule, name, _ in rules)
    reason = pl.coalesce(pl.when(rule).then(text) for rule, _, text in rules)
    described = rows.filter(bad).select(fault=fault, reason=reason)
    places = bad.arg_true()
    return pl.DataFrame({name: faults[name].scatter(places, described[name]) for name in faults.columns})


Rule = tuple[pl.Expr, str, pl.Expr]
"""When a row has a fault, the fault, and the reason in full."""


def _id_rules(columns: list[str]) -> list[Rule]:
    item, kind = pl.col("item_id"), pl.col("kind")
    long = [
        (pl.col(name).str.len_chars() > MAX_ID, f"{name} too long", pl.lit(f"{name} has more than {MAX_ID} characters"))
        for name in ("user_id", "item_id", "event_id", "session_id", "category")
        if name in columns
    ]
    unknown = "kind='{}' is not known; kinds are {} (--kind-map {}=KIND says which it is)"
    shown = kind.str.slice(0, 80)
    return [
        (item.is_null() | (item == ""), "item_id missing", pl.lit("item_id is missing")),
        *long,
        (kind.is_null(), "kind missing", pl.lit("kind is missing (--kind KIND is taken where none is written)")),
        (~kind.is_in(KINDS), "kind unknown", pl.format(unknown, shown, pl.lit(", ".join(KINDS)), shown)),
    ]


def _time_rules(now_ms: int) -> list[Rule]:
    at, given = pl.col("at"), pl.col("written_at")
    shown = pl.coalesce(given, at.cast(pl.String)).str.slice(0, 80)
    cure = "say how times are written: --time-format '%d.%m.%y %H:%M'"
    not_a_time = f"at='{{}}' is not a time; give RFC 3339 or epoch milliseconds, or {cure}"
    return [
        (at.is_null() & given.is_null(), "at missing", pl.lit("at is missing; give RFC 3339 or epoch milliseconds")),
        (at.is_null(), "at not a time", pl.format(not_a_time, shown)),
        (
            at < DEFAULT_LIMITS.earliest_at,
            "at before 1990",
            pl.format(f"at={{}} lies before 1990; is its unit another? Or {cure}", shown),
        ),
        (
            at > now_ms + DEFAULT_LIMITS.max_future_ms,
            "at in the future",
            pl.format(f"at={{}} lies in the future; is its order of day and month another? Then {cure}", shown),
        ),
    ]


def _value_rules(columns: list[str]) -> list[Rule]:
    if "value" not in columns:
        return []
    value, given = pl.col("value"), pl.col("written_value")
    not_a_number = pl.format("value='{}' is not a number", given.str.slice(0, 80))
    return [
        (value.is_null() & given.is_not_null(), "value not a number", not_a_number),
        (~value.is_finite(), "value not finite", pl.lit("value is not a finite number")),
    ]


def _filled(cleaner: Cleaner, frame: pl.DataFrame | None, columns: dict[str, Any], key: str) -> pl.DataFrame:
    """The rows with every column of the table; those without an id, with one too long, or doubled are counted."""
    if frame is None:
        return pl.DataFrame(schema=columns)
    missing = [pl.lit(None, kind).alias(name) for name, kind in columns.items() if name not in frame.columns]
    chosen = [*columns, *(name for name in ("expires_at", "available", "attributes") if name in frame.columns)]
    length = pl.col(key).str.len_chars().fill_null(0)
    named = cleaner.keep(f"{key} missing", frame.with_columns(missing).select(chosen), length > 0)
    named = cleaner.keep(f"{key} longer than {MAX_ID} characters", named, length <= MAX_ID)
    lengths = {"title": MAX_TITLE, "category": MAX_ID, "segment": MAX_ID}
    for name, most in lengths.items():
        if name in columns and (cut := named.select((pl.col(name).str.len_chars() > most).sum()).item()):
            cleaner.note(f"{cut:,} values of {name} cut to {most:,} characters")
    named = named.with_columns(pl.col(name).str.slice(0, most) for name, most in lengths.items() if name in columns)
    named = _fitting(cleaner, named)
    last = named.unique(key, keep="last", maintain_order=True)
    cleaner.remove(f"{key} doubled (the last row is kept)", named.height - last.height)
    cleaner.close(last.height)
    return last


def _fitting(cleaner: Cleaner, updates: pl.DataFrame) -> pl.DataFrame:
    """Without the rows that would be longer as messages than a record may be."""
    if "attributes" not in updates.columns or not updates.height:
        return updates
    most = MAX_EVENT_BYTES - ENVELOPE_BYTES
    sizes = updates.select(
        _without_nulls(pl.struct(pl.all()).struct.json_encode(), updates).str.len_bytes()
    ).to_series()
    return cleaner.keep(f"longer than {most:,} bytes as a message", updates, sizes <= most)


def _with_unlisted(cleaner: Cleaner, items: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """The catalogue and, behind it, items that only the events know, with the category of their first event."""
    known = [name for name in ("item_id", "category") if name in events.columns]
    first = events.select(known).unique("item_id", keep="first", maintain_order=True)
    unlisted = first.join(items, on="item_id", how="anti", maintain_order="left")
    if unlisted.height and items.height:
        cleaner.note(f"{unlisted.height:,} items of the events are not in the catalogue: what is known of them stays")
    return pl.concat([items, unlisted], how="diagonal_relaxed")


def _stamp(events: pl.DataFrame, known: pl.DataFrame, key: str, label: str) -> pl.DataFrame:
    if not known.height:
        return events
    stamped = events.join(known.select(key, pl.col(label).alias("_known")), key, "left", maintain_order="left")
    return stamped.with_columns(pl.coalesce(label, "_known").alias(label)).drop("_known")


def _without_nulls(json: pl.Expr, rows: pl.DataFrame) -> pl.Expr:
    """Leave out fields that are null. Safe on text: inside a JSON string every quote has a backslash before it."""
    names = [name for name in rows.columns if rows[name].null_count()]
    for name in ("context", "attributes"):
        if name in rows.columns:
            kind = rows.schema[name]
            assert isinstance(kind, pl.Struct)
            names += [field.name for field in kind.fields]
    if not names:
        return json
    gone = [f'"{name}":null,' for name in names] + [f',"{name}":null' for name in names]
    return json.str.replace_many(gone, [""] * len(gone)).str.replace_many([f'"{n}":null' for n in names], [""])
