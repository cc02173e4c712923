"""Live popularity, read from the online store at intervals into the domains of this process."""

import asyncio
import logging
import time
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Final

from features import popularity
from features.errors import StoreError
from serving.catalogue.domain_state import DomainState
from serving.http.read_your_writes import AppliedOffsets
from serving.recommend.worker import Lookups
from serving.settings import Settings
from stream import topics
from stream.admin import partitions_of

INTERVAL_S: Final = 1.0
MAX_TIME_SHARE: Final = 0.01
"""At most this share of the time goes into reading: decoding holds the interpreter lock, and so delays look-ups."""
RETRY_S: Final = 0.5

log = logging.getLogger("coldstream.api")


class PopularityRefresh:
    """Keeps the domains' popularity what the consumer counted last."""

    def __init__(
        self,
        settings: Settings,
        domains: Mapping[str, DomainState],
        lookups: Lookups,
        applied: AppliedOffsets,
        executor: Executor,
    ) -> None:
        self._settings = settings
        self._domains = domains
        self._lookups = lookups
        self._applied = applied
        self._executor = executor
        self._positions: dict[str, int] = {}
        self._counting_rules: dict[str, dict[str, str]] = {}

    async def run(self) -> None:
        """Read until cancelled, from when the topic `events` exists."""
        loop = asyncio.get_running_loop()
        kafka = (self._settings.bootstrap, self._settings.kafka_security)
        partitions = 0
        while not partitions:
            partitions = await loop.run_in_executor(self._executor, partitions_of, *kafka, topics.EVENTS)
            await asyncio.sleep(RETRY_S)
        rows = [f"{popularity.TOP_PREFIX}{topics.EVENTS}/{partition}" for partition in range(partitions)]
        while True:
            seconds = await loop.run_in_executor(self._executor, self._read, rows)
            for row, position in self._positions.items():  # user rows are written before popularity rows
                self._applied.advance(row.removeprefix(popularity.TOP_PREFIX), position)
            for domain in self._domains.values():
                domain.refresh_popularity()
            await asyncio.sleep(max(INTERVAL_S, seconds / MAX_TIME_SHARE))

    def _read(self, names: list[str]) -> float:
        """Swap in popularity where it changed; the processor seconds it took. Runs in the executor."""
        started = time.thread_time()
        store = self._lookups.store
        try:
            rows = store.read_popularity(names) if store is not None else {}
        except StoreError as error:
            self._lookups.store_health.count_error(error, "read")
            log.warning("popularity was not refreshed: %s", error)
            return 0.0
        positions = {name: row.position for name, row in rows.items()}
        rules = {name: {domain: counts.rules for domain, counts in row.domains.items()} for name, row in rows.items()}
        # After a recount by other rules a row may have the position that it had before.
        if (positions, rules) != (self._positions, self._counting_rules):
            merged = popularity.merge(rows.values())
            for name, state in self._domains.items():
                counts = merged.domains.get(name)
                if counts is None:
                    state.domain.set_popular({})
                    continue
                live = {half: popularity.largest(each.items) for half, each in counts.live.items()}
                state.domain.set_popular(counts.segments, live)
            self._positions, self._counting_rules = positions, rules
        return time.thread_time() - started
