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
from models.recommenders.base import KIND_WEIGHTS, Floats, Vocabulary, positive

FULL_SOFTMAX_ITEMS: Final = 5_000
Epoch = Callable[[int, dict[str, float]], bool]
"""Called after each epoch with its number and figures; True stops."""


class Params(msgspec.Struct, frozen=True):
    """Hyper-parameters, under the field's names."""

    embedding_size: int = 64
    blocks: int = 2
    heads: int = 2
    length: int = 50
    dropout: float = 0.2
    learning_rate: float = 1e-3
    reg: float = 1e-4
    batch_size: int = 128
    epochs: int = 30
    negatives: int = 1024
    min_count: int = 1
    windows_per_user: int = 20
    seed: int = 0


@keras.saving.register_keras_serializable("coldstream")
class Block(layers.Layer):
    """Pre-norm causal self-attention and a feed-forward layer, each with a residual connection."""

    def __init__(self, size: int, heads: int, dropout: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size, self.heads, self.rate = size, heads, dropout
        self.norm1, self.norm2 = layers.LayerNormalization(epsilon=1e-6), layers.LayerNormalization(epsilon=1e-6)
        self.mix, self.out = layers.Dense(3 * size), layers.Dense(size)
        self.widen, self.narrow = layers.Dense(2 * size, activation="relu"), layers.Dense(size)
        self.drop1, self.drop2 = layers.Dropout(dropout), layers.Dropout(dropout)

    def build(self, shape: tuple[int | None, ...]) -> None:
        self.norm1.build(shape)
        self.norm2.build(shape)
        self.mix.build(shape)
        self.out.build(shape)
        self.widen.build(shape)
        self.narrow.build((*shape[:-1], 2 * self.size))
        super().build(shape)

    def call(self, x: Any, mask: Any = None, training: bool = False) -> Any:
        """x float [batch, length, size], mask float [batch, 1, length, length]: 0 where attention may look, else -1e9."""
        length, width = x.shape[1], self.size // self.heads
        mixed = ops.reshape(self.mix(self.norm1(x)), (-1, length, 3, self.heads, width))
        query, key, value = (ops.transpose(mixed[:, :, part], (0, 2, 1, 3)) for part in range(3))
        weights = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) / width**0.5 + mask, axis=-1)
        seen = ops.reshape(ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3)), (-1, length, self.size))
        x = x + self.drop1(self.out(seen), training=training)
        return x + self.drop2(self.narrow(self.widen(self.norm2(x))), training=training)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size, "heads": self.heads, "dropout": self.rate}


