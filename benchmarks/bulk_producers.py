"""Processor time per message of our bulk producer and of confluent-kafka, alternating, into the embedded broker.

confluent-kafka is no dependency: `uv pip install confluent-kafka` first. `python -m benchmarks.bulk_producers`.
"""

import argparse
import asyncio
import resource
import time
from collections.abc import Callable

from stream.admin import create_topics
from stream.broker import Broker
from stream.bulk import BulkProducer
from stream.events import Interaction, encode
from stream.topics import EVENTS, topics
from testing.ports import free_port
from testing.temporary_folder import temporary_folder

CHUNK = 10_000
RETENTION_MS = 7 * 24 * 60 * 60 * 1000

Messages = list[tuple[bytes, bytes]]


def messages(count: int) -> Messages:
    """Views by 50,000 users of 20,000 items."""
    rows = []
    for number in range(count):
        user = f"user-{number * 7919 % 50_000}"
        at = 1_700_000_000_000 + number
        event = Interaction(
            event_id=f"e{number}", user_id=user, item_id=f"item-{number * 31 % 20_000}", kind="view", at=at
        )
        rows.append((f"shop/{user}".encode(), encode(event)))
    return rows


async def ours(bootstrap: str, rows: Messages) -> None:
    """One chunk is made while the one before is on its way, as a replay does it."""
    producer = BulkProducer(bootstrap)
    await producer.start()
    before = None
    for start in range(0, len(rows), CHUNK):
        acknowledged = await producer.send(EVENTS, rows[start : start + CHUNK])
        if before is not None:
            await before
        before = acknowledged
    if before is not None:
        await before
    await producer.stop()


def confluent(bootstrap: str, rows: Messages) -> None:
    """The same guarantees: idempotent, acks=all, the partition of Kafka's own clients."""
    from confluent_kafka import Producer

    config = {"bootstrap.servers": bootstrap, "enable.idempotence": True, "acks": "all", "linger.ms": 5}
    config |= {"partitioner": "murmur2_random", "batch.size": 1024 * 1024, "queue.buffering.max.messages": 200_000}
    producer = Producer(config)
    for number, (key, value) in enumerate(rows):
        while True:
            try:
                producer.produce(EVENTS, value, key)
                break
            except BufferError:
                producer.poll(0.05)
        if number % CHUNK == 0:
            producer.poll(0)
    producer.flush()


def measure(work: Callable[[], None], count: int) -> str:
    """Microseconds of processor time per message, and messages per second."""
    usage, started = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    work()
    after, took_s = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - started
    cpu_s = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
    return f"{1e6 * cpu_s / count:6.2f} us of CPU per message, {count / took_s:9,.0f} messages/s"


def main() -> None:
    """Print a line per producer and round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows = messages(options.messages)
    with temporary_folder("coldstream-producers-") as folder, Broker(folder, free_port()) as broker:
        create_topics(broker.bootstrap, None, topics(8, RETENTION_MS))
        for _ in range(options.rounds):
            print("aiokafka ", measure(lambda: asyncio.run(ours(broker.bootstrap, rows)), len(rows)))
            print("confluent", measure(lambda: confluent(broker.bootstrap, rows), len(rows)))


if __name__ == "__main__":
    main()
