"""The topics: their names, and how each one is kept."""

from typing import Final

import msgspec

EVENTS: Final = "events"
ITEMS: Final = "items"
USERS: Final = "users"
CATALOGUE: Final = "catalogue"
PROFILES: Final = "profiles"
SYNTHETIC_EVENTS: Final = "synthetic-events"
DEAD_LETTERS: Final = "dead-letters"
FEATURE_UPDATES: Final = "feature-updates"
RELEASES: Final = "releases"
RULES: Final = "rules"
OUTCOMES: Final = "outcomes"
SHOWN: Final = "shown"
FORGET: Final = "forget"
SKIPS: Final = "skips"
LOG_EPOCHS: Final = "log-epochs"

DAY_MS: Final = 24 * 60 * 60 * 1000
FOREVER: Final = -1


class Topic(msgspec.Struct, frozen=True):
    """One topic as it is to be created. `retention_ms` of -1 keeps for ever; `compacted` keeps the newest per key."""

    name: str
    partitions: int
    retention_ms: int = FOREVER
    compacted: bool = False


def topics(partitions: int, retention_ms: int = FOREVER) -> list[Topic]:
    """Every topic of a system with `partitions` partitions; events and updates are kept for `retention_ms`."""
    return [
        Topic(EVENTS, partitions, retention_ms),
        Topic(ITEMS, 1, retention_ms),
        Topic(USERS, 1, retention_ms),
        Topic(CATALOGUE, 1, compacted=True),
        Topic(PROFILES, 1, compacted=True),
        Topic(SYNTHETIC_EVENTS, partitions, 30 * DAY_MS),
        Topic(DEAD_LETTERS, 1, 30 * DAY_MS),
        Topic(FEATURE_UPDATES, partitions, DAY_MS // 24),
        Topic(RELEASES, 1, compacted=True),
        Topic(RULES, 1, compacted=True),
        Topic(OUTCOMES, 1, compacted=True),
        Topic(SHOWN, partitions, 2 * DAY_MS),
        Topic(FORGET, 1),
        Topic(SKIPS, 1, compacted=True),
        Topic(LOG_EPOCHS, 1, compacted=True),
    ]
