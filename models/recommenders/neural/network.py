"""The network around an encoder: numbers of a history in, a vector at each place out, and what it is trained for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import keras
import msgspec
import numpy as np
from keras import layers, ops

from models.arrays import Float32, Int32
from models.data.batch import GAP_BUCKETS, START
from models.data.profiles import HOURS, WEEKDAYS, ProfileSchema
from models.recommenders.neural.augmentation import LONGEST_PREFIX
from models.recommenders.neural.encoders import encoder_of
from models.recommenders.neural.losses import (
    FAR,
    adversarial_step,
    beta_of,
    distillation_loss,
    gbce_loss,
    sampled_loss,
    softmax_loss,
    value_loss,
)
from models.recommenders.neural.params import Params
from stream.events import KINDS

INPUTS: Final = ("items", "kinds", "gaps")
NOTHING: Final = ProfileSchema()


class Network(keras.Model):  # type: ignore[misc]  # Keras has no types
    """Numbers of a history, each int32 [batch, length] -> float32 [batch, length, embedding_size].

    `categories` int32 [items]; `texts` float32 [items, d] or None; `log_q` float32 [trained + 1]: the log of each
    number's chance to be drawn as a negative, or None where all items are compared. The first `trained` items have
    events to learn from: the others never stand against a target.

    With `fields` it also reads `profile` int32 [batch, fields], with `params.context` also `time_features` int32
    [batch, 2] (hour and weekday), one for each history or, in training, for each position: [batch, length, ...]. Each
    code has a vector; code 0 (unknown) adds nothing.
    """

    def __init__(
        self,
        categories: Int32,
        params: Params,
        log_q: Float32 | None = None,
        texts: Float32 | None = None,
        trained: int | None = None,
        fields: ProfileSchema = NOTHING,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.items, self.params, self.log_q = len(categories), params, log_q
        self.fields = fields if params.reads_profile else NOTHING
        self.trained = self.items if trained is None else trained
        self.objective = params.objective(self.trained, accelerated())
        self.places = 0  # of a batch: set before training
        self.category_of = np.concatenate([[0], categories]).astype(np.int32)
        self.texts = np.pad(texts, ((1, 0), (0, 0))).astype(np.float32) if texts is not None else None
        with _precision("mixed_bfloat16" if params.mixed else "float32"):
            self._make_layers()
        gains = {"initializer": "zeros", "trainable": params.repeats}
        self.repeats = self.add_weight(shape=(params.length,), name="repeats", **gains)
        if params.valued:  # of the product of both vectors, of the history's, of the item's
            self.worth = self.add_weight(shape=(3, params.embedding_size), initializer="zeros", name="worth")
            self.level = self.add_weight(shape=(), initializer="zeros", name="level")
        ages = np.arange(params.length)[:, None] - np.arange(params.length)[None]
        self.ages, self.causal = np.maximum(ages, 0).astype(np.int32), (ages >= 0).astype(np.float32)

    def _make_layers(self) -> None:
        params, size = self.params, self.params.embedding_size
        spread = keras.initializers.RandomNormal(stddev=size**-0.5, seed=params.seed)
        small = keras.initializers.RandomNormal(stddev=0.3 * size**-0.5, seed=params.seed + 1)
        self.table = self._looked_up(self.items + 1, spread, "items")
        groups = int(self.category_of.max(initial=0))
        self.category = self._looked_up(groups + 1, small) if groups else None
        self.kinds = START + 1 if params.start_token else len(KINDS) + 1
        self.kind = self._looked_up(self.kinds, small)
        self.gap = self._looked_up(GAP_BUCKETS, small)
        if self.texts is not None:
            self.text = layers.Dense(size, use_bias=False, kernel_initializer=small, name="text")
        if len(self.fields):
            self.profile = self._looked_up(len(self.fields.labels), small, "profile")
        if params.reads_time:
            self.hour = self._looked_up(HOURS, small, "hour")
            self.weekday = self._looked_up(WEEKDAYS, small, "weekday")
        self.drop = layers.Dropout(params.dropout)
        self.encoder = encoder_of(params)

    def _looked_up(self, rows: int, initializer: Any, name: str | None = None) -> Any:
        """A table of vectors, in float32 whatever else is mixed: a GPU adds up the gradients of rows that occur often
        in bfloat16 a hundred times slower (an H100, `benchmarks.training`)."""
        size = self.params.embedding_size
        return layers.Embedding(rows, size, embeddings_initializer=initializer, dtype="float32", name=name)

    def build(self, shape: Any) -> None:  # noqa: ARG002 - layers build themselves when they are first called
        self.built = True

    def vectors(self, numbers: Any) -> Any:
        """float [..., embedding_size]: an item's own vector, its category's, and its text's."""
        vectors = self.table(numbers)
        if self.category is not None:
            vectors = vectors + self.category(ops.take(ops.convert_to_tensor(self.category_of), numbers))
        if self.texts is not None:
            vectors = vectors + self.text(ops.take(ops.convert_to_tensor(self.texts), numbers, axis=0))
        return vectors

    def call(self, inputs: Any, training: bool = False, newest: bool = False) -> Any:
        numbers = inputs["items"]
        real = ops.cast(ops.not_equal(numbers, 0), "float32")
        if self.params.start_token:
            real = real + ops.cast(ops.equal(inputs["kinds"], START), "float32")
        x = self.vectors(numbers) + self.kind(inputs["kinds"]) + self.gap(inputs["gaps"])
        x = self.drop(x, training=training)
        x = x * ops.cast(real, x.dtype)[:, :, None]
        more: dict[str, Any] = {}
        if self.params.traits.reads_context:
            more = {"counts": self._counts(inputs, real), "known": self._context(inputs)}
        return self.encoder(x, real=real, training=training, newest=newest, **more)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,  # noqa: ARG002 - Keras passes it by name
        training: bool = True,  # noqa: ARG002 - Keras passes it by name
    ) -> Any:
        """Mean loss of what comes next; y int32 [places], 0 where a place is only filled up."""
        real = ops.cast(ops.not_equal(y, 0), "float32")
        hidden = ops.take(ops.reshape(y_pred, (-1, self.params.embedding_size)), x["places"], axis=0)
        hidden = ops.cast(hidden, "float32")
        loss = 0.0
        if self.objective != "mse":
            every = self._against_all if self.objective == "softmax" else self._against_drawn
            loss = ops.sum(every(hidden, y, x, real) * real) / ops.maximum(ops.sum(real), 1.0)
        if self.params.valued:
            there = real * x["valued"]
            weight = 1.0 if self.objective == "mse" else self.params.values
            loss = loss + weight * value_loss(self._valued(hidden, y), x["values"], there)
        if self.params.l2:
            lengths = ops.sum(ops.square(ops.cast(self.vectors(y), "float32")), axis=-1) + ops.sum(
                ops.square(hidden), axis=-1
            )
            loss = loss + self.params.l2 * ops.sum(lengths * real) / ops.maximum(ops.sum(real), 1.0)
        if "lesson_items" in x:
            loss = loss + self.params.distill * ops.mean(self._against_teacher(y_pred, x))
        return loss

    def _against_teacher(self, y_pred: Any, x: Any) -> Any:
        """float [lessons]: of the last histories of a batch, which are beginnings. Their own items do not count: the
        teacher's answers leave them out."""
        rows = self.params.distill_batch
        hidden = ops.cast(y_pred[-rows:, -1], "float32")
        logits = self._product(hidden, self.vectors(ops.arange(1, self.trained + 1, dtype="int32")))
        own = ops.sum(ops.one_hot(x["items"][-rows:, -LONGEST_PREFIX:], self.items + 1), axis=1)
        logits = logits + FAR * own[:, 1 : self.trained + 1]
        lesson = (x["lesson_items"], x["lesson_shares"], x["lesson_rest"])
        return distillation_loss(logits, *lesson, self.params.distill_temperature)

    def _against_all(self, hidden: Any, target: Any, x: Any, real: Any) -> Any:
        column, smoothing = ops.maximum(target - 1, 0), self.params.smoothing
        logits = self._product(hidden, self.vectors(ops.arange(1, self.trained + 1, dtype="int32")))
        if self.params.repeats:
            before, gain = self._before(x)
            rows = np.repeat(np.arange(self.places, dtype=np.int32), self.params.length)
            spots = ops.stack([ops.convert_to_tensor(rows), ops.reshape(before, (-1,))], axis=-1)
            logits = (
                logits
                + ops.scatter(spots, ops.reshape(gain, (-1,)), (self.places, self.items + 1))[:, 1 : self.trained + 1]
            )
        losses = softmax_loss(logits, column, smoothing)
        if self.params.adversarial:
            residual = (ops.softmax(logits) - ops.one_hot(column, self.trained)) * real[:, None]
            step = adversarial_step(residual, hidden, self.params.epsilon)
            moved = logits + self._product(hidden, step)
            losses = losses + self.params.adversarial * softmax_loss(moved, column, smoothing)
        return losses

    def _against_drawn(self, hidden: Any, target: Any, x: Any, real: Any) -> Any:
        numbers = x["negatives"]
        positive = ops.sum(hidden * ops.cast(self.vectors(target), "float32"), axis=-1)
        others = self._product(hidden, self.vectors(numbers))
        if self.log_q is not None:
            log_q = ops.convert_to_tensor(self.log_q)
            positive, others = positive - ops.take(log_q, target), others - ops.take(log_q, numbers)
        if self.params.repeats:
            before, gain = self._before(x)
            positive = positive + ops.sum(gain * ops.cast(ops.equal(before, target[:, None]), "float32"), axis=-1)
            others = others + self._repeated(x, numbers)
        others = ops.where(ops.equal(numbers[None], target[:, None]), FAR, others)
        losses = self._of_drawn(positive, others)
        if self.params.adversarial:
            shares = ops.exp(others - ops.logaddexp(ops.logsumexp(others, axis=-1), positive)[:, None])
            residual = ops.sigmoid(others) if self.objective == "gbce" else shares
            step = adversarial_step(residual * real[:, None], hidden, self.params.epsilon)
            length = ops.sqrt(ops.sum(ops.square(hidden), axis=-1) + 1e-12)  # the target's own vector moves against it
            moved = self._of_drawn(positive - self.params.epsilon * length, others + self._product(hidden, step))
            losses = losses + self.params.adversarial * moved
        return losses

    def _of_drawn(self, positive: Any, others: Any) -> Any:
        if self.objective == "sampled":
            return sampled_loss(positive, others)
        drawn = self.params.negatives
        return gbce_loss(positive, others, beta_of(self.trained, drawn, self.params.calibration))

    def _valued(self, hidden: Any, numbers: Any) -> Any:
        """What value a history's next event would have, were it of these items: float [places], in deviations."""
        item = ops.cast(self.vectors(numbers), "float32")
        both, ours, theirs = self.worth[0], self.worth[1], self.worth[2]
        return ops.sum(hidden * item * both + hidden * ours + item * theirs, axis=-1) + self.level

    def _product(self, hidden: Any, vectors: Any) -> Any:
        """float32 [places, items]."""
        precision = "bfloat16" if self.params.mixed else "float32"
        product = ops.matmul(ops.cast(hidden, precision), ops.transpose(ops.cast(vectors, precision)))
        return ops.cast(product, "float32")

    def _counts(self, inputs: Any, real: Any) -> Any:
        """float [batch, length, kinds + 3]: logs of how many events up to each place are of each kind, there at all,
        of the place's category, and of its item."""
        upto = ops.convert_to_tensor(self.causal)
        kinds = ops.one_hot(inputs["kinds"], self.kinds) * real[:, :, None]
        groups = [ops.take(ops.convert_to_tensor(self.category_of), inputs["items"]), inputs["items"]]
        counts = [ops.matmul(upto, kinds), ops.matmul(upto, real[:, :, None])]
        for group in groups:
            same = ops.cast(ops.equal(group[:, :, None], group[:, None]), "float32")
            counts.append(ops.sum(same * upto[None] * real[:, None], axis=-1)[:, :, None])
        return ops.log(1.0 + ops.concatenate(counts, axis=-1))  # log1p has no operator in ONNX

    def _repeated(self, x: Any, numbers: Any) -> Any:
        """float32 [places, numbers]: what items gain by standing at or before each packed place.

        Histories are compared with the items once each, not once for each of their places.
        """
        same = ops.cast(ops.equal(x["items"][:, :, None], numbers[None, None]), "float32")
        every = ops.matmul((ops.take(self.repeats, self.ages) * self.causal)[None], same)
        return ops.take(ops.reshape(every, (-1, self.params.negatives)), x["places"], axis=0)

    def _context(self, inputs: Any) -> Any:
        """float [batch, length or 1, embedding_size]: what is known besides the history; None where nothing is read."""
        parts = []
        if len(self.fields):
            codes = _by_place(inputs["profile"])
            vectors = self.profile(codes + ops.convert_to_tensor(self.fields.offsets))
            parts.append(ops.sum(vectors * ops.cast(ops.not_equal(codes, 0), vectors.dtype)[..., None], axis=-2))
        if self.params.reads_time:
            moment = _by_place(inputs["time_features"])
            there = ops.not_equal(moment[..., :1], 0)
            vectors = self.hour(moment[..., 0]) + self.weekday(moment[..., 1])
            parts.append(vectors * ops.cast(there, vectors.dtype))
        return sum(parts) if parts else None

    def ready(self) -> None:
        """Build every layer by a history of nothing, unless that is done."""
        if not self.built or not self.table.built:
            self(self.nothing())

    def nothing(self) -> dict[str, Int32]:
        """One history of nothing, of which nothing is known."""
        inputs = {name: np.zeros((1, self.params.length), np.int32) for name in INPUTS}
        if len(self.fields):
            inputs["profile"] = np.zeros((1, len(self.fields)), np.int32)
        if self.params.reads_time:
            inputs["time_features"] = np.zeros((1, 2), np.int32)
        return inputs

    def _before(self, x: Any) -> tuple[Any, Any]:
        """For each packed place the items at or before it, int [places, length], and what standing there gains."""
        length = self.params.length
        row, place = x["places"] // length, x["places"] % length
        gains = ops.take(self.repeats, self.ages) * self.causal
        return ops.take(x["items"], row, axis=0), ops.take(gains, place, axis=0)


