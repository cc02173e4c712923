"""Items and users from the compacted topics `catalogue` and `profiles` into the domains of this process."""

from collections.abc import Callable, Mapping

from features.catalogue import CatalogueEntry, UserProfile
from features.catalogue_topics import CatalogueProgress, MergedMessage, RemovedRecord, decode_message
from serving.catalogue.domain_state import DomainState


class CatalogueFeed:
    """Applies merged records; `on_progress` is called with each partition of updates (`items/0`) and the last offset
    that the records contain."""

    def __init__(self, domains: Mapping[str, DomainState], on_progress: Callable[[str, int], None]) -> None:
        self._domains = domains
        self._on_progress = on_progress

    def on_item(self, key: bytes | None, value: bytes | None) -> None:
        """A message of `catalogue`. Raises EventError."""
        message = self._decoded(key, value)
        if isinstance(message, RemovedRecord) and message.domain in self._domains:
            self._domains[message.domain].remove_item(message.id)
        elif isinstance(message, CatalogueEntry) and message.domain in self._domains:
            self._domains[message.domain].put_items([message])

    def on_user(self, key: bytes | None, value: bytes | None) -> None:
        """A message of `profiles`. Raises EventError."""
        message = self._decoded(key, value)
        if isinstance(message, RemovedRecord) and message.domain in self._domains:
            self._domains[message.domain].remove_user(message.id)
        elif isinstance(message, UserProfile) and message.domain in self._domains:
            self._domains[message.domain].put_user(message)

    def _decoded(self, key: bytes | None, value: bytes | None) -> MergedMessage | RemovedRecord | None:
        """The message; None for a progress message. Raises EventError for one that cannot be read."""
        message = decode_message(key, value)
        if isinstance(message, CatalogueProgress):
            self._on_progress(message.partition, message.through)
            return None
        return message
