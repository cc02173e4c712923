"""Made events and items for load: Zipf-popular items, users of uneven activity. For speed only, never for quality."""

import time
from collections.abc import Iterator

import numpy as np

from stream.events import Interaction, Item


def items(n: int) -> Iterator[Item]:
    """`n` items in 200 categories."""
    now = int(time.time() * 1000)
    for number in range(n):
        yield Item(item_id=f"i{number}", at=now, title=f"Item {number}", category=f"c{number % 200}")


def events(n: int, users: int, n_items: int, rng: np.random.Generator, start: int = 0) -> Iterator[Interaction]:
    """`n` interactions, one every 5 ms of event time up to now; ids begin at `start`."""
    now = int(time.time() * 1000)
    who = (users * rng.power(0.6, n)).astype(np.int64) % users
    what = np.minimum(rng.zipf(1.2, n) - 1, n_items * 10) % n_items
    kinds = rng.choice(np.array(["view", "view", "view", "cart", "purchase"]), n)
    first = now - 5 * n
    for place in range(n):
        item = int(what[place])
        yield Interaction(
            event_id=f"b{start + place}",
            user_id=f"u{who[place]}",
            item_id=f"i{item}",
            kind=str(kinds[place]),  # type: ignore[arg-type]
            at=first + 5 * place,
            category=f"c{item % 200}",
        )
