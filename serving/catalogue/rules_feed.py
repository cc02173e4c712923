"""The rules that apply: those of a file and those of the topic `rules`, compiled for every domain when they change."""

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
from serving.catalogue.domain_state import DomainState
from serving.messages import decode_rule_change
from serving.rules.rule import MAX_RULES, Rule, RuleError, read_file, rule_of, rules_of_domain

CHECK_FILE_EVERY_S: Final = 1.0
TICK_EVERY_S: Final = 0.2
NOTIFY_EVERY_S: Final = 1.0
"""Live streams look again at most so often, however many items and rules change meanwhile."""

log = logging.getLogger("coldstream.api")


class RulesFile(msgspec.Struct, frozen=True):
    """The rules' file as it was read last; `error` says why its newest version does not apply."""

    path: str
    rules: int
    error: str | None = None


class RuleRegistry:
    """Keeps the domains' rules those of file and topic.

    A rule of the topic replaces one of the same id in the file. Everything here runs on the event loop, but for
    compiling, which `executor` does. `on_applied` is called with each partition of the topic and the offset up to which
    it applies, `on_change` with the domain whose rules or items changed. `ready` is set once rules apply.
    """

    def __init__(
        self,
        file: Path | None,
        domains: Mapping[str, DomainState],
        executor: Executor,
        on_applied: Callable[[str, int], None],
        on_change: Callable[[str], None],
    ) -> None:
        self.ready = asyncio.Event()
        self.from_topic: dict[str, Rule] = {}
        self._path = file
        self._from_file: list[Rule] = []
        self._file_version: tuple[int, int, int] | None = None
        self._file_error: str | None = None
        self._domains = domains
        self._executor = executor
        self._on_applied = on_applied
        self._on_change = on_change
        self._offsets: dict[str, int] = {}
        self._changed = asyncio.Event()

    @property
    def rules(self) -> list[Rule]:
        """Every rule, by id."""
        by_id = {rule.id: rule for rule in self._from_file} | self.from_topic
        return [by_id[rule_id] for rule_id in sorted(by_id)][:MAX_RULES]

    @property
    def file(self) -> RulesFile | None:
        """What is known of the file; None where the settings name none."""
        if self._path is None:
            return None
        return RulesFile(str(self._path), len(self._from_file), self._file_error)

    def on_message(self, key: bytes | None, value: bytes | None) -> None:
        """A message of the topic `rules`: a rule, or a tombstone for one that is deleted. Raises RuleError."""
        change = decode_rule_change(key, value)
        if change.definition is None:
            self.from_topic.pop(change.rule_id, None)
            return
        try:
            self.from_topic[change.rule_id] = rule_of(change.definition, change.rule_id)
        except RuleError:
            metrics.rules_rejected.labels("topic").inc()
            raise

    def on_progress(self, partition: str, offset: int) -> None:
        """Every message of a partition through `offset` was received: it applies once it is compiled."""
        self._offsets[partition] = offset
        self._changed.set()

    async def run(self, begin: asyncio.Event) -> None:
        """Compile the rules at every change, and check the file every second; from when `begin` is set."""
        await begin.wait()
        while True:
            self._changed.clear()
            await self._check_file()
            await self._compile()
            self.ready.set()
            try:
                await asyncio.wait_for(self._changed.wait(), CHECK_FILE_EVERY_S)
            except TimeoutError:
                continue

    async def keep_time(self) -> None:
        """Let items expire, and rules begin and end; report where anything changed."""
        notified_at = dict.fromkeys(self._domains, -NOTIFY_EVERY_S)
        while True:
            for name, state in self._domains.items():
                state.tick()
                if state.changed and time.monotonic() - notified_at[name] >= NOTIFY_EVERY_S:
                    state.changed, notified_at[name] = False, time.monotonic()
                    self._on_change(name)
            await asyncio.sleep(TICK_EVERY_S)

    async def _check_file(self) -> None:
        if self._path is None:
            return
        try:
            status = self._path.stat()
            version = (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError:
            version = (0, 0, 0)
        if version == self._file_version:
            return
        self._file_version = version
        try:
            self._from_file = await asyncio.get_running_loop().run_in_executor(self._executor, read_file, self._path)
        except RuleError as error:
            metrics.rules_rejected.labels("file").inc()
            log.error("%s; the previous rules still apply", error)
            self._file_error = str(error)
        else:
            log.info("%s: %d rules", os.fspath(self._path), len(self._from_file))
            self._file_error = None

    async def _compile(self) -> None:
        offsets, rules = dict(self._offsets), self.rules
        loop = asyncio.get_running_loop()
        for name, state in self._domains.items():
            if tuple(rules_of_domain(rules, name)) == state.rules:
                continue
            with state.compiling() as compilation:
                await loop.run_in_executor(self._executor, compilation.compile, rules)
            metrics.rules_active.labels(name).set(len(state.rules))
        for partition, offset in offsets.items():
            self._on_applied(partition, offset)
