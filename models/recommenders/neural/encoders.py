"""Encoders: from a history's vectors to one vector at each place, which sees no later place. Keras 3, `keras.ops` only.

Each takes x float [batch, length, size] and real float [batch, length] (1 for an event, 0 for padding on the left), and
gives float [batch, length, size]. What it gives at padding is never read. With `newest` only the last place is needed.
"""

from typing import Any, Final, assert_never

import keras
import numpy as np
from keras import layers, ops

from models.recommenders.neural.params import Params

FAR: Final = -1e9
EPSILON: Final = 1e-6


@keras.saving.register_keras_serializable("coldstream")
class Attention(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Pre-norm causal self-attention and a feed-forward layer, each with a residual connection."""

    def __init__(self, size: int, heads: int, dropout: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size, self.heads, self.rate = size, heads, dropout
        self.norm1, self.norm2 = layers.LayerNormalization(epsilon=EPSILON), layers.LayerNormalization(epsilon=EPSILON)
        self.ask, self.offer, self.out = layers.Dense(size), layers.Dense(2 * size), layers.Dense(size)
        self.widen, self.narrow = layers.Dense(2 * size, activation="silu"), layers.Dense(size)
        self.drop1, self.drop2 = layers.Dropout(dropout), layers.Dropout(dropout)

    def build(self, shape: tuple[int | None, ...]) -> None:
        for layer in (self.norm1, self.norm2, self.ask, self.offer, self.out, self.widen):
            layer.build(shape)
        self.narrow.build((*shape[:-1], 2 * self.size))
        super().build(shape)

    def call(self, x: Any, hidden: Any = None, training: bool = False, newest: bool = False) -> Any:
        """`hidden` float [batch, 1, length, length]: 0 to look at, -1e9 not to. With `newest`: [batch, 1, size]."""
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


@keras.saving.register_keras_serializable("coldstream")
class Transformer(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Self-attention over the history with learned places (SASRec: Kang & McAuley, ICDM 2018), pre-norm."""

    def __init__(self, size: int, blocks: int, heads: int, length: int, dropout: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.length = length
        self.place = layers.Embedding(length, size)
        self.blocks = [Attention(size, heads, dropout) for _ in range(blocks)]
        self.norm = layers.LayerNormalization(epsilon=EPSILON)
        self.causal = np.tril(np.ones((length, length), np.float32))

    def call(self, x: Any, real: Any = None, training: bool = False, newest: bool = False) -> Any:
        x = x + self.place(ops.arange(self.length))[None] * real[:, :, None]
        hidden = (1.0 - ops.convert_to_tensor(self.causal, dtype=real.dtype)[None, None] * real[:, None, None, :]) * FAR
        for number, block in enumerate(self.blocks):
            x = block(x, hidden=hidden, training=training, newest=newest and number == len(self.blocks) - 1)
        return self.norm(x)


@keras.saving.register_keras_serializable("coldstream")
class Recurrent(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Gated recurrent units over the history (GRU4Rec: Hidasi et al., ICLR 2016), unrolled, padding passed over."""

    def __init__(self, size: int, blocks: int, dropout: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cells = [layers.GRUCell(size) for _ in range(blocks)]
        self.drop = layers.Dropout(dropout)
        self.norm = layers.LayerNormalization(epsilon=EPSILON)
        self.out = layers.Dense(size)

    def build(self, shape: tuple[int | None, ...]) -> None:
        for layer in (*self.cells, self.norm, self.out):
            layer.build(shape)
        super().build(shape)

    def call(self, x: Any, real: Any = None, training: bool = False, newest: bool = False) -> Any:  # noqa: ARG002
        for cell in self.cells:
            x = x + self.drop(recurrent_states(cell, x, real), training=training)
        return self.norm(self.out(x))


def recurrent_states(cell: Any, x: Any, real: Any) -> Any:
    """float [batch, length, size]: a GRU cell's state behind each place; at padding it stays as it was.

    What the cell makes of the places themselves is one product for all of them; Keras' own step makes it for each.
    """
    gated, plain = ops.split(ops.matmul(x, cell.kernel) + cell.bias[0], [2 * cell.units], axis=-1)
    state, states = ops.zeros_like(x[:, 0]), []
    by_place = (ops.unstack(sequence, axis=1) for sequence in (real[:, :, None], gated, plain))
    for there, of_gates, of_plain in zip(*by_place, strict=True):
        before = ops.matmul(state, cell.recurrent_kernel) + cell.bias[1]
        before_gates, before_plain = ops.split(before, [2 * cell.units], axis=-1)
        keep, reset = ops.split(ops.sigmoid(of_gates + before_gates), 2, axis=-1)
        candidate = ops.tanh(of_plain + reset * before_plain)
        state = state + there * (1.0 - keep) * (candidate - state)
        states.append(state)
    return ops.stack(states, axis=1)


@keras.saving.register_keras_serializable("coldstream")
class Convolutional(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Dilated causal convolutions with residual connections (NextItNet: Yuan et al., WSDM 2019)."""

    def __init__(self, size: int, blocks: int, dropout: float, width: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width, self.dilations = width, [2 ** (number % 4) for number in range(2 * blocks)]
        self.norms = [layers.LayerNormalization(epsilon=EPSILON) for _ in self.dilations]
        self.mixes = [layers.Dense(size, activation="silu") for _ in self.dilations]
        self.outs = [layers.Dense(size) for _ in self.dilations]
        self.drop = layers.Dropout(dropout)
        self.norm = layers.LayerNormalization(epsilon=EPSILON)

    def call(self, x: Any, real: Any = None, training: bool = False, newest: bool = False) -> Any:  # noqa: ARG002
        length = x.shape[1]
        for dilation, norm, mix, out in zip(self.dilations, self.norms, self.mixes, self.outs, strict=True):
            known = norm(x) * real[:, :, None]
            before = ops.pad(known, ((0, 0), ((self.width - 1) * dilation, 0), (0, 0)))
            seen = [before[:, step * dilation : step * dilation + length] for step in range(self.width)]
            x = x + self.drop(out(mix(ops.concatenate(seen, axis=-1))), training=training)
        return self.norm(x)


@keras.saving.register_keras_serializable("coldstream")
class WeightedPooling(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """The newest item and two weighted means of the history, through dense layers.

    One mean weighs by learned ages alone, the other also by what each item offers (as in YouTube's ranking tower:
    Covington et al., RecSys 2016, section 3, with learned instead of equal weights). `counts` float [batch, length, n]
    are numbers of the history up to each place, which means cannot tell. `known` float [batch, length or 1, size] is
    what is known besides the history; it is added where the dense layers begin, which is a column more in their input.
    """

    def __init__(self, size: int, blocks: int, length: int, dropout: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.length = length
        self.ages = self.add_weight(shape=(length,), initializer="zeros", name="ages")
        self.gate = layers.Dense(1)
        self.first = layers.Dense(size)
        self.norms = [layers.LayerNormalization(epsilon=EPSILON) for _ in range(blocks)]
        self.widen = [layers.Dense(2 * size, activation="silu") for _ in range(blocks)]
        self.narrow = [layers.Dense(size) for _ in range(blocks)]
        self.drop = layers.Dropout(dropout)
        self.norm = layers.LayerNormalization(epsilon=EPSILON)
        age = np.arange(length)[:, None] - np.arange(length)[None]
        self.age, self.causal = np.maximum(age, 0).astype(np.int32), (age >= 0).astype(np.float32)

    def call(
        self,
        x: Any,
        real: Any = None,
        training: bool = False,
        newest: bool = False,  # noqa: ARG002 - every encoder is called alike
        counts: Any = None,
        known: Any = None,
    ) -> Any:
        by_age = ops.take(self.ages, self.age)[None]
        hidden = (1.0 - ops.convert_to_tensor(self.causal, dtype=real.dtype)[None] * real[:, None, :]) * FAR
        plain = ops.matmul(ops.softmax(by_age + hidden, axis=-1), x)
        offered = ops.transpose(self.gate(x), (0, 2, 1))
        gated = ops.matmul(ops.softmax(by_age + offered + hidden, axis=-1), x)
        seen = [x, plain, gated] if counts is None else [x, plain, gated, counts]
        out = x + self.drop(self.first(ops.concatenate(seen, axis=-1)), training=training)
        if known is not None:
            out = out + self.drop(known, training=training)
        for norm, widen, narrow in zip(self.norms, self.widen, self.narrow, strict=True):
            out = out + self.drop(narrow(widen(norm(out))), training=training)
        return self.norm(out)


def encoder_of(params: Params) -> layers.Layer:
    """The encoder that `params` describe."""
    size, blocks, length, dropout = params.embedding_size, params.blocks, params.length, params.dropout
    match params.encoder:
        case "transformer":
            return Transformer(size, blocks, params.heads, length, dropout, name="encoder")
        case "rnn":
            return Recurrent(size, max(1, blocks // 2), dropout, name="encoder")
        case "cnn":
            return Convolutional(size, blocks, dropout, name="encoder")
        case "dnn":
            return WeightedPooling(size, blocks, length, dropout, name="encoder")
        case unknown:
            assert_never(unknown)
