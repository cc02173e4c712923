"""The widest steps of a look-up, in ONNX Runtime and in NumPy: products with the item matrix, and softmax.

python -m benchmarks.kernels [--items 100000] [--size 64] [--rounds 60] [--json]

Rough: in eight bits first, the best in float32 (`Product`). One thread. The matrix is read again and again here; in a
running system other work takes it out of the caches between two look-ups, and all of them are slower.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from threadpoolctl import threadpool_limits

from models.recommenders.item_product import Product, softmax
from serving.process import memory

BATCHES: Final = (1, 2, 4, 8, 16, 32)


def milliseconds(call: Callable[[], Any], rounds: int) -> dict[str, float]:
    """Median and the middle half of `rounds` calls."""
    taken = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - started))
    low, middle, high = np.percentile(taken[1:], (25, 50, 75))  # the first one finds nothing in place
    return {"p25": float(low), "p50": float(middle), "p75": float(high)}


def measure(items: int, size: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of each step by number of histories."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(0, 0.3, (items, size)).astype(np.float32)
    across, product, rough = np.ascontiguousarray(vectors.T), Product(vectors, rough=0), Product(vectors, rough=32)
    figures: dict[str, Any] = {"items": items, "size": size, "batches": {}}
    for batch in BATCHES:
        hidden = rng.normal(size=(batch, size)).astype(np.float32)
        scores = hidden @ across
        steps: dict[str, Callable[[], Any]] = {
            "product, NumPy": lambda hidden=hidden: hidden @ across,
            "product": lambda hidden=hidden: product(hidden),
            "product, rough": lambda hidden=hidden: rough(hidden),
            "softmax, NumPy": lambda scores=scores: _shares(scores),
            "softmax": lambda scores=scores: softmax(scores),
        }
        figures["batches"][batch] = {name: milliseconds(call, rounds) for name, call in steps.items()}
    return figures


def _shares(scores: np.ndarray[Any, np.dtype[np.float32]]) -> Any:
    out = np.exp(scores - scores.max(axis=1, keepdims=True))
    out /= out.sum(axis=1, keepdims=True)
    return out


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description="The widest steps of a look-up.")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=64, help="numbers in a vector")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    memory.configure_allocator(memory.LOOKUPS)
    with threadpool_limits(1):
        figures = measure(options.items, options.size, options.rounds)
    if options.json:
        print(json.dumps(figures))
        return
    print(f"{figures['items']:,} items, {figures['size']} numbers each; ms, median (middle half)")
    names = list(next(iter(figures["batches"].values())))
    print(f"{'histories':>9}" + "".join(f"{name:>24}" for name in names))
    for batch, steps in figures["batches"].items():
        cells = [f"{step['p50']:.2f} ({step['p25']:.2f}-{step['p75']:.2f})" for step in steps.values()]
        print(f"{batch:>9}" + "".join(f"{cell:>24}" for cell in cells))


if __name__ == "__main__":
    main()
