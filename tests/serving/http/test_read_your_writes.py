"""Tokens, and look-ups that wait until the features contain them."""

import asyncio
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.http.problems import Problem
from serving.http.read_your_writes import (
    AppliedOffsets,
    format_token,
    newest_token,
    parse_tokens,
    wait_until_applied,
)
from stream import topics
from stream.producer import Position


def test_a_token_of_events_leaves_out_the_topic() -> None:
    assert format_token(topics.EVENTS, Position(3, 120)) == "3:120"
    assert format_token(topics.ITEMS, Position(0, 7)) == "items/0:7"
    assert parse_tokens("3:120,items/0:7") == [("events/3", 120), ("items/0", 7)]


@given(st.lists(st.builds(Position, st.integers(0, 99), st.integers(0, 10**12)), min_size=1))
def test_a_token_of_several_records_names_the_newest_of_each_partition(positions: list[Position]) -> None:
    expected: dict[str, int] = {}
    for position in positions:
        partition = f"rules/{position.partition}"
        expected[partition] = max(expected.get(partition, 0), position.offset)
    assert dict(parse_tokens(newest_token("rules", positions))) == expected


@pytest.mark.parametrize("text", ["", "soon", "3", "3:", ":4", "3:-1", "3:1,", "Items/0:1", "3:1 ", "1/2/3:4"])
def test_other_text_is_not_a_token(text: str) -> None:
    with pytest.raises(Problem) as refused:
        parse_tokens(text)
    assert (refused.value.status_code, refused.value.type_) == (400, "bad-token")


def test_offsets_only_advance() -> None:
    applied = AppliedOffsets()
    assert not applied.contains("events/0", 0)
    applied.advance("events/0", 5)
    applied.advance("events/0", 3)
    assert applied.by_partition == {"events/0": 5}
    assert applied.contains("events/0", 5)
    assert not applied.contains("events/0", 6)
    assert not applied.contains("events/1", 0)


def test_a_waiting_look_up_continues_when_its_offset_is_reached() -> None:
    async def scenario() -> None:
        applied = AppliedOffsets()
        first = asyncio.create_task(applied.wait("events/0", 2, 30))
        second = asyncio.create_task(applied.wait("events/0", 4, 30))
        await asyncio.sleep(0)
        applied.advance("events/0", 3)
        assert await first
        assert not second.done()
        applied.advance("events/0", 4)
        assert await second
        assert await applied.wait("events/0", 4, 0)
        assert not await applied.wait("events/0", 5, 0)
        assert not await applied.wait("events/0", 5, 0.01)

    asyncio.run(scenario())


def wait(token: str, applied: AppliedOffsets, positions: Mapping[str, int], timeout_ms: int = 20) -> int:
    """How often the user's features are read."""
    reads = 0

    async def read_positions() -> Mapping[str, int]:
        nonlocal reads
        reads += 1
        return positions

    asyncio.run(wait_until_applied(token, applied, read_positions, timeout_ms))
    return reads


def test_features_are_read_only_where_offsets_are_not_known_to_be_applied() -> None:
    applied = AppliedOffsets()
    applied.advance("events/0", 9)
    assert wait("0:9", applied, {}) == 0
    assert wait("0:9,1:3", applied, {"events/1": 3}) == 1


def test_a_token_that_is_not_applied_in_time_is_a_problem() -> None:
    with pytest.raises(Problem) as refused:
        wait("1:4", AppliedOffsets(), {"events/1": 3})
    assert (refused.value.status_code, refused.value.type_) == (504, "not-yet")
    assert refused.value.detail == "token 1:4 is not in the features after 20 ms; ask again"
