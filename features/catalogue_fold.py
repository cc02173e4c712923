"""Updates of items and users in log order, merged into the rows of the online store."""

from collections.abc import Mapping, Sequence

import msgspec

from features.catalogue import ItemRow, ProfileRow, Row, applied, item_row, profile_row
from features.store import OnlineStore, RecordKey
from stream.errors import EventError
from stream.events import Item, User


class LoggedUpdate(msgspec.Struct, frozen=True):
    """An update with its position in the log: `partition` is `items/0`."""

    update: Item | User
    partition: str
    offset: int


class FoldedCatalogue(msgspec.Struct, frozen=True):
    """The changed rows, and the updates that were refused with the reason."""

    items: dict[RecordKey, ItemRow]
    profiles: dict[RecordKey, ProfileRow]
    refused: list[tuple[LoggedUpdate, EventError]]

    @property
    def rows(self) -> list[ItemRow | ProfileRow]:
        """All changed rows."""
        return [*self.items.values(), *self.profiles.values()]


def write_updates(store: OnlineStore, updates: Sequence[LoggedUpdate], positions: Mapping[str, int]) -> FoldedCatalogue:
    """Merge updates into the store, then write `positions`: the last offset that was read of each partition.

    Updates that are in the store already change nothing. Raises StoreError.
    """
    items = [(entry, entry.update) for entry in updates if isinstance(entry.update, Item)]
    users = [(entry, entry.update) for entry in updates if isinstance(entry.update, User)]
    item_updates = [((item.domain, item.item_id), item_row(item, entry.offset), entry) for entry, item in items]
    user_updates = [((user.domain, user.user_id), profile_row(user, entry.offset), entry) for entry, user in users]
    refused: list[tuple[LoggedUpdate, EventError]] = []
    merged_items = fold(store.read_item_rows({key for key, _, _ in item_updates}), item_updates, refused)
    merged_users = fold(store.read_profile_rows({key for key, _, _ in user_updates}), user_updates, refused)
    store.write_items(merged_items.values())
    store.write_profiles(merged_users.values())
    store.write_positions(positions)
    return FoldedCatalogue(merged_items, merged_users, refused)


def fold(
    rows: Mapping[RecordKey, Row],
    updates: Sequence[tuple[RecordKey, Row, LoggedUpdate]],
    refused: list[tuple[LoggedUpdate, EventError]],
) -> dict[RecordKey, Row]:
    """The rows of all keys that `updates` name, with them; appends what does not fit to `refused`."""
    merged: dict[RecordKey, Row] = {}
    for key, update, entry in updates:
        try:
            merged[key] = applied(merged.get(key) or rows.get(key), update)
        except EventError as error:
            refused.append((entry, error))
    return merged
