"""Synthetic events and items for load: Zipf-popular items, users of uneven activity. For speed, never for quality."""

import time
from collections.abc import Iterator

import numpy as np

from stream.events import Interaction, Item


def synthetic_items(n: int) -> Iterator[Item]:
    """`n` items in 200 categories."""
    now = int(time.time() * 1000)
    for number in range(n):
        yield Item(item_id=f"i{number}", at=now, title=f"Item {number}", category=f"c{number % 200}")


def synthetic_events(
    n: int, users: int, n_items: int, rng: np.random.Generator, start: int = 0
) -> Iterator[Interaction]:
    """`n` interactions, one every 5 ms of event time up to now; ids begin at `start`."""
    now = int(time.time() * 1000)
    users_drawn = (users * rng.power(0.6, n)).astype(np.int64) % users
    items_drawn = np.minimum(rng.zipf(1.2, n) - 1, n_items * 10) % n_items
    kinds = rng.choice(np.array(["view", "view", "view", "cart", "purchase"]), n)
    first = now - 5 * n
    for number in range(n):
        item = int(items_drawn[number])
        yield Interaction(
            event_id=f"b{start + number}",
            user_id=f"u{users_drawn[number]}",
            item_id=f"i{item}",
            kind=str(kinds[number]),  # type: ignore[arg-type]
            at=first + 5 * number,
            category=f"c{item % 200}",
        )
