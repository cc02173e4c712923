"""Items and users from the compacted topics `catalogue` and `profiles` into the domains of this process."""

import logging
from collections.abc import Callable, Mapping

from features.catalogue import CatalogueEntry, UserProfile
from features.catalogue_topics import CatalogueProgress, MergedMessage, RemovedRecord, decode_message
from serving.catalogue.domain_state import DomainState
from stream import topics
from stream.errors import EventError

log = logging.getLogger("coldstream.api")


class CatalogueFeed:
    """Applies merged records; `on_progress` is called with each partition of updates (`items/0`) and the last offset
    that the records contain."""

    def __init__(self, domains: Mapping[str, DomainState], on_progress: Callable[[str, int], None]) -> None:
        self._domains = domains
        self._on_progress = on_progress

    def on_item(self, key: bytes | None, value: bytes | None) -> None:
        """A message of `catalogue`."""
        message = self._decoded(topics.CATALOGUE, key, value)
        if isinstance(message, RemovedRecord) and message.domain in self._domains:
            self._domains[message.domain].remove_item(message.id)
        elif isinstance(message, CatalogueEntry) and message.domain in self._domains:
            self._domains[message.domain].put_items([message])

    def on_user(self, key: bytes | None, value: bytes | None) -> None:
        """A message of `profiles`."""
        message = self._decoded(topics.PROFILES, key, value)
        if isinstance(message, RemovedRecord) and message.domain in self._domains:
            self._domains[message.domain].remove_user(message.id)
        elif isinstance(message, UserProfile) and message.domain in self._domains:
            self._domains[message.domain].put_user(message)

    def _decoded(self, topic: str, key: bytes | None, value: bytes | None) -> MergedMessage | RemovedRecord | None:
        """The message; None for one that cannot be read, which is logged, and for a progress message."""
        try:
            message = decode_message(key, value)
        except EventError as error:
            log.warning("skipped a message on topic %s: %s", topic, error.detail)
            return None
        if isinstance(message, CatalogueProgress):
            self._on_progress(message.partition, message.through)
            return None
        return message