def accelerated() -> bool:
    """Whether Keras computes on something faster than the processor."""
    if keras.backend.backend() == "jax":
        import jax  # is there where it is the backend

        return bool(jax.default_backend() != "cpu")
    import tensorflow as tf  # takes no time where it is the backend

    return bool(tf.config.list_physical_devices("GPU"))


def folded(network: Network) -> Network:
    """The same network for inference: an item's vectors are summed into one; computed in float32."""
    params = msgspec.structs.replace(network.params, mixed=False)
    counts_categories = params.traits.reads_context
    categories = network.category_of[1:] if counts_categories else np.zeros(network.items, np.int32)
    plain = Network(categories, params, fields=network.fields)
    network.ready()
    plain.ready()
    every = ops.convert_to_numpy(ops.cast(network.vectors(np.arange(network.items + 1, dtype=np.int32)), "float32"))
    plain.table.set_weights([every])
    if plain.category is not None:
        plain.category.set_weights([np.zeros_like(weights) for weights in plain.category.get_weights()])
    for name in ("kind", "gap", "encoder", "profile", "hour", "weekday"):
        if hasattr(plain, name):
            getattr(plain, name).set_weights(getattr(network, name).get_weights())
    return plain


def _by_place(numbers: Any) -> Any:
    """[batch, length or 1, n]: what holds for a history holds for each of its places."""
    return numbers[:, None] if len(numbers.shape) == 2 else numbers


@contextmanager
def _precision(policy: str) -> Iterator[None]:
    """Layers made within compute as `policy` says: layers inside layers take no argument for it."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def rate_of(params: Params, steps: int, warm_up: int) -> Any:
    """The learning rate by step: linear to its value over `warm_up` steps, then constant or by a cosine to a tenth."""
    if params.schedule == "constant":
        return keras.optimizers.schedules.PolynomialDecay(params.learning_rate / 10, warm_up, params.learning_rate)
    falling = max(1, steps - warm_up)
    return keras.optimizers.schedules.CosineDecay(
        params.learning_rate / 10,
        falling,
        alpha=0.1,
        warmup_target=params.learning_rate,
        warmup_steps=min(warm_up, steps),
    )
