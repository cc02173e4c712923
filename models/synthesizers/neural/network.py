"""The network of a generator: events so far in, distributions of the next event's gap, item and kind out."""

from typing import Any, Final

import keras
import msgspec
import numpy as np
from keras import layers, ops

from models.arrays import AnyArray, Float32, Int32
from models.data.profiles import HOURS, WEEKDAYS, ProfileSchema
from models.recommenders.neural.encoders import EPSILON, FAR
from models.recommenders.neural.losses import sampled_loss, softmax_loss
from models.synthesizers.details import GAP_CLASSES
from models.synthesizers.neural.cells import stack_of
from models.synthesizers.neural.feature_matching import MATCHED_ITEMS, matching_loss
from models.synthesizers.neural.params import SequenceParams
from stream.events import KINDS

DIRECTIONS: Final = 2
GAP_WEIGHT: Final = 0.3
"""Weight of the time to the next event in the loss: what comes next matters more than when."""
LEAST_SHARE: Final = 1e-6
MOMENT: Final = ("next_gaps", "hours", "weekdays")
"""Inputs that say when the next event happens."""


class NetworkFacts(msgspec.Struct, frozen=True):
    """What shapes a network besides its parameters. Numbers of items begin at 1; the last one is the start token.

    `categories` int32 [items + 2]; `texts` float32 [items + 2, d] or None; `kinds` float32 [items + 2, kinds]: logs of
    the shares of kinds among each item's events; `popularity` float32 [items + 2]: shares of items among events.
    """

    categories: Int32
    kinds: Float32
    popularity: Float32
    texts: Float32 | None = None
    schema: ProfileSchema = msgspec.field(default_factory=ProfileSchema)

    @property
    def size(self) -> int:
        """Number of items."""
        return len(self.categories) - 2


