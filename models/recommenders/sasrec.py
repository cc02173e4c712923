"""SASRec: self-attention over a user's recent items (Kang & McAuley, ICDM 2018), in Keras 3 with `keras.ops` only.

The loss is softmax cross-entropy over every item for small catalogues, and over sampled negatives with logQ correction
(Yi et al., RecSys 2019, section 4) for large ones; the first costs a product with the whole catalogue at every step.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
from keras import layers, ops

from features.activity import Recent
from models.recommenders.base import Floats, Vocabulary
from models.recommenders.sequences import Numbers, Windows, add_repeats, numbers_of, windows_of

FULL_SOFTMAX_ITEMS: Final = 5_000
ENCODED_AT_ONCE: Final = 256
"""Histories are encoded in blocks of one size: every other size would be compiled anew."""
FAR: Final = -1e9
Epoch = Callable[[int, dict[str, float]], bool]
"""Called after each epoch with its number and figures; True stops."""


class Params(msgspec.Struct, frozen=True):
    """Hyper-parameters, under the field's names.

    `repeats`: whether an item gains a learned amount by standing in the history already, by its age there; for domains
    in which people come back to what they had. `windows_per_user` stretches of `length` events are learned from.
    """

    embedding_size: int = 64
    blocks: int = 2
    heads: int = 2
    length: int = 50
    dropout: float = 0.2
    learning_rate: float = 1e-3
    reg: float = 1e-4
    batch_size: int = 128
    epochs: int = 30
    negatives: int = 512
    min_count: int = 1
    windows_per_user: int = 20
    repeats: bool = False
    seed: int = 0


@keras.saving.register_keras_serializable("coldstream")
class Block(layers.Layer):
    """Pre-norm causal self-attention and a feed-forward layer, each with a residual connection."""

    def __init__(self, size: int, heads: int, dropout: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size, self.heads, self.rate = size, heads, dropout
        self.norm1, self.norm2 = layers.LayerNormalization(epsilon=1e-6), layers.LayerNormalization(epsilon=1e-6)
        self.ask, self.offer, self.out = layers.Dense(size), layers.Dense(2 * size), layers.Dense(size)
        self.widen, self.narrow = layers.Dense(2 * size, activation="relu"), layers.Dense(size)
        self.drop1, self.drop2 = layers.Dropout(dropout), layers.Dropout(dropout)

    def build(self, shape: tuple[int | None, ...]) -> None:
        for layer in (self.norm1, self.norm2, self.ask, self.offer, self.out, self.widen):
            layer.build(shape)
        self.narrow.build((*shape[:-1], 2 * self.size))
        super().build(shape)

    def call(self, x: Any, hidden: Any = None, training: bool = False, newest: bool = False) -> Any:
        """x float [batch, length, size], hidden float [batch, 1, length, length]: 0 to look at, -1e9 not to.

        With `newest` only the last place is worked out: float [batch, 1, size].
        """
        length, width = x.shape[1], self.size // self.heads
        known = self.norm1(x)
        offered = ops.reshape(self.offer(known), (-1, length, 2, self.heads, width))
        key, value = (ops.transpose(offered[:, :, part], (0, 2, 1, 3)) for part in range(2))
        if newest:
            x, known, hidden = x[:, -1:], known[:, -1:], hidden[:, :, -1:]
        query = ops.transpose(ops.reshape(self.ask(known), (-1, x.shape[1], self.heads, width)), (0, 2, 1, 3))
        weights = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) * width**-0.5 + hidden, axis=-1)
        seen = ops.reshape(ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3)), (-1, x.shape[1], self.size))
        x = x + self.drop1(self.out(seen), training=training)
        return x + self.drop2(self.narrow(self.widen(self.norm2(x))), training=training)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size, "heads": self.heads, "dropout": self.rate}


class Network(keras.Model):
    """int32 [batch, length] of item numbers (0 is padding, on the left) -> float32 [batch, length, embedding_size]."""

    def __init__(self, items: int, params: Params, log_q: Floats | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.items, self.params, self.log_q = items, params, log_q
        spread = keras.initializers.RandomNormal(stddev=params.embedding_size**-0.5, seed=params.seed)
        self.table = layers.Embedding(items + 1, params.embedding_size, embeddings_initializer=spread)
        self.place = layers.Embedding(params.length, params.embedding_size)
        self.drop = layers.Dropout(params.dropout)
        self.blocks = [Block(params.embedding_size, params.heads, params.dropout) for _ in range(params.blocks)]
        self.norm = layers.LayerNormalization(epsilon=1e-6)
        self.repeats = self.add_weight(shape=(params.length,), initializer="zeros", name="repeats")
        ages = np.arange(params.length)[:, None] - np.arange(params.length)[None]
        self.ages, self.causal = np.maximum(ages, 0).astype(np.int32), (ages >= 0).astype(np.float32)

    def call(self, inputs: Any, training: bool = False, newest: bool = False) -> Any:
        numbers = inputs["items"] if isinstance(inputs, dict) else inputs
        real = ops.cast(ops.not_equal(numbers, 0), "float32")
        x = self.table(numbers) + self.place(ops.arange(self.params.length))[None]
        x = self.drop(x, training=training) * real[:, :, None]
        hidden = (1.0 - ops.convert_to_tensor(self.causal)[None, None] * real[:, None, None, :]) * FAR
        for number, block in enumerate(self.blocks):
            x = block(x, hidden=hidden, training=training, newest=newest and number == len(self.blocks) - 1)
        return self.norm(x)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,  # noqa: ARG002 - Keras passes it by name
        training: bool = True,  # noqa: ARG002 - Keras passes it by name
    ) -> Any:
        """Mean cross-entropy of what comes next over real places; y int32 [batch, length], 0 where there is none."""
        real = ops.cast(ops.not_equal(y, 0), "float32")
        losses = self._full(y_pred, y, x["items"]) if self.log_q is None else self._sampled(y_pred, y, x)
        return ops.sum(losses * real) / ops.maximum(ops.sum(real), 1.0)

    def _full(self, hidden: Any, target: Any, items: Any) -> Any:
        logits = ops.matmul(hidden, ops.transpose(self.table.embeddings[1:]))
        if self.params.repeats:
            logits = logits + self._gains(items, ops.arange(1, self.items + 1, dtype="int32"))
        return keras.losses.sparse_categorical_crossentropy(ops.maximum(target - 1, 0), logits, from_logits=True)

    def _sampled(self, hidden: Any, target: Any, x: Any) -> Any:
        log_q = ops.convert_to_tensor(self.log_q)
        numbers = x["negatives"][0]
        wanted = ops.sum(hidden * self.table(target), axis=-1) - ops.take(log_q, target)
        others = ops.matmul(hidden, ops.transpose(self.table(numbers))) - ops.take(log_q, numbers)
        if self.params.repeats:
            same = ops.cast(ops.equal(x["items"][:, None, :], target[:, :, None]), "float32")
            wanted = wanted + ops.sum(self._by_age() * same, axis=-1)
            others = others + self._gains(x["items"], numbers)
        others = ops.where(ops.equal(numbers, target[:, :, None]), FAR, others)
        return ops.logaddexp(ops.logsumexp(others, axis=-1), wanted) - wanted

    def _by_age(self) -> Any:
        return ops.take(self.repeats, self.ages) * self.causal

    def _gains(self, items: Any, candidates: Any) -> Any:
        """float [batch, length, candidates]: what each candidate gains at each place by standing at or before it."""
        there = ops.cast(ops.equal(items[:, :, None], candidates), "float32")
        return ops.matmul(self._by_age(), there)


class Batches(keras.utils.PyDataset):
    """Windows in shuffled batches of one size (the last is filled up), with one set of negatives a batch."""

    def __init__(self, windows: Windows, params: Params, probability: npt.NDArray[np.float64] | None) -> None:
        super().__init__()
        self.windows, self.params = windows, params
        self.rng = np.random.default_rng(params.seed)
        self.cumulative = np.cumsum(probability) if probability is not None else None
        self.order = self.rng.permutation(len(windows))

    def __len__(self) -> int:
        return max(1, -(-len(self.windows) // self.params.batch_size))

    def __getitem__(self, number: int) -> tuple[dict[str, Any], Any]:
        size = self.params.batch_size
        rows = self.order[np.arange(number * size, (number + 1) * size) % len(self.order)]
        x = {"items": self.windows.items[rows]}
        if self.cumulative is not None:
            drawn = np.searchsorted(self.cumulative, self.rng.random(self.params.negatives)).astype(np.int32) + 1
            x["negatives"] = np.repeat(np.minimum(drawn, len(self.cumulative))[None], size, axis=0)
        return x, self.windows.targets(rows, self.rng)

    def on_epoch_end(self) -> None:
        self.order = self.rng.permutation(len(self.windows))


class SASRec:
    """The recommender around the network: windows in, scores out, ONNX for serving."""

    name = "sasrec"

    def __init__(self, params: Params | None = None) -> None:
        self.params = params or Params()
        self.vocabulary = Vocabulary.of([])
        self.network: Network | None = None

    def fit(self, frame: pd.DataFrame, after_epoch: Epoch | None = None, minutes: float | None = None) -> None:
        """Train until `after_epoch` says stop, the epochs are done, or `minutes` are over; the last epoch is kept."""
        params = self.params
        keras.utils.set_random_seed(params.seed)
        self.vocabulary = Vocabulary.fit(frame, params.min_count)
        windows = windows_of(frame, self.vocabulary, params.length, params.windows_per_user)
        sampled = len(self.vocabulary) > FULL_SOFTMAX_ITEMS
        counts = windows.counts(len(self.vocabulary)) ** 0.75
        probability = counts / counts.sum() if sampled else None
        log_q = np.log(np.concatenate([[1.0], probability])).astype(np.float32) if probability is not None else None
        self.network = Network(len(self.vocabulary), params, log_q)
        rate = keras.optimizers.AdamW(params.learning_rate, weight_decay=params.reg, clipnorm=1.0)
        self.network.compile(rate, jit_compile=True)
        until = time.monotonic() + 60 * minutes if minutes is not None else None
        watch = _Watch(after_epoch, until)
        self.network.fit(Batches(windows, params, probability), epochs=params.epochs, verbose=0, callbacks=[watch])

    def encode(self, histories: Sequence[Recent]) -> Floats:
        """float32 [batch, embedding_size]: each history as a vector; zeros where nothing of it is known."""
        return self._encode(numbers_of(histories, self.vocabulary, self.params.length))

    def _encode(self, numbers: Numbers) -> Floats:
        assert self.network is not None, "fit first"
        out = np.zeros((len(numbers), self.params.embedding_size), np.float32)
        for start in range(0, len(numbers), ENCODED_AT_ONCE):
            part = numbers[start : start + ENCODED_AT_ONCE]
            block = np.zeros((ENCODED_AT_ONCE, self.params.length), np.int32)
            block[: len(part)] = part
            hidden = ops.convert_to_numpy(self.network.predict_on_batch(block))[: len(part), -1]
            out[start : start + len(part)] = np.where((part[:, -1] != 0)[:, None], hidden, 0.0)
        return out

    def embeddings(self) -> Floats:
        """float32 [items, embedding_size]."""
        assert self.network is not None, "fit first"
        table: Floats = ops.convert_to_numpy(self.network.table.embeddings).astype(np.float32)
        return table[1:]

    def repeats(self) -> Floats:
        """float32 [length]: what an item gains by standing in the history, by its age there; zeros if switched off."""
        assert self.network is not None, "fit first"
        return np.asarray(ops.convert_to_numpy(self.network.repeats), np.float32)

    def scores(self, histories: Sequence[Recent]) -> Floats:
        numbers = numbers_of(histories, self.vocabulary, self.params.length)
        table: Floats = self._encode(numbers) @ self.embeddings().T
        add_repeats(table, numbers, self.repeats())
        return table

    def save(self, folder: Path) -> list[str]:
        """`embeddings.npy`, `repeats.npy`, and `encoder.onnx`: int32 [batch, length] -> float32 [batch, size]."""
        assert self.network is not None, "fit first"
        inputs = keras.Input((self.params.length,), dtype="int32", name="items")
        encoder = keras.Model(inputs, self.network(inputs, newest=True)[:, -1])
        encoder(np.zeros((1, self.params.length), np.int32))  # Keras exports only what was called
        encoder.export(str(folder / "encoder.onnx"), format="onnx", verbose=False)
        np.save(folder / "embeddings.npy", self.embeddings(), allow_pickle=False)
        np.save(folder / "repeats.npy", self.repeats(), allow_pickle=False)
        return ["embeddings.npy", "repeats.npy", "encoder.onnx"]


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
