"""How fast encoders train and answer.

python -m benchmarks.training [--encoders dnn,transformer] [--batch-sizes 64,128,512] [--json]

Training: sequences a second, each of 50 events over a made catalogue, by encoder, batch size, precision and whether
steps are compiled; the first steps, which trace and compile, are left out. Keras' backend is the one that KERAS_BACKEND
names (TensorFlow; JAX where it is installed), the device whichever that backend sees first. Freed memory stays with the
process, as in the trainer, unless `--give-back` is said. Feeding: sequences a second of batches made by one thread and
thrown away, the most that a device can be fed with.
Encoding: one history of 50 events, and 32 of them, through ONNX Runtime on one thread, as in serving.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd

from models.data.batch import Batch
from models.data.interactions import Interactions
from models.recommenders.registry import neural_names
from serving.process import memory

LENGTH: Final = 50
SKIPPED: Final = 3
"""Steps that are not counted: they trace, compile and fill queues."""


def made_log(users: int, items: int, rng: np.random.Generator) -> Interactions:
    """Every user has as many events as a history is long, items by falling popularity, and one more."""
    n = users * (LENGTH + 1)
    chances = 1 / np.arange(1, items + 1)
    frame = pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(users), LENGTH + 1).astype(str),
            "item_id": rng.choice(items, n, p=chances / chances.sum()).astype(str),
            "kind": rng.choice(["view", "cart", "purchase"], n),
            "at": 1_700_000_000_000 + 60_000 * np.tile(np.arange(LENGTH + 1), users),
        }
    )
    categories = {str(item): str(item % 20) for item in range(items)}
    return Interactions.from_frame(frame, categories=categories)


def trained(
    log: Interactions, encoder: str, size: int, mixed: bool, compiled: bool, workers: int, at_once: int, seconds: float
) -> tuple[float, float]:
    """Sequences a second over about `seconds`, and milliseconds of processor time a sequence."""
    import keras

    from models.recommenders.neural.recommender import Neural, Params

    class Clock(keras.callbacks.Callback):
        steps, last, began, ended = 0, 0, (0.0, 0.0), (0.0, 0.0)
        skipped: int | None = None

        def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
            self.ended = (time.perf_counter(), time.process_time())
            if self.skipped is None and self.steps + batch + 1 >= SKIPPED:
                self.skipped, self.began = self.steps + batch + 1, self.ended
            self.last = self.steps + batch + 1
            if self.skipped is not None and self.ended[0] - self.began[0] > seconds:
                self.model.stop_training = True

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
            self.steps = self.last

    plain = {"adversarial": 0.0}  # which is a seventh of a step; rates without it can be compared with those of others
    params = Params(encoder, batch_size=size, length=LENGTH, epochs=1_000, mixed=mixed, compiled=compiled, **plain)
    params = msgspec.structs.replace(params, workers=workers, steps_per_execution=at_once)
    model, clock = Neural(params), Clock()
    model.callbacks = [clock]
    model.fit(log)
    sequences = size * (clock.last - (clock.skipped or 0))
    passed, worked = (end - start for start, end in zip(clock.began, clock.ended, strict=True))
    return sequences / max(passed, 1e-9), 1_000 * worked / max(sequences, 1)


def fed(log: Interactions, encoder: str, size: int, seconds: float) -> float:
    """Sequences a second that one thread makes into batches."""
    from models.data.windows import cut_windows
    from models.recommenders.neural.batches import Batches
    from models.recommenders.neural.recommender import Params

    params = Params(encoder=encoder, batch_size=size, length=LENGTH)
    windows, chances = cut_windows(log, LENGTH, params.windows_per_user), np.ones(len(log.vocabulary))
    batches, count = Batches(windows, params, chances / chances.sum()), 0
    until = time.perf_counter() + seconds
    began = time.perf_counter()
    while time.perf_counter() < until:
        batches[count % len(batches)]
        count += 1
    return count * size / (time.perf_counter() - began)


def encoded(log: Interactions, encoder: str, seconds: float) -> dict[str, float]:
    """Milliseconds of one encode through ONNX Runtime on one thread: p50 and p99, of one history and of 32."""
    import onnxruntime

    from models.recommenders.item_product import options_of
    from models.recommenders.neural.recommender import Network, Neural, Params

    model = Neural(Params(encoder=encoder, length=LENGTH))
    model.vocabulary, model.popularity = log.vocabulary, np.ones(len(log.vocabulary), np.float32)
    model.network = Network(log.categories, model.params)
    stage_seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as text:
        model.save(Path(text))
        session = onnxruntime.InferenceSession(str(Path(text) / "encoder.onnx"), options_of(), ["CPUExecutionProvider"])
    input_names = {node.name for node in session.get_inputs()}
    for size in (1, 32):
        batch = _histories(log, size)
        options = {name: getattr(batch, name) for name in ("items", "kinds", "gaps") if name in input_names}
        times = list(_timed(lambda options=options: session.run(None, options), seconds))
        for part in (50, 99):
            stage_seconds[f"p{part}_ms_of_{size}"] = float(np.percentile(times, part))
    return stage_seconds


def _histories(log: Interactions, size: int) -> Batch:
    rng = np.random.default_rng(0)
    shape = (size, LENGTH)
    items, kinds, gaps = (rng.integers(1, most, shape, np.int32) for most in (len(log.vocabulary), 5, 20))
    return Batch(items, kinds, gaps)


def _timed(work: Callable[[], Any], seconds: float) -> Iterator[float]:
    for _ in range(10):
        work()
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        work()
        yield 1_000 * (time.perf_counter() - began)


def device() -> str:
    """Backend, and the device that it computes on."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        return f"tensorflow on {tf.config.experimental.get_device_details(gpus[0])['device_name'] if gpus else 'CPU'}"
    if keras.backend.backend() == "jax":
        import jax

        return f"jax on {jax.devices()[0].device_kind}"
    return str(keras.backend.backend())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", default=",".join(neural_names()))
    parser.add_argument("--batch-sizes", default="128,512")
    parser.add_argument("--precisions", default="float32,mixed", help="float32, mixed (bfloat16 over float32 weights)")
    parser.add_argument("--compiled", default="yes,no", help="whether steps are compiled (XLA)")
    parser.add_argument("--workers", default="0", help="2 or more prepare batches ahead")
    parser.add_argument("--steps-per-execution", default="0", help="sent before the host waits; 0: as in training")
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=5_000, help="above 1,000 the softmax is over sampled items")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument(
        "--give-back", action="store_true", help="freed memory goes back at once, as glibc would have it"
    )
    parser.add_argument("--only", choices=["training", "feeding", "encoding"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not options.give_back:
        memory.configure_allocator(memory.TRAINING)
    log = made_log(options.users, options.items, np.random.default_rng(0))
    figures: dict[str, Any] = {"device": device(), "cpus": os.cpu_count(), "load": os.getloadavg()[0]}
    print(
        f"{figures['device']}, {figures['cpus']} CPUs, load {figures['load']:.1f} before; {len(log.vocabulary)} items"
    )
    for part, measure in (("training", _training), ("feeding", _feeding), ("encoding", _encoding)):
        figures[part] = measure(log, options) if options.only in (None, part) else []
    if options.json:
        print(json.dumps(figures))
    return 0


def _training(log: Interactions, options: argparse.Namespace) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    print(
        f"{'encoder':<12} {'batch':>6} {'precision':>10} {'compiled':>9} {'workers':>8} {'at once':>8} "
        f"{'sequences/s':>12} {'CPU ms each':>12}"
    )
    sizes, workers, at_once = (
        [int(number) for number in text.split(",")]
        for text in (options.batch_sizes, options.workers, options.steps_per_execution)
    )
    ways = product(options.precisions.split(","), options.compiled.split(","), workers, at_once)
    for encoder, size, (precision, compiled, many, steps) in product(options.encoders.split(","), sizes, list(ways)):
        if encoder == "rnn" and compiled == "yes" and "tensorflow" in device():
            continue  # unrolled steps compile for minutes
        how = (precision == "mixed", compiled == "yes", many, steps, options.seconds)
        rate, used = trained(log, encoder, size, *how)
        row = {"encoder": encoder, "batch": size, "precision": precision, "compiled": compiled}
        rows.append({**row, "workers": many, "steps_per_execution": steps, "rate": rate, "cpu_ms": used})
        print(
            f"{encoder:<12} {size:>6} {precision:>10} {compiled:>9} {many:>8} {steps:>8} {rate:>12,.0f} {used:>12.3f}",
            flush=True,
        )
    return rows


def _feeding(log: Interactions, options: argparse.Namespace) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    print(f"{'encoder':<12} {'batch':>6} {'fed/s':>12}")
    for encoder, size in product(options.encoders.split(","), [int(size) for size in options.batch_sizes.split(",")]):
        rows.append({"encoder": encoder, "batch": size, "rate": fed(log, encoder, size, options.seconds)})
        print(f"{encoder:<12} {size:>6} {rows[-1]['rate']:>12,.0f}", flush=True)
    return rows


def _encoding(log: Interactions, options: argparse.Namespace) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    print(f"{'encoder':<12} {'one: p50':>10} {'p99 ms':>8} {'32: p50':>10} {'p99 ms':>8}")
    for encoder in options.encoders.split(","):
        latency = encoded(log, encoder, options.seconds)
        rows.append({"encoder": encoder, **latency})
        print(
            f"{encoder:<12} {latency['p50_ms_of_1']:>10.2f} {latency['p99_ms_of_1']:>8.2f} "
            f"{latency['p50_ms_of_32']:>10.2f} {latency['p99_ms_of_32']:>8.2f}",
            flush=True,
        )
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
