"""Items and profiles merged field by field from their updates: pure functions, and the rows that the store holds.

A row holds a clock for every field that an update has named: the update's `at` and its offset in the log. The greater
clock wins, so the result does not depend on the order of arrival, and an update that is applied again changes nothing.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET

from stream.errors import EventError
from stream.events import Attributes, Int64, Item, User

Clock = tuple[int, int]
"""An update's `at` (epoch ms) and its offset: of two updates with one `at`, the later one in the log wins."""
NEVER: Final[Clock] = (-1, -1)
MAX_ROW_BYTES: Final = 256 * 1024
"""Updates add attributes to a row without end; a row has to fit into a message."""


class CatalogueEntry(msgspec.Struct, tag_field="type", tag="item", frozen=True, omit_defaults=True):
    """An item as its updates say together; `at` is that of the newest update (epoch ms)."""

    item_id: str
    at: Int64
    domain: str = "shop"
    title: str | None = None
    category: str | None = None
    available: bool = True
    expires_at: Int64 | None = None
    attributes: Attributes = {}


class UserProfile(msgspec.Struct, tag_field="type", tag="user", frozen=True, omit_defaults=True):
    """A user's profile as its updates say together; `at` is that of the newest update (epoch ms)."""

    user_id: str
    at: Int64
    domain: str = "shop"
    segment: str | None = None
    attributes: Attributes = {}


class ItemRow(CatalogueEntry, tag="item", frozen=True, omit_defaults=True):
    """A catalogue entry with the clocks of its fields and attributes; `cleared` is when all attributes were."""

    clocks: dict[str, Clock] = {}
    attribute_clocks: dict[str, Clock] = {}
    cleared: Clock = NEVER

    def record(self) -> CatalogueEntry:
        """The entry without its clocks."""
        fields = (self.title, self.category, self.available, self.expires_at, self.attributes)
        return CatalogueEntry(self.item_id, self.at, self.domain, *fields)


class ProfileRow(UserProfile, tag="user", frozen=True, omit_defaults=True):
    """A profile with the clocks of its fields and attributes; `cleared` is when all attributes were."""

    clocks: dict[str, Clock] = {}
    attribute_clocks: dict[str, Clock] = {}
    cleared: Clock = NEVER

    def record(self) -> UserProfile:
        """The profile without its clocks."""
        return UserProfile(self.user_id, self.at, self.domain, self.segment, self.attributes)


Row = TypeVar("Row", ItemRow, ProfileRow)
ITEM_FIELDS: Final = ("title", "category", "available", "expires_at")
USER_FIELDS: Final = ("segment",)

_encode = msgspec.json.Encoder().encode


def merge(left: Row, right: Row) -> Row:
    """Both rows of one item or user in one: of each field and attribute the value with the greater clock.

    Associative, idempotent, and commutative where clocks differ; updates of one log never share a clock.
    """
    fields = {name: _newer(left, right, name) for name in sorted(left.clocks | right.clocks)}
    cleared = max(left.cleared, right.cleared)
    attributes: Attributes = {}
    attribute_clocks: dict[str, Clock] = {}
    for name in sorted(left.attribute_clocks | right.attribute_clocks):
        ours, theirs = left.attribute_clocks.get(name, NEVER), right.attribute_clocks.get(name, NEVER)
        winner = right if theirs >= ours else left
        if max(ours, theirs) <= cleared:
            continue
        attribute_clocks[name] = max(ours, theirs)
        if name in winner.attributes:
            attributes[name] = winner.attributes[name]
    return msgspec.structs.replace(
        left,
        at=max(left.at, right.at),
        attributes=attributes,
        clocks={name: row.clocks[name] for name, row in fields.items()},
        attribute_clocks=attribute_clocks,
        cleared=cleared,
        **{name: getattr(row, name) for name, row in fields.items()},
    )


def item_row(update: Item, offset: int) -> ItemRow:
    """The row of an item of which only this update is known."""
    parts = _parts(update, ITEM_FIELDS, (update.at, offset))
    if update.available is None:
        parts["available"] = True
    return ItemRow(update.item_id, update.at, update.domain, **parts)


def profile_row(update: User, offset: int) -> ProfileRow:
    """The row of a user of whom only this update is known."""
    return ProfileRow(update.user_id, update.at, update.domain, **_parts(update, USER_FIELDS, (update.at, offset)))


def item_row_of(entry: CatalogueEntry) -> ItemRow:
    """The row of a merged record whose updates are gone: every field has the clock of the newest one."""
    update = {name: value for name in ITEM_FIELDS if (value := getattr(entry, name)) is not None}
    return item_row(Item(entry.item_id, entry.at, entry.domain, attributes=entry.attributes, **update), -1)


def profile_row_of(profile: UserProfile) -> ProfileRow:
    """The row of a merged record whose updates are gone: every field has the clock of the newest one."""
    update = {name: value for name in USER_FIELDS if (value := getattr(profile, name)) is not None}
    return profile_row(User(profile.user_id, profile.at, profile.domain, attributes=profile.attributes, **update), -1)


def applied(row: Row | None, update: Row) -> Row:
    """The row with one more update (`item_row`, `profile_row`).

    Raises:
        EventError: `too-large`: the row would have more than `MAX_ROW_BYTES`.
    """
    merged = update if row is None else merge(row, update)
    size = len(_encode(merged))
    if size > MAX_ROW_BYTES:
        raise EventError(
            "too-large",
            f"the merged record would have {size} bytes; the limit is {MAX_ROW_BYTES}; clear attributes with null",
        )
    return merged


def row_of(update: Item | User, offset: int) -> ItemRow | ProfileRow:
    """`item_row` or `profile_row`."""
    return item_row(update, offset) if isinstance(update, Item) else profile_row(update, offset)


def _parts(update: Item | User, names: Iterable[str], clock: Clock) -> dict[str, Any]:
    fields = {name: value for name in names if (value := getattr(update, name)) is not UNSET}
    parts: dict[str, Any] = {**fields, "clocks": dict.fromkeys(sorted(fields), clock)}
    if update.attributes is None:
        parts["cleared"] = clock
    elif update.attributes is not UNSET:
        given = dict(sorted(update.attributes.items()))
        parts["attributes"] = {name: value for name, value in given.items() if value is not None}
        parts["attribute_clocks"] = dict.fromkeys(given, clock)
    return parts


def _newer(left: Row, right: Row, name: str) -> Row:
    clocks: Mapping[str, Clock] = left.clocks
    return right if right.clocks.get(name, NEVER) >= clocks.get(name, NEVER) else left
