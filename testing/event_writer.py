"""A client that posts events without pause and retries until each batch is acknowledged."""

import asyncio
import random
import time
from typing import Final

from stream.events import Interaction, encode
from testing import load

USERS: Final = 400
ITEMS: Final = 300
BATCH: Final = 20


class EventWriter:
    """Posts random events until `stopping` is set; `acknowledged` holds each event for which a 202 came."""

    def __init__(self, port: int, seed: int) -> None:
        self.port = port
        self.acknowledged: list[Interaction] = []
        self.retries = 0
        self.stopping = asyncio.Event()
        self._rng = random.Random(seed)

    async def run(self, name: str, batches_per_second: float = 40.0) -> None:
        """Post batches one after the other, at most so many per second; event ids begin with `name`."""
        number = 0
        while not self.stopping.is_set():
            batch = [self._event(f"{name}-{number + offset}") for offset in range(BATCH)]
            number += BATCH
            body = b"[" + b",".join(encode(event) for event in batch) + b"]"
            while not await self._post(body):
                self.retries += 1
                await asyncio.sleep(0.05)
            self.acknowledged += batch
            await asyncio.sleep(1 / batches_per_second)

    async def _post(self, body: bytes) -> bool:
        try:
            async with asyncio.timeout(15), load.Connection(self.port) as connection:
                status, _ = await connection.request(load.post_request("/v1/events", body))
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return False
        return status == 202

    def _event(self, event_id: str) -> Interaction:
        return Interaction(
            event_id=event_id,
            user_id=f"u{self._rng.randrange(USERS)}",
            item_id=f"i{self._rng.randrange(ITEMS)}",
            kind=self._rng.choice(("view", "cart", "purchase")),
            at=int(time.time() * 1000) - self._rng.randrange(60_000),
            category=f"c{self._rng.randrange(9)}",
        )


def write_for(port: int, seconds: float, seed: int = 7) -> list[Interaction]:
    """The events that an API acknowledged in `seconds` of writing."""

    async def write() -> list[Interaction]:
        writer = EventWriter(port, seed)
        writing = asyncio.create_task(writer.run(f"t{time.monotonic_ns()}"))
        await asyncio.sleep(seconds)
        writer.stopping.set()
        await writing
        return writer.acknowledged

    return asyncio.run(write())
