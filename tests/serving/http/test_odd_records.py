"""Odd records on control topics: set aside, and what follows them is applied."""

import pytest
from aiokafka import TopicPartition

from serving.http.topic_follower import TopicFollower
from serving.rollout.canary import LatestOutcomes
from serving.rules.rule import RuleError, rule_of
from stream.events import Item
from testing.lookups import NOW, domain_state


class Record:
    topic, partition, key = "rules", 0, b"r"

    def __init__(self, offset: int, value: bytes) -> None:
        self.offset, self.value = offset, value


def test_a_record_that_a_handler_cannot_take_stops_nothing() -> None:
    taken: list[bytes | None] = []

    def handle(_key: bytes | None, value: bytes | None) -> None:
        if value == b"odd":
            raise OverflowError("too large")
        taken.append(value)

    progress: list[int] = []
    follower = TopicFollower(
        "127.0.0.1:1", {}, {"rules": handle}, from_start=True, on_progress=lambda _, offset: progress.append(offset)
    )
    records = [Record(number, value) for number, value in enumerate([b"a", b"odd", b"b"])]
    follower._handle(TopicPartition("rules", 0), records)  # type: ignore[arg-type]  # as aiokafka's records
    assert (taken, progress) == ([b"a", b"b"], [2])


@pytest.mark.parametrize(
    "raw", [b"\xff", b'{"id":"\xff"}', b"[" * 100_000, b"null", b'{"position":' + b"9" * 400 + b"}"]
)
def test_odd_rules_and_outcomes_are_passed_over(raw: bytes) -> None:
    with pytest.raises(RuleError):
        rule_of(raw, "r")
    outcomes = LatestOutcomes()
    outcomes.on_message(b"events/0", raw)
    outcomes.on_message(b"events/1", b'{"counts":{"\xff":{}}}')
    assert outcomes.counts() == {}


@pytest.mark.parametrize("at", [-(10**400), 10**400, -1])
def test_an_impossible_time_of_publication_is_passed_over(at: int) -> None:
    state = domain_state(clock=lambda: NOW)
    state.domain.policy = type(state.domain.policy)((), frozenset(), None, freshness=object())  # type: ignore[arg-type]
    state.domain.put_items([Item(item_id="a", at=NOW, attributes={"published_at": at})])
    assert state.domain.published_at == {}
