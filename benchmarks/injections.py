"""What injection costs a look-up: one history of a few events, one thread's CPU time, no HTTP.

python -m benchmarks.injections [--items 100000] [--rounds 200] [--known 1] [--json]

Recommenders have random weights, in the sizes of their default parameters. `table` reads tabulated expectations, 64 of
each item; `walk` computes them in each look-up.
"""

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_limits

from models.arrays import Float32
from models.data.batch import Batch
from models.data.vocabulary import Vocabulary
from models.injection.imagination import Imagination
from models.injection.injection import Injection
from models.injection.soft import TOP, ExpectationTable, Expected
from models.recommenders.base import Scorer
from models.synthesizers.chain import Chain, backing_off, row_stochastic
from models.synthesizers.walk import Walk
from serving.process import memory
from testing.random_release import random_recommender

MEMBERS: Final = ("item-knn", "sequential-rules", "ease", "svd-filter", "user-knn")
LENGTH: Final = 50


def measure(items: int, rounds: int, known: int) -> dict[str, Any]:
    """Milliseconds of adding each member's probabilities to an answer, with and without imagined events."""
    rng = np.random.default_rng(0)
    vocabulary = Vocabulary.from_items([f"i{number}" for number in range(items)])
    histories = np.zeros((rounds + 1, LENGTH), np.int32)
    histories[:, -known:] = rng.integers(1, items + 1, (rounds + 1, known))
    ones = (histories > 0).astype(np.int32)
    batch = Batch(histories, ones, ones)
    imaginations = {"table": random_table(vocabulary, rng), "walk": Expected(random_walk(vocabulary, rng), top=TOP)}
    figures: dict[str, Any] = {"items": items, "known": known, "members": {}}
    for name in MEMBERS:
        for arm, scorer in arms(random_recommender(name, vocabulary, rng), imaginations, known):
            p50, p99 = milliseconds(scorer, batch, items)
            figures["members"].setdefault(name, {})[arm] = {"p50": p50, "p99": p99}
    return figures


def arms(member: Scorer, imaginations: dict[str, Imagination], known: int) -> Iterator[tuple[str, Scorer]]:
    """The member alone, and with what each imagines."""
    yield "alone", member
    for name, imagination in imaginations.items():
        yield name, Injection(member, imagination, weight=(0.5,) * (known + 1))


def milliseconds(scorer: Scorer, batch: Batch, items: int) -> tuple[float, float]:
    """The median and the 99th percentile of one history at a time."""
    out, weight, taken = np.zeros((1, items), np.float32), np.ones(1, np.float32), []
    for number in range(len(batch)):
        history = batch.slice(number, number + 1)
        started = time.thread_time()
        scorer.add(out, history, weight)
        taken.append(1_000 * (time.thread_time() - started))
    p50, p99 = np.percentile(taken[1:], (50, 99))  # the first one lays matrices out
    return float(p50), float(p99)


def random_table(vocabulary: Vocabulary, rng: np.random.Generator) -> ExpectationTable:
    """A table of random expectations."""
    numbers, shares = random_rows(len(vocabulary) + 1, len(vocabulary), rng)
    return ExpectationTable(vocabulary, numbers + 1, shares, decay=0.85)


def random_walk(vocabulary: Vocabulary, rng: np.random.Generator) -> Walk:
    """A walk over random neighbors."""
    size, walk = len(vocabulary), Walk()
    columns, shares = random_rows(size, size, rng)
    matrix = sparse.csr_matrix((shares.ravel(), (np.repeat(np.arange(size), TOP), columns.ravel())), (size, size))
    everywhere, popularity = np.ones(size, np.float32), np.full(size, 1 / size, np.float32)
    links = backing_off([(everywhere, np.arange(size, dtype=np.int32), row_stochastic(matrix))], popularity)
    walk.vocabulary = vocabulary
    walk.forward = walk.backward = Chain(links, popularity)
    return walk


def random_rows(rows: int, items: int, rng: np.random.Generator) -> tuple[Any, Float32]:
    """TOP random item indices for each row, and falling shares."""
    shares = np.sort(rng.random((rows, TOP), np.float32), axis=1)[:, ::-1].copy()
    return rng.integers(0, items, (rows, TOP), np.int32), shares


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.injections", description="Injection in a look-up.")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--known", type=int, default=1, help="events of a history")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    memory.configure_allocator(memory.LOOKUPS)
    with threadpool_limits(1):
        figures = measure(options.items, options.rounds, options.known)
    if options.json:
        print(json.dumps(figures))
        return
    print(f"a history of {figures['known']}, {figures['items']:,} items; CPU ms, p50/p99")
    for name, row in figures["members"].items():
        cells = "".join(f"   {arm} {cell['p50']:.2f}/{cell['p99']:.2f}" for arm, cell in row.items())
        print(f"{name:18}{cells}")


if __name__ == "__main__":
    main()
