"""What each member adds to a blend's look-up: one history of 50 events, 100,000 items, one thread's CPU time, no HTTP.

python -m benchmarks.members [--items 100000] [--rounds 200] [--json]

Weights are random, in the sizes of the default parameters; user-kNN's lists are as long as they may be.
"""

import argparse
import json
import time
from typing import Any, Final

import numpy as np
from threadpoolctl import threadpool_limits

from features.popularity import TOP_ITEMS
from models.data.batch import Batch
from models.data.vocabulary import Vocabulary
from models.recommenders.blend import BUCKETS
from models.recommenders.live_popularity import HALF_LIVES_MS
from serving.catalogue.live_popularity import LivePopularity
from serving.process import memory
from testing.random_release import random_recommender

MEMBERS: Final = (
    *("personal", "first-events", "item-knn", "sequential-rules", "rp3beta", "content-knn"),
    *("ease", "svd-filter", "user-knn"),
)
LENGTH: Final = 50


def measure(items: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of adding each member's probabilities to an answer."""
    rng = np.random.default_rng(0)
    vocabulary = Vocabulary.from_items([f"i{number}" for number in range(items)])
    histories = rng.integers(1, items + 1, (rounds + 1, LENGTH)).astype(np.int32)
    ones = np.ones_like(histories)
    batch = Batch(histories, ones, ones)
    figures: dict[str, Any] = {"items": items, "length": LENGTH, "members": {}}
    for name in MEMBERS:
        member = random_recommender(name, vocabulary, rng)
        out, weight, taken = np.zeros((1, items), np.float32), np.ones(1, np.float32), []
        for number in range(rounds + 1):
            history = batch.slice(number, number + 1)
            started = time.thread_time()
            member.add(out, history, weight)
            taken.append(1_000 * (time.thread_time() - started))
        p50, p99 = np.percentile(taken[1:], (50, 99))  # the first one lays matrices out
        figures["members"][name] = {"p50": float(p50), "p99": float(p99)}
    figures["members"]["live popularity"] = _live_popularity(items, batch, rng)
    return figures


def _live_popularity(items: int, batch: Batch, rng: np.random.Generator) -> dict[str, float]:
    """Shares of three half-lives, with as many items as the stream reports of each."""
    places = np.sort(rng.choice(items, min(items, len(HALF_LIVES_MS) * TOP_ITEMS), replace=False)).astype(np.int64)
    live = LivePopularity(places, rng.random((BUCKETS, len(places)), np.float32), items)
    out, taken = np.zeros((1, items), np.float32), []
    for number in range(len(batch)):
        history = batch.slice(number, number + 1)
        started = time.thread_time()
        live.add(out, history)
        taken.append(1_000 * (time.thread_time() - started))
    p50, p99 = np.percentile(taken[1:], (50, 99))
    return {"p50": float(p50), "p99": float(p99)}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.members", description="A blend's members in a look-up.")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    memory.configure_allocator(memory.LOOKUPS)
    with threadpool_limits(1):
        figures = measure(options.items, options.rounds)
    if options.json:
        print(json.dumps(figures))
        return
    print(f"one history of {figures['length']} events, {figures['items']:,} items; CPU ms")
    for name, row in figures["members"].items():
        print(f"{name:18}{row['p50']:8.2f} p50{row['p99']:8.2f} p99")


if __name__ == "__main__":
    main()
