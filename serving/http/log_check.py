"""Whether the log is the one that the features were made from, as an API process sees it."""

import asyncio
from concurrent.futures import Executor
from typing import Final

from serving.consume.log_guard import TRUSTED_TOPICS, LogGuard, trusted_partitions
from serving.errors import LogError
from serving.recommend.worker import Lookups
from serving.settings import Settings
from stream.log_watch import LogWatch

EVERY_S: Final = 5.0
RETRY_S: Final = 0.5


class LogCheck:
    """Compares the log with the store's marks once the store is open, and then with itself, every few seconds."""

    def __init__(self, settings: Settings, guard: LogGuard, lookups: Lookups, executor: Executor) -> None:
        self._settings = settings
        self._guard = guard
        self._lookups = lookups
        self._executor = executor
        self._watch = LogWatch(settings.bootstrap, settings.kafka_security, TRUSTED_TOPICS)

    async def run(self) -> None:
        """Check until cancelled. Raises StoreError, BrokerError."""
        while self._lookups.store is None:
            await asyncio.sleep(RETRY_S)
        names = trusted_partitions(self._settings.partitions)
        marks = await self._lookups.call(lambda store: store.read_log_marks(names))
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._executor, self._guard.start, marks)
        except LogError:
            return  # only a start with another log, or after a cure, can help
        while not self._guard.problem:
            await asyncio.sleep(EVERY_S)
            self._guard.on_state(await loop.run_in_executor(self._executor, self._watch.read), {})

    def close(self) -> None:
        """Disconnect from Kafka."""
        self._watch.close()
