"""The join's rows on a real broker: what one process wrote and lost, the next one has."""

import asyncio
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer, TopicPartition

from features.activity import LoggedEvent
from features.outcomes import JoinWindow
from serving.consume.impression_join import ImpressionJoin
from stream.broker import Broker
from stream.events import Event, Impression, Interaction

NOON = 1_760_000_000_000
PLACE = TopicPartition("events", 2)


def shown(number: int) -> Impression:
    items = [f"i{number}", "x"]
    return Impression(
        event_id=f"s{number}", user_id="ann", item_ids=items, at=NOON + number, release="r", domain="news"
    )


def taken(number: int) -> Interaction:
    item = f"i{number}"
    return Interaction(event_id=f"t{number}", user_id="ann", item_id=item, kind="read", at=NOON + 500, domain="news")


def logged(events: Sequence[Event], start: int) -> list[LoggedEvent]:
    return [LoggedEvent(event, "events/2", start + place) for place, event in enumerate(events)]


async def crash_and_return(bootstrap: str) -> tuple[int, int, int, int]:
    """Where the next process begins to read; then lists, clicks, and the position once all came again."""
    log = logged([*(shown(number) for number in range(5)), taken(0), taken(1), taken(0), taken(3)], 10)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    try:
        first = ImpressionJoin(bootstrap, {}, JoinWindow())
        assert first.begin(PLACE, (await first.restore([PLACE])).get(PLACE), 10) == 10
        first.apply(PLACE, log[:6], 15)
        await first.publish(producer)
        first.apply(PLACE, log[6:8], 17)  # lost with the process
        second = ImpressionJoin(bootstrap, {}, JoinWindow())
        start = second.begin(PLACE, (await second.restore([PLACE])).get(PLACE), 16)
        second.apply(PLACE, [event for event in log if event.offset >= start - 3], 18)
        await second.publish(producer)
        row, waiting = (await second.restore([PLACE]))[PLACE]
    finally:
        await producer.stop()
    counts = row.counts["news"]["r"]
    assert len(waiting) == 5
    return start, sum(counts.impressions), sum(counts.clicks), row.position


def test_a_crash_counts_no_list_twice_and_loses_no_click(broker: Broker) -> None:
    assert asyncio.run(crash_and_return(broker.bootstrap)) == (16, 5, 3, 18)
