"""Whether the log is the one that store and archive were written from: checked at the start, and all the time.

Where it is not, nothing more of it is applied, archived or committed. A start ends with the reason and the cures; in a
running system `/readyz` and `coldstream status` turn red and show them.
"""

import logging
from collections.abc import Mapping
from typing import Final

from serving import metrics
from serving.errors import LogError
from stream import log_epochs, topics
from stream.log_epochs import LogEpochs
from stream.log_marks import LogMark, check_marks, mark_problem, refusal
from stream.log_watch import LogState, LogWatch

TRUSTED_TOPICS: Final = (topics.EVENTS, topics.ITEMS, topics.USERS)
"""Topics whose positions the store and the archive hold."""
CERTAIN_AFTER: Final = 2
"""So many states of the log in a row must show a problem: a broker that just started may not know everything yet."""

log = logging.getLogger("coldstream.kafka")


class LogGuard:
    """The log's identity and epochs, the marks of what was read, and `problem`: why nothing more is read, or ''."""

    def __init__(self, bootstrap: str, security: Mapping[str, str] | None) -> None:
        self.kafka = (bootstrap, security)
        self.epochs = LogEpochs()
        self.problem = ""
        self._state: LogState | None = None
        self._unwritten: dict[str, tuple[int, int]] = {}
        self._suspicions = 0

    def start(self, marks: Mapping[str, LogMark]) -> None:
        """Learn the log's identity and epochs, and compare the log with `marks`. Blocks.

        Raises:
            LogError: the log is another one.
            BrokerError: Kafka does not answer.
        """
        self.epochs = log_epochs.read(*self.kafka)
        with LogWatch(*self.kafka, TRUSTED_TOPICS) as watch:
            self._state = watch.read()
        self.recheck(marks)
        if self.problem:
            raise LogError(self.problem)

    def recheck(self, marks: Mapping[str, LogMark]) -> None:
        """Compare the log with marks, now. Blocks. Raises BrokerError."""
        problem = check_marks(*self.kafka, marks, self.epochs.number)
        if problem is not None:
            self._report(problem)

    def on_state(self, state: LogState, next_offsets: Mapping[str, int]) -> None:
        """Compare the state of the log with the one at the start, and its ends with what was read (`events/3`)."""
        if self._state is None:
            return
        known = self._state.topics
        offsets = {f"{topic}/0": 0 for topic in TRUSTED_TOPICS} | dict(next_offsets)
        before = {
            name: LogMark(self._state.cluster, known[topic], offset - 1, epoch=self.epochs.number)
            for name, offset in offsets.items()
            if (topic := name.rpartition("/")[0]) in known
        }
        problem = mark_problem(before, state, self.epochs.number)
        self._suspicions = self._suspicions + 1 if problem is not None else 0
        if problem is not None and self._suspicions >= CERTAIN_AFTER:
            self._report(problem)
        if problem is None:
            topic_ids = {**state.topics, **known}
            self._state = LogState(self._state.cluster, topic_ids, state.ends)

    def on_read(self, name: str, offset: int, logged_at: int) -> None:
        """A partition was read through the record at `offset`."""
        self._unwritten[name] = (offset, logged_at)

    def take_marks(self) -> dict[str, LogMark]:
        """The marks of what was read since the last call. None where the log is not the right one, or not known."""
        state = self._state
        if state is None or self.problem:
            return {}
        marks = {
            name: LogMark(state.cluster, state.topics[topic], offset, logged_at, self.epochs.number)
            for name, (offset, logged_at) in self._unwritten.items()
            if (topic := name.rpartition("/")[0]) in state.topics
        }
        self._unwritten = {name: read for name, read in self._unwritten.items() if name not in marks}
        return marks

    def _report(self, problem: str) -> None:
        message = refusal(self.kafka[0], problem)
        if message != self.problem:
            log.error("%s", message)
        self.problem = message
        metrics.log_replaced.set(1)


def trusted_partitions(partitions: int) -> list[str]:
    """The partitions whose positions the store holds, in a system with so many partitions of `events`."""
    return [*(f"{topics.EVENTS}/{number}" for number in range(partitions)), f"{topics.ITEMS}/0", f"{topics.USERS}/0"]
