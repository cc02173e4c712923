"""Items and users from their topics into the domains of this process."""

import logging
from collections.abc import Mapping
from typing import Final

from features.catalogue import item_row, profile_row
from serving.catalogue.domain_state import DomainState
from stream import topics
from stream.errors import EventError
from stream.events import Item, Record, User, decode

ANY_TIME_MS: Final = 2**53
"""Records in the log were checked against the clock when they were accepted."""

log = logging.getLogger("coldstream.api")


class CatalogueFeed:
    """Applies the messages of `items` and `users`; a tombstone removes."""

    def __init__(self, domains: Mapping[str, DomainState]) -> None:
        self._domains = domains

    def on_item(self, key: bytes | None, value: bytes | None) -> None:
        """A message of `items`."""
        if value is None:
            domain, item_id = self._domain_and_id(key)
            if domain is not None:
                domain.remove_item(item_id)
            return
        item = _decoded(topics.ITEMS, value)
        if isinstance(item, Item) and item.domain in self._domains:
            self._domains[item.domain].put_items([item_row(item, 0).record()])

    def on_user(self, key: bytes | None, value: bytes | None) -> None:
        """A message of `users`."""
        if value is None:
            domain, user_id = self._domain_and_id(key)
            if domain is not None:
                domain.remove_user(user_id)
            return
        user = _decoded(topics.USERS, value)
        if isinstance(user, User) and user.domain in self._domains:
            self._domains[user.domain].put_user(profile_row(user, 0).record())

    def _domain_and_id(self, key: bytes | None) -> tuple[DomainState | None, str]:
        name, _, identity = (key or b"").decode("utf-8", "replace").partition("/")
        return self._domains.get(name), identity


def _decoded(topic: str, value: bytes) -> Record | None:
    try:
        return decode(value, ANY_TIME_MS)
    except EventError as error:
        log.warning("skipped a message on topic %s: %s", topic, error.detail)
        return None