class SequenceNetwork(keras.Model):  # type: ignore[misc]  # Keras has no types
    """Inputs as `windows.network_inputs` names them -> vectors of what comes next, of events so far, of conditions.

    One network draws in both directions, which a token tells it. Items have one vector for input and output (Press &
    Wolf, EACL 2017), the sum of their own, their category's and their text's. The gap to the next event is predicted
    from the events so far; its item from these and the gap, hour and weekday, where they are known; its kind from these
    and the item. The logits begin at popularity and at the item's shares of kinds.
    """

    def __init__(
        self, facts: NetworkFacts, params: SequenceParams, log_q: Float32 | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.facts, self.params, self.log_q = facts, params, log_q
        size = params.embedding_size
        spread = keras.initializers.RandomNormal(stddev=size**-0.5, seed=1)
        small = keras.initializers.RandomNormal(stddev=0.3 * size**-0.5, seed=2)

        def table(rows: int, initializer: Any = small) -> Any:
            return layers.Embedding(rows, size, embeddings_initializer=initializer)

        self.items = table(facts.size + 2, spread)
        self.category = table(int(facts.categories.max(initial=0)) + 1)
        self.kind, self.gap, self.hour = table(len(KINDS) + 1), table(GAP_CLASSES + 2), table(HOURS)
        self.weekday, self.direction = table(WEEKDAYS), table(DIRECTIONS)
        self.preferred, self.other = (layers.Dense(size, kernel_initializer=small) for _ in range(2))
        if len(facts.schema):
            self.profile = table(len(facts.schema.labels))
        if facts.texts is not None:
            self.text = layers.Dense(size, use_bias=False, kernel_initializer=small)
        self.stack = stack_of(params)
        self.wide, self.narrow = layers.Dense(2 * size, activation="silu"), layers.Dense(size)
        self.narrow_norm, self.norm = (layers.LayerNormalization(epsilon=EPSILON) for _ in range(2))
        self.drop = layers.Dropout(params.dropout)
        self.to_gap, self.to_kind = layers.Dense(GAP_CLASSES), layers.Dense(len(KINDS), kernel_initializer="zeros")
        start = np.log(np.maximum(facts.popularity, LEAST_SHARE / facts.size))
        self.bias = self.add_weight(shape=start.shape, initializer="zeros", name="bias")
        self.bias.assign(start.astype(np.float32))

    def build(self, shape: Any) -> None:  # noqa: ARG002 - layers build themselves when they are first called
        self.built = True

    def vectors(self, numbers: Any) -> Any:
        """float [..., size]: an item's own vector, its category's, and its text's."""
        vectors = self.items(numbers) + self.category(ops.take(ops.convert_to_tensor(self.facts.categories), numbers))
        if self.facts.texts is not None:
            vectors = vectors + self.text(ops.take(ops.convert_to_tensor(self.facts.texts), numbers, axis=0))
        return vectors

    def biases(self, numbers: Any) -> Any:
        """float [...]: what is added to the logit of each item."""
        return ops.take(self.bias, numbers)

    def conditioned(self, inputs: Any) -> Any:
        """float [batch, size]: the direction, and what is known besides the events."""
        sure = ops.cast(ops.not_equal(inputs["category"], 0), "float32")[:, None]
        preferred = self.category(inputs["category"]) * sure
        there = ops.cast(ops.not_equal(inputs["elsewhere"], 0), "float32")[:, :, None]
        others = ops.sum(self.vectors(inputs["elsewhere"]) * there, axis=1) / ops.maximum(ops.sum(there, axis=1), 1.0)
        some = ops.max(there, axis=1)
        vector = self.direction(inputs["direction"]) + self.preferred(preferred) * sure + self.other(others) * some
        if self.facts.texts is not None:
            text = self.text(inputs["text"])
            some_text = ops.cast(ops.any(ops.not_equal(inputs["text"], 0.0), axis=1, keepdims=True), "float32")
            vector = vector + self.preferred(text) * some_text
        if len(self.facts.schema):
            codes = inputs["profile"]
            values = self.profile(codes + ops.convert_to_tensor(self.facts.schema.offsets))
            vector = vector + ops.sum(values * ops.cast(ops.not_equal(codes, 0), "float32")[:, :, None], axis=1)
        return vector

    def events(self, items: Any, kinds: Any, gaps: Any, condition: Any) -> Any:
        """float [..., size]: events as the stack reads them; `condition` is of the same leading shape, or 1."""
        return self.vectors(items) + self.kind(kinds) + self.gap(gaps) + condition

    def target(self, hidden: Any, condition: Any, moment: Any, training: bool = False) -> Any:
        """float [..., size]: what next items are compared with, from codes of gap, hour and weekday."""
        gaps, hours, weekdays = moment
        known = self.gap(gaps) + self.hour(hours) + self.weekday(weekdays)
        x = self.narrow_norm(hidden + condition + known)
        return self.norm(hidden + self.drop(self.narrow(self.wide(x)), training=training))

    def call(self, inputs: Any, training: bool = False) -> tuple[Any, ...]:
        """float [batch, length, size]: what next items are compared with, and what the gap is predicted from."""
        condition = self.conditioned(inputs)[:, None]
        numbers = inputs["items"]
        real = ops.cast(ops.not_equal(numbers, 0), "float32")
        x = self.drop(self.events(numbers, inputs["kinds"], inputs["gaps"], condition), training=training)
        hidden, _ = self.stack(x * real[:, :, None], real, training=training)
        moment = (inputs["next_gaps"], inputs["hours"], inputs["weekdays"])
        return self.target(hidden, condition, moment, training), hidden + condition

    def encode(self, inputs: Any) -> tuple[Any, Any, Any]:
        """The last place's vector, the state after it, and the conditions' vector: what `advance` goes on from."""
        condition = self.conditioned(inputs)
        numbers = inputs["items"]
        real = ops.cast(ops.not_equal(numbers, 0), "float32")
        x = self.events(numbers, inputs["kinds"], inputs["gaps"], condition[:, None]) * real[:, :, None]
        hidden, state = self.stack(x, real)
        return hidden[:, -1], state, condition

    def advance(self, items: Any, kinds: Any, gaps: Any, condition: Any, state: Any) -> tuple[Any, Any]:
        """The next place's vector and state, from one event more of each history, int [batch] each."""
        hidden, after = self.stack.step(self.events(items, kinds, gaps, condition), state)
        return hidden, after

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,  # noqa: ARG002 - Keras passes it by name
        training: bool = True,  # noqa: ARG002 - Keras passes it by name
    ) -> Any:
        """Mean loss over packed places: y int32 [places], the numbers of the items, 0 where a place is filled up; and
        the features' distance, where the batch has what `matching_loss` reads."""
        size = self.params.embedding_size
        matching = matching_loss(self, y_pred[0], x) if MATCHED_ITEMS in x else 0.0
        target, before = (ops.take(ops.reshape(vectors, (-1, size)), x["places"], axis=0) for vectors in y_pred)
        real = ops.cast(ops.not_equal(y, 0), "float32")
        kinds, gaps = x["target_kinds"], x["target_gaps"]
        loss = self.item_loss(target, y, x) + softmax_loss(self.kind_logits(target, y), kinds)
        timed = ops.cast(ops.greater(gaps, 0), "float32")
        loss = loss + GAP_WEIGHT * timed * softmax_loss(self.to_gap(before), ops.maximum(gaps - 1, 0))
        return ops.sum(loss * real) / ops.maximum(ops.sum(real), 1.0) + matching

    def item_loss(self, target: Any, numbers: Any, x: Any) -> Any:
        """float [places]: minus the log-likelihood of each item, among all or drawn ones."""
        if self.log_q is None:
            every = ops.arange(1, self.facts.size + 1, dtype="int32")
            logits = ops.matmul(target, ops.transpose(self.vectors(every))) + self.biases(every)
            return softmax_loss(logits, ops.maximum(numbers - 1, 0))
        drawn, log_q = x["negatives"], ops.convert_to_tensor(self.log_q)
        own = ops.sum(target * self.vectors(numbers), axis=-1) + self.biases(numbers) - ops.take(log_q, numbers)
        others = ops.matmul(target, ops.transpose(self.vectors(drawn))) + self.biases(drawn) - ops.take(log_q, drawn)
        return sampled_loss(own, ops.where(ops.equal(drawn[None], numbers[:, None]), FAR, others))

    def kind_logits(self, target: Any, numbers: Any) -> Any:
        """float [places, kinds]: the kind of an event of each item."""
        return self.to_kind(target) + ops.take(ops.convert_to_tensor(self.facts.kinds), numbers, axis=0)

    def before_step(self, step: int) -> None:
        """Called before each step of training, which are counted from 0."""

    def all_inputs(self, inputs: dict[str, AnyArray]) -> dict[str, AnyArray]:
        """Inputs with whatever `windows.network_inputs` does not know of."""
        return inputs

    def encoded_inputs(self, inputs: dict[str, AnyArray]) -> dict[str, AnyArray]:
        """Those that `encode` reads."""
        return {name: array for name, array in inputs.items() if name not in MOMENT}

    def ready(self, inputs: dict[str, AnyArray]) -> None:
        """Build every layer by one history of nothing."""
        target, hidden = self(self.all_inputs(inputs))[:2]
        self.to_gap(hidden), self.kind_logits(target[:, 0], inputs["items"][:, 0])

    def folded(self) -> tuple[Float32, Float32]:
        """float32 [items + 2, size] and [items + 2]: every number's vector and bias."""
        numbers = np.arange(self.facts.size + 2, dtype=np.int32)
        vectors, biases = self.vectors(numbers), self.biases(numbers)
        return np.array(ops.convert_to_numpy(vectors), np.float32), np.array(ops.convert_to_numpy(biases), np.float32)