class Network(keras.Model):  # type: ignore[misc]
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

    def call(self, inputs: Any, training: bool = False) -> Any:
        numbers = inputs["items"] if isinstance(inputs, dict) else inputs
        length = self.params.length
        real = ops.cast(ops.not_equal(numbers, 0), "float32")
        x = self.table(numbers) + self.place(ops.arange(length))[None]
        x = self.drop(x, training=training) * real[:, :, None]
        causal = ops.tril(ops.ones((length, length), dtype="float32"))[None, None]
        mask = (1.0 - causal * real[:, None, None, :]) * -1e9
        for block in self.blocks:
            x = block(x, mask=mask, training=training)
        return self.norm(x)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Mean cross-entropy of the next item over real positions; y int32 [batch, length], 0 where there is none."""
        hidden = ops.reshape(y_pred, (-1, self.params.embedding_size))
        target = ops.reshape(y, (-1,))
        real = ops.cast(ops.not_equal(target, 0), "float32")
        losses = self._sampled(hidden, target, x["negatives"]) if self.log_q is not None else self._full(hidden, target)
        return ops.sum(losses * real) / ops.maximum(ops.sum(real), 1.0)

    def _full(self, hidden: Any, target: Any) -> Any:
        logits = ops.matmul(hidden, ops.transpose(self.table.embeddings[1:]))
        return keras.losses.sparse_categorical_crossentropy(ops.maximum(target - 1, 0), logits, from_logits=True)

    def _sampled(self, hidden: Any, target: Any, negatives: Any) -> Any:
        log_q = ops.convert_to_tensor(self.log_q)
        numbers = negatives[0]
        wanted = ops.sum(hidden * self.table(target), axis=-1, keepdims=True) - ops.take(log_q, target)[:, None]
        others = ops.matmul(hidden, ops.transpose(self.table(numbers))) - ops.take(log_q, numbers)[None]
        others = ops.where(ops.equal(numbers[None], target[:, None]), -1e9, others)
        logits = ops.concatenate([wanted, others], axis=1)
        return ops.logsumexp(logits, axis=1) - wanted[:, 0]


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Windows of users' histories in shuffled batches, with one set of negatives a batch."""

    def __init__(
        self, windows: npt.NDArray[np.int32], params: Params, probability: npt.NDArray[np.float64] | None
    ) -> None:
        super().__init__()
        self.windows, self.params = windows, params
        self.rng = np.random.default_rng(params.seed)
        self.cumulative = np.cumsum(probability) if probability is not None else None
        self.order = self.rng.permutation(len(windows))

    def __len__(self) -> int:
        return max(1, -(-len(self.windows) // self.params.batch_size))

    def __getitem__(self, number: int) -> tuple[dict[str, Any], Any]:
        size = self.params.batch_size
        chosen = self.windows[self.order[number * size : (number + 1) * size]]
        x = {"items": chosen[:, :-1]}
        if self.cumulative is not None:
            drawn = np.searchsorted(self.cumulative, self.rng.random(self.params.negatives)).astype(np.int32) + 1
            x["negatives"] = np.repeat(np.minimum(drawn, len(self.cumulative))[None], len(chosen), axis=0)
        return x, chosen[:, 1:]

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
        windows, counts = windows_of(frame, self.vocabulary, params)
        sampled = len(self.vocabulary) > FULL_SOFTMAX_ITEMS
        probability = (counts**0.75 / (counts**0.75).sum()) if sampled else None
        log_q = (
            np.log(np.concatenate([[1.0], probability]) + 1e-12).astype(np.float32) if probability is not None else None
        )
        self.network = Network(len(self.vocabulary), params, log_q)
        self.network.compile(keras.optimizers.AdamW(params.learning_rate, weight_decay=params.reg, clipnorm=1.0))
        until = time.monotonic() + 60 * minutes if minutes is not None else None
        watch = _Watch(after_epoch, until)
        self.network.fit(Batches(windows, params, probability), epochs=params.epochs, verbose=0, callbacks=[watch])

    def encode(self, histories: Sequence[Recent]) -> Floats:
        """float32 [batch, embedding_size]: each history as a vector; zeros where nothing of it is known."""
        assert self.network is not None, "fit first"
        numbers = numbers_of(histories, self.vocabulary, self.params.length)
        hidden = ops.convert_to_numpy(self.network.predict_on_batch(numbers))[:, -1]
        return np.where((numbers[:, -1] != 0)[:, None], hidden, 0.0).astype(np.float32)

    def embeddings(self) -> Floats:
        """float32 [items, embedding_size]."""
        assert self.network is not None, "fit first"
        table: Floats = ops.convert_to_numpy(self.network.table.embeddings).astype(np.float32)
        return table[1:]

    def scores(self, histories: Sequence[Recent]) -> Floats:
        return np.asarray(self.encode(histories) @ self.embeddings().T, np.float32)

    def save(self, folder: Path) -> list[str]:
        """`embeddings.npy` and `encoder.onnx`: int32 [batch, length] -> float32 [batch, embedding_size]."""
        assert self.network is not None, "fit first"
        np.save(folder / "embeddings.npy", self.embeddings(), allow_pickle=False)
        inputs = keras.Input((self.params.length,), dtype="int32", name="items")
        encoder = keras.Model(inputs, self.network(inputs)[:, -1])
        encoder(np.zeros((1, self.params.length), np.int32))  # Keras exports only what was called
        encoder.export(str(folder / "encoder.onnx"), format="onnx", verbose=False)
        return ["embeddings.npy", "encoder.onnx"]


class _Watch(keras.callbacks.Callback):  # type: ignore[misc]
    def __init__(self, after_epoch: Epoch | None, until: float | None) -> None:
        super().__init__()
        self.after_epoch, self.until = after_epoch, until

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        if self.until is not None and time.monotonic() > self.until:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self.after_epoch is not None and self.after_epoch(epoch, dict(logs or {})):
            self.model.stop_training = True


def numbers_of(histories: Sequence[Recent], vocabulary: Vocabulary, length: int) -> npt.NDArray[np.int32]:
    """int32 [batch, length]: known items as index + 1, newest on the right, 0 on the left where there are fewer."""
    out = np.zeros((len(histories), length), np.int32)
    for row, history in enumerate(histories):
        known = positive(history, vocabulary)[0][-length:]
        if known:
            out[row, -len(known) :] = np.asarray(known) + 1
    return out


def windows_of(
    frame: pd.DataFrame, vocabulary: Vocabulary, params: Params
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """Windows int32 [n, length + 1] over each user's newest events, and how often each item occurs, float64 [items]."""
    weighty = frame[frame["kind"].map(KIND_WEIGHTS).fillna(0.0) > 0]
    numbers = weighty["item_id"].map(vocabulary.index).to_numpy(np.float64, na_value=-1.0).astype(np.int64) + 1
    users = pd.factorize(weighty["user_id"])[0]
    known = numbers > 0
    users, numbers = users[known], numbers[known]
    order = np.argsort(users, kind="stable")
    users, numbers = users[order], numbers[order]
    counts = np.bincount(numbers - 1, minlength=len(vocabulary)).astype(np.float64) + 1.0
    length, windows = params.length, []
    bounds = np.flatnonzero(np.diff(users)) + 1
    for one in np.split(numbers, bounds):
        last = len(one)
        for _ in range(params.windows_per_user):
            if last < 2:
                break
            part = one[max(0, last - length - 1) : last]
            window = np.zeros(length + 1, np.int32)
            window[-len(part) :] = part
            windows.append(window)
            last -= length
    return np.array(windows, np.int32).reshape(-1, length + 1), counts
