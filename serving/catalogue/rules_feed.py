"""The rules that stand: those of a file and those of the topic `rules`, readied for every domain when they change."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

import msgspec

from serving import metrics
from serving.catalogue.domain import Domain
from serving.messages import decode_rule_change
from serving.rules.rule import MOST_RULES, Rule, RuleError, applies, read_file, rule_of

LOOK_EVERY_S: Final = 1.0
TICK_EVERY_S: Final = 0.2
WAKE_EVERY_S: Final = 1.0
"""Live streams look again at most so often, however many items and rules change meanwhile."""

log = logging.getLogger("coldstream.api")


class FileState(msgspec.Struct, frozen=True):
    """The rules' file as it was read last; `error` says why its newest version is not followed."""

    path: str
    rules: int
    error: str | None = None


class Standing:
    """Keeps the domains' rules those of file and topic. `reach` is told what of the topic holds from now on, `wake` the
    domain in which rules or items changed.

    A rule of the topic stands before one of the same id in the file. Everything here runs on the event loop, but for
    the readying, which `executor` does.
    """

    def __init__(
        self,
        file: Path | None,
        domains: Mapping[str, Domain],
        executor: Executor,
        reach: Callable[[str, int], None],
        wake: Callable[[str], None],
    ) -> None:
        self.ready = asyncio.Event()
        self.told: dict[str, Rule] = {}
        self._file = file
        self._read: list[Rule] = []
        self._seen: tuple[int, int, int] | None = None
        self._error: str | None = None
        self._domains = domains
        self._executor = executor
        self._reach = reach
        self._wake = wake
        self._reached: dict[str, int] = {}
        self._changed = asyncio.Event()

    @property
    def rules(self) -> list[Rule]:
        """Every rule, by id."""
        both = {one.id: one for one in self._read} | self.told
        return [both[name] for name in sorted(both)][:MOST_RULES]

    @property
    def file(self) -> FileState | None:
        """What is known of the file; None where the settings name none."""
        return FileState(str(self._file), len(self._read), self._error) if self._file is not None else None

    def hear(self, key: bytes | None, value: bytes | None) -> None:
        """A message of the topic `rules`: a rule, or nothing for one that is deleted."""
        change = decode_rule_change(key, value)
        if change.definition is None:
            self.told.pop(change.rule_id, None)
            return
        try:
            self.told[change.rule_id] = rule_of(change.definition, change.rule_id)
        except RuleError as error:
            metrics.rules_refused.labels("topic").inc()
            log.warning("a message on rules is passed over: %s", error)

    def heard(self, partition: str, offset: int) -> None:
        """Everything of the topic through `offset` was heard: it holds as soon as it is readied."""
        self._reached[partition] = offset
        self._changed.set()

    async def watch(self, begin: asyncio.Event) -> None:
        """Ready the rules at every change, and look at the file every second; from when the catalogue is there."""
        await begin.wait()
        while True:
            self._changed.clear()
            await self._look()
            await self._ready()
            self.ready.set()
            try:
                await asyncio.wait_for(self._changed.wait(), LOOK_EVERY_S)
            except TimeoutError:
                continue

    async def keep_time(self) -> None:
        """Let items expire, and rules begin and end; say where anything changed."""
        woken = dict.fromkeys(self._domains, -WAKE_EVERY_S)
        while True:
            for name, domain in self._domains.items():
                domain.tick()
                if domain.moved and time.monotonic() - woken[name] >= WAKE_EVERY_S:
                    domain.moved, woken[name] = False, time.monotonic()
                    self._wake(name)
            await asyncio.sleep(TICK_EVERY_S)

    async def _look(self) -> None:
        if self._file is None:
            return
        try:
            found = self._file.stat()
            seen = (found.st_mtime_ns, found.st_size, found.st_ino)
        except OSError:
            seen = (0, 0, 0)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._read = await asyncio.get_running_loop().run_in_executor(self._executor, read_file, self._file)
        except RuleError as error:
            metrics.rules_refused.labels("file").inc()
            log.error("%s; the rules that were read before stay", error)
            self._error = str(error)
        else:
            log.info("%s: %d rules", os.fspath(self._file), len(self._read))
            self._error = None

    async def _ready(self) -> None:
        reached, every = dict(self._reached), self.rules
        loop = asyncio.get_running_loop()
        for name, domain in self._domains.items():
            if tuple(applies(every, name)) == domain.rules:
                continue
            domain.begin_rules()
            domain.adopt_rules(await loop.run_in_executor(self._executor, domain.compile, every))
            metrics.rules_standing.labels(name).set(len(domain.rules))
        for partition, offset in reached.items():
            self._reach(partition, offset)
