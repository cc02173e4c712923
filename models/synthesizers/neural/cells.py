"""What reads the events so far: whole histories in training, one event at a time in generation. `keras.ops` only.

A stack takes x float [batch, length, size] and real float [batch, length] (0 for padding on the left) and gives float
[batch, length, size], each place from itself and those before it, and the state after the last place. `step` takes one
event more, float [batch, size], at the price of one event.
"""

from typing import Any, Final

import numpy as np
from keras import layers, ops

from models.recommenders.neural.encoders import EPSILON, FAR, recurrent_states
from models.synthesizers.neural.params import SequenceParams

OLDER: Final = 0.25
"""How much less an event counts at first for each one after it, in logits; learned from there (as ALiBi: Press, Smith
& Lewis, ICLR 2022, with slopes that learn)."""


class RecurrentStack(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Gated recurrent units with residual connections. State: float [batch, blocks, size]."""

    def __init__(self, params: SequenceParams, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        size = params.embedding_size
        self.cells = [layers.GRUCell(size) for _ in range(params.blocks)]
        self.drop = layers.Dropout(params.dropout)
        self.norm, self.out = layers.LayerNormalization(epsilon=EPSILON), layers.Dense(size)
        self.state_shape = (params.blocks, size)

    def build(self, shape: tuple[int | None, ...]) -> None:
        for layer in (*self.cells, self.norm, self.out):
            layer.build(shape)
        super().build(shape)

    def call(self, x: Any, real: Any, training: bool = False) -> tuple[Any, Any]:
        after = []
        for cell in self.cells:
            states = recurrent_states(cell, x, real)
            after.append(states[:, -1])
            x = x + self.drop(states, training=training)
        return self.norm(self.out(x)), ops.stack(after, axis=1)

    def step(self, x: Any, state: Any) -> tuple[Any, Any]:
        """The same for one event, float [batch, size]."""
        after = []
        for number, cell in enumerate(self.cells):
            states = cell.call(x, [state[:, number]])[0]
            after.append(states)
            x = x + states
        return self.norm(self.out(x)), ops.stack(after, axis=1)


class CausalBlock(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Pre-norm self-attention with a learned bias by age, and a feed-forward layer, each with a residual connection."""

    def __init__(self, params: SequenceParams, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size, self.heads, self.window = params.embedding_size, params.heads, params.window
        self.before, self.between = (layers.LayerNormalization(epsilon=EPSILON) for _ in range(2))
        self.query, self.keyed = layers.Dense(self.size), layers.Dense(2 * self.size)
        self.mix, self.widen = layers.Dense(self.size), layers.Dense(2 * self.size, activation="silu")
        self.narrow, self.drop = layers.Dense(self.size), layers.Dropout(params.dropout)
        slopes = OLDER * 4.0 ** -np.arange(self.heads)
        start = -slopes[:, None] * np.arange(self.window)
        self.by_age = self.add_weight(shape=start.shape, initializer="zeros", name="by_age")
        self.start = start.astype(np.float32)

    def build(self, shape: tuple[int | None, ...]) -> None:
        for layer in (self.before, self.between, self.query, self.keyed, self.mix, self.widen):
            layer.build(shape)
        self.narrow.build((*shape[:-1], 2 * self.size))
        super().build(shape)

    def call(self, x: Any, real: Any, training: bool = False) -> tuple[Any, Any]:
        """Every place of float [batch, length, size]; also keys and values float [batch, length, 2 * size]."""
        length = x.shape[1]
        known = self.before(x)
        keyed = self.keyed(known)
        ages = np.arange(length)[:, None] - np.arange(length)[None]
        bias = ops.take(self._bias(), np.maximum(ages, 0).astype(np.int32), axis=1)[None]
        seen = ops.convert_to_tensor((ages >= 0).astype(np.float32))[None, None] * real[:, None, None, :]
        return self._through(x, known, keyed, bias + (1.0 - seen) * FAR, training), keyed

    def step(self, x: Any, keyed: Any, real: Any) -> tuple[Any, Any]:
        """The place after float [batch, window, 2 * size], which moves on by that place; `real` [batch, window] of both
        together."""
        known = self.before(x)
        keyed = ops.concatenate([keyed[:, 1:], self.keyed(known)[:, None]], axis=1)
        ages = np.arange(self.window)[::-1].astype(np.int32)
        bias = ops.take(self._bias(), ages.copy(), axis=1)[None, :, None]
        out = self._through(x[:, None], known[:, None], keyed, bias + (1.0 - real[:, None, None, :]) * FAR, False)
        return out[:, 0], keyed

    def _bias(self) -> Any:
        return self.by_age + ops.convert_to_tensor(self.start)

    def _through(self, x: Any, known: Any, keyed: Any, bias: Any, training: bool) -> Any:
        places, others, width = x.shape[1], keyed.shape[1], self.size // self.heads
        both = ops.reshape(keyed, (-1, others, 2, self.heads, width))
        key, value = (ops.transpose(both[:, :, part], (0, 2, 1, 3)) for part in range(2))
        query = ops.transpose(ops.reshape(self.query(known), (-1, places, self.heads, width)), (0, 2, 1, 3))
        weights = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) * width**-0.5 + bias, axis=-1)
        seen = ops.reshape(ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3)), (-1, places, self.size))
        x = x + self.drop(self.mix(seen), training=training)
        return x + self.drop(self.narrow(self.widen(self.between(x))), training=training)


class AttentionStack(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Causal self-attention. State: float [batch, blocks, window, 2 * size + 1], keys, values and whether an event."""

    def __init__(self, params: SequenceParams, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.attention = [CausalBlock(params) for _ in range(params.blocks)]
        self.norm = layers.LayerNormalization(epsilon=EPSILON)
        self.state_shape = (params.blocks, params.window, 2 * params.embedding_size + 1)

    def build(self, shape: tuple[int | None, ...]) -> None:
        for layer in (*self.attention, self.norm):
            layer.build(shape)
        super().build(shape)

    def call(self, x: Any, real: Any, training: bool = False) -> tuple[Any, Any]:
        state = []
        for block in self.attention:
            x, keyed = block(x, real, training=training)
            state.append(ops.concatenate([keyed, real[:, :, None]], axis=-1))
        return self.norm(x), ops.stack(state, axis=1)

    def step(self, x: Any, state: Any) -> tuple[Any, Any]:
        """The same for one event, float [batch, size]."""
        real = state[:, 0, :, -1]
        real = ops.concatenate([real[:, 1:], ops.ones_like(real[:, :1])], axis=1)
        after = []
        for number, block in enumerate(self.attention):
            x, keyed = block.step(x, state[:, number, :, :-1], real)
            after.append(ops.concatenate([keyed, real[:, :, None]], axis=-1))
        return self.norm(x), ops.stack(after, axis=1)


def stack_of(params: SequenceParams, name: str = "stack") -> Any:
    """The stack that `params` describe."""
    stack = RecurrentStack if params.cell == "gru" else AttentionStack
    return stack(params, name=name)
