"""An autoencoder of event sequences: a sequence becomes a latent vector, from which a decoder draws it item by item.

The decoder also reads what is known: first events, a profile, a category, the direction of time. The latent vector is
disturbed by noise in training, so that it says little more than what events have in common, and that vectors near a
real one decode well (Zhao et al., ICML 2018, section 3). `keras.ops` only.
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from models.arrays import Float32, Float64
from models.recommenders.neural.losses import FAR, sampled_loss, softmax_loss


class SequenceAutoencoder:
    """Variables by name, and what they compute. d: `embedding_size`, s: `latent_size`.

    `variables`: "items" float32 [items + 1, d] (row 0 is padding), "bias" [items + 1], "direction" [2, d], "profile"
    [labels, d], "category" [categories + 1, d]; "reader", "encoder", "decoder" (recurrent cells: "-input", "-state",
    "-bias"); "latent" [d, s]; "start" [s + d, d]; "output" [d, d], "skip" [s + d, d].
    """

    def __init__(
        self, variables: Mapping[str, keras.Variable], offsets: Any, log_q: Float32 | None, latent_noise: float
    ) -> None:
        self.variables = dict(variables)
        self.offsets, self.log_q, self.latent_noise = np.asarray(offsets, np.int32), log_q, latent_noise
        self.latent_size = int(self.variables["latent"].shape[1])

    @classmethod
    def create(
        cls,
        popularity: Float64,
        sizes: Mapping[str, int],
        offsets: Any,
        rng: np.random.Generator,
        *,
        log_q: Float32 | None,
        latent_noise: float,
        item_embeddings: Float32 | None = None,
    ) -> "SequenceAutoencoder":
        """New weights. `popularity` float64 [items]: shares of events, 0 for items that must never be drawn.

        `sizes`: embedding_size, latent_size, labels (of profiles), categories. `item_embeddings` float32 [items, d]:
        where the items' vectors begin.
        """
        d, s = sizes["embedding_size"], sizes["latent_size"]
        tables = {"items": len(popularity) + 1, "direction": 2, "profile": sizes["labels"]}
        tables["category"] = sizes["categories"] + 1
        arrays = {name: rng.normal(0, d**-0.5, (rows, d)) for name, rows in tables.items()}
        arrays["items"][0] = 0.0
        if item_embeddings is not None:
            arrays["items"][1:] = item_embeddings
        logs = np.where(popularity > 0, np.log(np.maximum(popularity, 1e-12)), FAR)
        arrays["bias"] = np.concatenate([[FAR], logs])
        for name, inputs in (("reader", d), ("encoder", d), ("decoder", d + s)):
            arrays[f"{name}-input"] = glorot(rng, inputs, 3 * d)
            arrays[f"{name}-state"] = glorot(rng, d, 3 * d)
            arrays[f"{name}-bias"] = np.zeros(3 * d)
        arrays["latent"], arrays["output"] = glorot(rng, d, s), glorot(rng, d, d)
        arrays["start"], arrays["skip"] = glorot(rng, s + d, d), glorot(rng, s + d, d)
        variables = {name: keras.Variable(array.astype(np.float32), name=name) for name, array in arrays.items()}
        return cls(variables, offsets, log_q, latent_noise)

    def arrays(self) -> dict[str, Float32]:
        """The weights by name."""
        return {name: np.array(ops.convert_to_numpy(each.value)) for name, each in self.variables.items()}

    def set_arrays(self, arrays: Mapping[str, Float32]) -> None:
        """Take weights back."""
        for name, variable in self.variables.items():
            variable.assign(arrays[name])

    def condition(self, batch: Mapping[str, Any]) -> Any:
        """float [batch, d]: what is known, from `known`, `profiles`, `categories` and `backward` of the windows."""
        v = self.variables
        known = self._run("reader", self._vectors(batch["known"]), batch["known"])[-1]
        direction = ops.take(v["direction"], batch["backward"], axis=0)
        category = _shown(ops.take(v["category"], batch["categories"], axis=0), batch["categories"])
        out = known + direction + category
        if len(self.offsets):
            codes = batch["profiles"]
            vectors = ops.take(v["profile"], codes + ops.convert_to_tensor(self.offsets), axis=0)
            out = out + ops.sum(_shown(vectors, codes), axis=1)
        return out

    def encode(self, vectors: Any, real: Any) -> Any:
        """float [batch, s]: latent vectors of length sqrt(s); `vectors` float [batch, length, d] of the items, or of
        distributions over items, `real` [batch, length] 0 where there is no event."""
        hidden = self._run("encoder", vectors, real)[-1]
        return on_sphere(ops.matmul(hidden, self.variables["latent"]))

    def loss(self, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Mean cross-entropy of the events; of windows, with `inputs` int32 [batch, length] (what the decoder reads,
        some of it hidden), `noise` float32 [batch, s] and, where items are drawn, `negatives` int32 [n]."""
        events = batch["events"]
        condition = self.condition(batch)
        latent = self.encode(self._vectors(events), events) + self.latent_noise * batch["noise"]
        vectors = self.decode(latent, condition, batch["inputs"])
        targets = ops.reshape(events, (-1,))
        losses = self._losses(ops.reshape(vectors, (-1, vectors.shape[-1])), targets, batch)
        real = ops.cast(ops.not_equal(targets, 0), "float32")
        return ops.sum(losses * real) / ops.maximum(ops.sum(real), 1.0), {}

    def decode(self, latent: Any, condition: Any, inputs: Any) -> Any:
        """float [batch, length, d]: at each place a vector whose product with an item's says how likely it is."""
        v = self.variables
        length = inputs.shape[1]
        both = ops.concatenate([latent, condition], axis=-1)
        at_each = ops.repeat(latent[:, None], length, axis=1)
        read = ops.concatenate([self._vectors(inputs), at_each], axis=-1)
        start = ops.tanh(ops.matmul(both, v["start"]))
        states = ops.stack(self._run("decoder", read, None, start), axis=1)
        return ops.matmul(states, v["output"]) + ops.matmul(both, v["skip"])[:, None]

    def _losses(self, vectors: Any, targets: Any, batch: Mapping[str, Any]) -> Any:
        items, bias = self.variables["items"], self.variables["bias"]
        if self.log_q is None:
            logits = ops.matmul(vectors, ops.transpose(items)) + ops.convert_to_tensor(bias)
            return softmax_loss(logits, targets)
        log_q, drawn = ops.convert_to_tensor(self.log_q), batch["negatives"]
        weighted = vectors * ops.take(items, targets, axis=0)
        positive = ops.sum(weighted, axis=-1) + ops.take(bias, targets) - ops.take(log_q, targets)
        others = ops.matmul(vectors, ops.transpose(ops.take(items, drawn, axis=0)))
        others = others + ops.take(bias, drawn) - ops.take(log_q, drawn)
        others = ops.where(ops.equal(drawn[None], targets[:, None]), FAR, others)
        return sampled_loss(positive, others)

    def _vectors(self, numbers: Any) -> Any:
        return _shown(ops.take(self.variables["items"], numbers, axis=0), numbers)

    def _run(self, name: str, vectors: Any, real: Any | None, state: Any = None) -> list[Any]:
        """The states of a gated recurrent unit (Cho et al., EMNLP 2014) after each place; padding changes nothing."""
        v = self.variables
        inputs = ops.matmul(vectors, v[f"{name}-input"]) + v[f"{name}-bias"]
        recurrent = ops.convert_to_tensor(v[f"{name}-state"])
        size = recurrent.shape[0]
        state = ops.zeros_like(inputs[:, 0, :size]) if state is None else state
        shown = None if real is None else ops.cast(ops.not_equal(real, 0), "float32")
        states = []
        for place in range(vectors.shape[1]):
            x, h = inputs[:, place], ops.matmul(state, recurrent)
            gates = ops.sigmoid(x[:, : 2 * size] + h[:, : 2 * size])
            kept, reset = gates[:, :size], gates[:, size:]
            new = ops.tanh(x[:, 2 * size :] + reset * h[:, 2 * size :])
            after = kept * state + (1 - kept) * new
            state = after if shown is None else state + shown[:, place, None] * (after - state)
            states.append(state)
        return states


def on_sphere(vectors: Any) -> Any:
    """float [batch, s]: vectors scaled to length sqrt(s), so that a component is about one."""
    length = ops.sqrt(ops.sum(ops.square(vectors), axis=-1, keepdims=True) + 1e-12)
    return vectors / length * float(vectors.shape[-1]) ** 0.5


def glorot(rng: np.random.Generator, inputs: int, outputs: int) -> Float64:
    """float64 [inputs, outputs]: initial weights (Glorot & Bengio, AISTATS 2010, equation 16)."""
    limit = (6.0 / (inputs + outputs)) ** 0.5
    return rng.uniform(-limit, limit, (inputs, outputs))


def _shown(vectors: Any, numbers: Any) -> Any:
    return vectors * ops.cast(ops.not_equal(numbers, 0), "float32")[..., None]
