"""Neural recommenders: an encoder over items, their categories, event kinds and time gaps; the next item is learned.

The loss is softmax cross-entropy over every item for small catalogues, and over sampled negatives with logQ correction
(Yi et al., RecSys 2019, section 4) for large ones; the first costs a product with the whole catalogue at every step.
Only places that something follows enter it: they are packed, so padding costs nothing there.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import keras
import msgspec
import numpy as np
import numpy.typing as npt
from keras import layers, ops

from models.recommenders.base import Floats, Vocabulary, add_dense, softmax, write_arrays
from models.recommenders.counts import popularity_of
from models.recommenders.encoders import FAR, encoder_of
from models.recommenders.sequences import GAPS, Batch, Log, Numbers, Windows, add_repeats, windows_of
from stream.events import KINDS

FULL_SOFTMAX_ITEMS: Final = 6_000
ENCODED_AT_ONCE: Final = 256
"""Histories are encoded in blocks of one size: every other size would be compiled anew."""
WARM_UP: Final = 100
"""Steps over which the learning rate rises to its value."""
INPUTS: Final = ("items", "kinds", "gaps")
Epoch = Callable[[int, dict[str, float]], bool]
"""Called after each epoch with its number and figures; True stops."""


class Params(msgspec.Struct, frozen=True):
    """Hyper-parameters, under the field's names.

    `repeats`: whether an item gains a learned amount by standing in the history already, by its age there; for domains
    in which people come back to what they had. `baskets`: whether events of one time are unordered. `windows_per_user`
    stretches of `length` events are learned from. `mask`: share of events that are hidden from the encoder, drawn
    anew in every epoch. `smoothing`: share of the target that is spread over all items (full softmax only).
    """

    encoder: str = "transformer"
    embedding_size: int = 64
    blocks: int = 2
    heads: int = 2
    length: int = 50
    dropout: float = 0.2
    learning_rate: float = 2e-3
    reg: float = 1e-4
    batch_size: int = 128
    epochs: int = 30
    negatives: int = 1_024
    windows_per_user: int = 20
    repeats: bool = False
    baskets: bool = True
    mask: float = 0.0
    smoothing: float = 0.0
    seed: int = 0


class Network(keras.Model):
    """Numbers of a history, each int32 [batch, length] -> float32 [batch, length, embedding_size]."""

    def __init__(self, categories: Numbers, params: Params, log_q: Floats | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.items, self.params, self.log_q = len(categories), params, log_q
        self.places = 0  # of a batch: set before training
        self.category_of = np.concatenate([[0], categories]).astype(np.int32)
        spread = keras.initializers.RandomNormal(stddev=params.embedding_size**-0.5, seed=params.seed)
        small = keras.initializers.RandomNormal(stddev=0.3 * params.embedding_size**-0.5, seed=params.seed + 1)
        size = params.embedding_size
        self.table = layers.Embedding(self.items + 1, size, embeddings_initializer=spread, name="items")
        self.category = layers.Embedding(int(self.category_of.max(initial=0)) + 1, size, embeddings_initializer=small)
        self.kind = layers.Embedding(len(KINDS) + 1, size, embeddings_initializer=small)
        self.gap = layers.Embedding(GAPS, size, embeddings_initializer=small)
        self.drop = layers.Dropout(params.dropout)
        encoder = (params.encoder, size, params.blocks, params.heads, params.length, params.dropout)
        self.encoder = encoder_of(*encoder)
        gains = {"initializer": "zeros", "trainable": params.repeats}
        self.repeats = self.add_weight(shape=(params.length,), name="repeats", **gains)
        ages = np.arange(params.length)[:, None] - np.arange(params.length)[None]
        self.ages, self.causal = np.maximum(ages, 0).astype(np.int32), (ages >= 0).astype(np.float32)

    def vectors(self, numbers: Any) -> Any:
        """float [..., embedding_size]: an item's own vector, and its category's."""
        own = self.table(numbers)
        if int(self.category_of.max(initial=0)) == 0:
            return own
        return own + self.category(ops.take(ops.convert_to_tensor(self.category_of), numbers))

    def call(self, inputs: Any, training: bool = False, newest: bool = False) -> Any:
        numbers = inputs["items"]
        real = ops.cast(ops.not_equal(numbers, 0), "float32")
        x = self.vectors(numbers) + self.kind(inputs["kinds"]) + self.gap(inputs["gaps"])
        x = self.drop(x, training=training) * real[:, :, None]
        return self.encoder(x, real=real, training=training, newest=newest)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,  # noqa: ARG002 - Keras passes it by name
        training: bool = True,  # noqa: ARG002 - Keras passes it by name
    ) -> Any:
        """Mean cross-entropy of what comes next; y int32 [places], 0 where a place is only filled up."""
        real = ops.cast(ops.not_equal(y, 0), "float32")
        hidden = ops.take(ops.reshape(y_pred, (-1, self.params.embedding_size)), x["places"], axis=0)
        losses = self._full(hidden, y, x) if self.log_q is None else self._sampled(hidden, y, x)
        return ops.sum(losses * real) / ops.maximum(ops.sum(real), 1.0)

    def _full(self, hidden: Any, target: Any, x: Any) -> Any:
        logits = ops.matmul(hidden, ops.transpose(self.vectors(ops.arange(1, self.items + 1, dtype="int32"))))
        if self.params.repeats:
            before, gain = self._before(x)
            rows = np.repeat(np.arange(self.places, dtype=np.int32), self.params.length)
            spots = ops.stack([ops.convert_to_tensor(rows), ops.reshape(before, (-1,))], axis=-1)
            gained = ops.scatter(spots, ops.reshape(gain, (-1,)), (self.places, self.items + 1))
            logits = logits + gained[:, 1:]
        losses = ops.logsumexp(logits, axis=-1) - _picked(logits, ops.maximum(target - 1, 0))
        if self.params.smoothing:
            even = ops.logsumexp(logits, axis=-1) - ops.mean(logits, axis=-1)
            losses = (1 - self.params.smoothing) * losses + self.params.smoothing * even
        return losses

    def _sampled(self, hidden: Any, target: Any, x: Any) -> Any:
        log_q = ops.convert_to_tensor(self.log_q)
        numbers = x["negatives"]
        wanted = ops.sum(hidden * self.vectors(target), axis=-1) - ops.take(log_q, target)
        others = ops.matmul(hidden, ops.transpose(self.vectors(numbers))) - ops.take(log_q, numbers)
        if self.params.repeats:
            before, gain = self._before(x)
            wanted = wanted + ops.sum(gain * ops.cast(ops.equal(before, target[:, None]), "float32"), axis=-1)
            same = ops.cast(ops.equal(before[:, :, None], numbers[None, None]), "float32")
            others = others + ops.matmul(gain[:, None], same)[:, 0]
        others = ops.where(ops.equal(numbers[None], target[:, None]), FAR, others)
        return ops.logaddexp(ops.logsumexp(others, axis=-1), wanted) - wanted

    def _before(self, x: Any) -> tuple[Any, Any]:
        """For each packed place the items at or before it, int [places, length], and what standing there gains."""
        length = self.params.length
        row, place = x["places"] // length, x["places"] % length
        gains = ops.take(self.repeats, self.ages) * self.causal
        return ops.take(x["items"], row, axis=0), ops.take(gains, place, axis=0)


def _picked(table: Any, columns: Any) -> Any:
    return ops.squeeze(ops.take_along_axis(table, columns[:, None], axis=1), axis=1)


class Batches(keras.utils.PyDataset):
    """Windows in shuffled batches of one size (the last is filled up), places that something follows packed."""

    def __init__(self, windows: Windows, params: Params, probability: npt.NDArray[np.float64] | None) -> None:
        super().__init__()
        self.windows, self.params = windows, params
        self.rng = np.random.default_rng(params.seed)
        self.cumulative = np.cumsum(probability) if probability is not None else None
        self.order = self.rng.permutation(len(windows))
        followed = (windows.last > windows.first).sum(axis=1)
        most = params.batch_size * min(float(followed.max()), float(followed.mean() + 3 * followed.std() / 8))
        self.places = max(64, -(-int(most) // 64) * 64)

    def __len__(self) -> int:
        return max(1, -(-len(self.windows) // self.params.batch_size))

    def __getitem__(self, number: int) -> tuple[dict[str, Any], Any]:
        size = self.params.batch_size
        rows = self.order[np.arange(number * size, (number + 1) * size) % len(self.order)]
        batch = self.windows.batch
        items = batch.items[rows]
        targets = self.windows.targets(rows, self.rng).ravel()
        places = np.flatnonzero(targets)
        if len(places) > self.places:
            places = np.sort(self.rng.choice(places, self.places, replace=False))
        wanted = np.zeros(self.places, np.int32)
        wanted[: len(places)] = targets[places]
        if self.params.mask:
            items = items * (self.rng.random(items.shape) >= self.params.mask)
        x = {"items": items.astype(np.int32), "kinds": batch.kinds[rows], "gaps": batch.gaps[rows]}
        x["places"] = np.pad(places, (0, self.places - len(places))).astype(np.int32)
        if self.cumulative is not None:
            drawn = np.searchsorted(self.cumulative, self.rng.random(self.params.negatives)).astype(np.int32) + 1
            x["negatives"] = np.minimum(drawn, len(self.cumulative)).astype(np.int32)
        return x, wanted

    def on_epoch_end(self) -> None:
        self.order = self.rng.permutation(len(self.windows))


class Neural:
    """The recommender around the network: a log in, scores out, ONNX for serving."""

    def __init__(self, params: Params | None = None, after_epoch: Epoch | None = None, minutes: float | None = None):
        self.params = params or Params()
        self.name = self.params.encoder
        self.vocabulary = Vocabulary.of([])
        self.popularity: Floats = np.zeros(0, np.float32)
        self.network: Network | None = None
        self.after_epoch = after_epoch
        self.minutes = minutes

    def fit(self, log: Log) -> None:
        """Train until `after_epoch` says stop, the epochs are done, or `minutes` are over; the last epoch is kept."""
        params = self.params
        keras.utils.set_random_seed(params.seed)
        self.vocabulary = log.vocabulary
        self.popularity = popularity_of(log, log.vocabulary.recency_ms)
        windows = windows_of(log, params.length, params.windows_per_user, baskets=params.baskets)
        probability = None
        if len(self.vocabulary) > FULL_SOFTMAX_ITEMS:
            counts = (np.bincount(log.items, minlength=len(self.vocabulary)) + 1.0) ** 0.75
            probability = counts / counts.sum()
        log_q = np.log(np.concatenate([[1.0], probability])).astype(np.float32) if probability is not None else None
        self.network = Network(log.categories, params, log_q)
        if not len(windows):
            return  # nothing follows anything: the network stays as it began
        rate = keras.optimizers.schedules.PolynomialDecay(params.learning_rate / 10, WARM_UP, params.learning_rate)
        optimizer = keras.optimizers.AdamW(rate, weight_decay=params.reg, clipnorm=1.0)
        self.network.compile(optimizer, jit_compile=params.encoder != "rnn")  # unrolled steps compile for minutes
        until = time.monotonic() + 60 * self.minutes if self.minutes is not None else None
        watch = _Watch(self.after_epoch, until)
        batches = Batches(windows, params, probability)
        self.network.places = batches.places
        self.network.fit(batches, epochs=params.epochs, verbose=0, callbacks=[watch])

    def encode(self, batch: Batch) -> Floats:
        """float32 [batch, embedding_size]: each history as a vector; zeros where nothing of it is known."""
        network, batch = self._fitted(), batch.newest(self.params.length)
        out = np.zeros((len(batch), self.params.embedding_size), np.float32)
        for start in range(0, len(batch), ENCODED_AT_ONCE):
            part = batch.rows(start, start + ENCODED_AT_ONCE)
            wide = ((0, ENCODED_AT_ONCE - len(part)), (0, 0))
            block = {name: np.pad(getattr(part, name), wide) for name in INPUTS}
            hidden = ops.convert_to_numpy(network.predict_on_batch(block))[: len(part), -1]
            out[start : start + len(part)] = np.where(part.known[:, None], hidden, 0.0)
        return out

    def embeddings(self) -> Floats:
        """float32 [items, embedding_size]."""
        network = self._fitted()
        if not network.built or not network.table.built:
            self.encode(_nothing(self.params.length))
        numbers = ops.arange(1, network.items + 1, dtype="int32")
        return np.asarray(ops.convert_to_numpy(network.vectors(numbers)), np.float32)

    def repeats(self) -> Floats:
        """float32 [length]: what an item gains by standing in the history, by its age there; zeros if switched off."""
        return np.asarray(ops.convert_to_numpy(self._fitted().repeats), np.float32)

    def score(self, batch: Batch) -> Floats:
        batch = batch.newest(self.params.length)
        scores: Floats = self.encode(batch) @ self.embeddings().T
        if self.params.repeats:
            add_repeats(scores, batch.items, self.repeats())
        scores[~batch.known] = np.log1p(self.popularity)
        return scores

    def probabilities(self, batch: Batch) -> Floats:
        return softmax(self.score(batch))

    def add(self, out: Floats, batch: Batch, weights: Floats) -> None:
        add_dense(out, self.probabilities(batch), weights)

    def save(self, folder: Path, prefix: str = "") -> list[str]:
        """Arrays, and `encoder.onnx`: items, kinds, gaps int32 [batch, length] -> float32 [batch, embedding_size]."""
        network, length = self._fitted(), self.params.length
        inputs = {name: keras.Input((length,), dtype="int32", name=name) for name in INPUTS}
        encoder = keras.Model(inputs, network(inputs, newest=True)[:, -1])
        encoder({name: np.zeros((1, length), np.int32) for name in INPUTS})  # Keras exports only what was called
        encoder.export(str(folder / f"{prefix}encoder.onnx"), format="onnx", verbose=False)
        arrays = {"popularity": self.popularity, "embeddings": self.embeddings(), "repeats": self.repeats()}
        return [*write_arrays(folder, prefix, arrays), f"{prefix}encoder.onnx"]

    def describe(self) -> dict[str, Any]:
        return msgspec.structs.asdict(self.params)

    def _fitted(self) -> Network:
        if self.network is None:
            raise ValueError(f"{self.name} is not fitted; call fit(log) first")
        return self.network


def _nothing(length: int) -> Batch:
    empty = np.zeros((1, length), np.int32)
    return Batch(empty, empty, empty)


class _Watch(keras.callbacks.Callback):
    def __init__(self, after_epoch: Epoch | None, until: float | None) -> None:
        super().__init__()
        self.after_epoch, self.until = after_epoch, until

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        if self.until is not None and time.monotonic() > self.until:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self.after_epoch is not None and self.after_epoch(epoch, dict(logs or {})):
            self.model.stop_training = True
