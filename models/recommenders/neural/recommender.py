"""Neural recommenders: a log in, scores out, ONNX for serving, around the network that learns what comes next."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import keras
import msgspec
import numpy as np
from keras import ops

from models.arrays import Float32, Float64
from models.data.batch import Batch, encoder_inputs
from models.data.interactions import Interactions
from models.data.profiles import ProfileSchema
from models.data.vocabulary import Vocabulary
from models.data.windows import cut_windows
from models.errors import TrainingError
from models.recommenders.base import Recommender, Scorer, ValueModel, add_repeats, write_arrays
from models.recommenders.cold_items import ColdItemInitializer
from models.recommenders.item_product import softmax
from models.recommenders.neural import warm_start
from models.recommenders.neural.batches import Batches, similar, standard
from models.recommenders.neural.distillation import lessons_of
from models.recommenders.neural.export import write_encoder
from models.recommenders.neural.network import NOTHING, Network, accelerated, rate_of
from models.recommenders.neural.params import Loss, Params
from models.recommenders.sparse import popularity_of

__all__ = ["Network", "Neural", "Params"]

ENCODED_AT_ONCE: Final = 256
"""Histories are encoded in blocks of one size: every other size would be compiled again."""
LEAST_STEPS: Final = 1_000
SHORT_MINUTES: Final = 2.0
"""Compiling takes about seven seconds more than tracing alone, and wins a hundredth of a second a step (two cores)."""
WARM_UP: Final = 100
"""Steps over which the learning rate rises to its value."""
WARMLY: Final = 0.3
"""Of the learning rate, for a network that begins with another's weights: the whole of it shakes what they know."""
STEPS_AHEAD: Final = 16
Epoch = Callable[[int, dict[str, float]], bool]
"""Called after each epoch with its number and figures; True stops."""


class Neural(ValueModel, Recommender):
    """The recommender around the network: a log in, scores out, ONNX for serving."""

    is_neural = True

    def __init__(self, params: Params | None = None, after_epoch: Epoch | None = None, minutes: float | None = None):
        self.params = params or Params()
        self.name = self.params.encoder
        self.vocabulary = Vocabulary.from_items([])
        self.popularity: Float32 = np.zeros(0, np.float32)
        self.network: Network | None = None
        self.scale = (0.0, 1.0)
        self.cold_items: ColdItemInitializer | None = None
        self.fields: ProfileSchema = NOTHING
        self.after_epoch = after_epoch
        self.minutes = minutes
        self.clock: Callable[[], float] = time.monotonic
        self.callbacks: list[keras.callbacks.Callback] = []
        self.start: warm_start.Start | None = None
        self.teacher: Scorer | None = None

    def fit(self, interactions: Interactions) -> None:
        """Train until `after_epoch` says stop, the epochs are done, or `minutes` are over; the last epoch is kept.

        Items of the vocabulary that have no events get what items like them have (`cold_items`), before each call of
        `after_epoch` and at the end. With a `start` that fits, the network begins with its weights. With `distill` the
        answers of `teacher`, a scorer of the same vocabulary, are learned too.

        Raises:
            TrainingError: `distill` is above 0 and there is no teacher.
        """
        params = self.params
        if params.distill and self.teacher is None:
            raise TrainingError(
                f"{self.name}: distill={params.distill} needs a teacher; set one before fit, or distill=0"
            )
        # The one global seed: layers inside layers take no generator for initial weights and dropout, so Keras draws
        # them from its global state. Everything else draws from generators that are passed down.
        keras.utils.set_random_seed(params.seed)
        self.vocabulary = interactions.vocabulary
        self.popularity = popularity_of(interactions, interactions.vocabulary.popularity_half_life_ms)
        trained = len(interactions.vocabulary) if interactions.warm_items is None else interactions.warm_items
        objective = params.objective(trained, accelerated())
        probability = _negative_probabilities(interactions, trained, objective)
        log_q = None
        if objective == "sampled" and probability is not None:
            log_q = np.log(np.concatenate([[1.0], probability])).astype(np.float32)
        profiles = interactions.profiles if params.reads_profile else None
        self.fields = profiles.schema if profiles is not None else NOTHING
        self.network = Network(interactions.categories, params, log_q, interactions.texts, trained, self.fields)
        self.cold_items = None
        if trained < len(interactions.vocabulary):
            self.cold_items = ColdItemInitializer.fit(trained, interactions.categories, interactions.texts)
        values, self.scale = standard(interactions)
        interactions = msgspec.structs.replace(interactions, values=values)
        how = {"baskets": params.baskets, "start_token": params.start_token}
        windows = cut_windows(interactions, params.length, params.windows_per_user, **how)
        if self.start is not None and warm_start.begin(self.network, self.vocabulary, self.start):
            self.started_from = self.start.release
        if len(windows):  # else nothing follows anything: the network stays as it began
            near = similar(interactions) if params.substitute else None
            lessons = lessons_of(self.teacher, interactions, params) if self.teacher and params.distill else None
            self._train(Batches(windows, params, probability, near, lessons))
        self.initialize_cold_items()

    def refit(self, interactions: Interactions) -> None:
        """Nothing: a network keeps the weights of its one training."""

    def _train(self, batches: Batches) -> None:
        params = self.params
        network = self._built()  # else Keras builds it with a batch, and workers hand out others of its epoch
        if self.started_from is not None:
            params = msgspec.structs.replace(params, learning_rate=WARMLY * params.learning_rate)
        rate = rate_of(params, params.epochs * len(batches), WARM_UP)
        optimizer = keras.optimizers.AdamW(rate, weight_decay=params.reg, clipnorm=1.0)
        optimizer.build(network.trainable_variables)  # else a first trace makes its variables, and a second follows
        network.compile(optimizer, jit_compile=self._compiled(len(batches)), steps_per_execution=self._at_once())
        until = self.clock() + 60 * self.minutes if self.minutes is not None else None
        network.places = batches.places
        watch = _Watch(self._after_epoch, until, self.clock)
        network.fit(batches, epochs=params.epochs, verbose=0, callbacks=[watch, *self.callbacks])

    def _compiled(self, steps: int) -> bool:
        """Whether XLA compiles a step: it takes minutes for the recurrent encoder's unrolled steps, and seconds that
        a short training does not win back; JAX without it dispatches every operation alone."""
        if self.params.compiled is not None or keras.backend.backend() == "jax":
            return self.params.compiled is not False
        short = self.minutes is not None and self.minutes < SHORT_MINUTES
        return self.params.traits.compiles_quickly and not short and steps * self.params.epochs >= LEAST_STEPS

    def _at_once(self) -> int:
        """Steps between two looks at the clock, each of which waits for the device: JAX hands a GPU one step while it
        computes another; elsewhere nothing is won."""
        if self.params.steps_per_execution:
            return self.params.steps_per_execution
        return STEPS_AHEAD if keras.backend.backend() == "jax" and accelerated() else 1

    def _after_epoch(self, epoch: int, figures: dict[str, float]) -> bool:
        if self.after_epoch is None:
            return False
        self.initialize_cold_items()
        return self.after_epoch(epoch, figures)

    def initialize_cold_items(self) -> None:
        """Give the items that nobody took what items like them have by now."""
        if self.cold_items is None:
            return
        network = self._built()
        table = np.array(ops.convert_to_numpy(network.table.embeddings), np.float32)
        table[network.trained + 1 :] = self.cold_items.initialize(table[1 : network.trained + 1])
        network.table.set_weights([table])

    @property
    def scores_are_logits(self) -> bool:
        return True

    @property
    def value_model(self) -> ValueModel | None:
        return self if self.params.valued else None

    @property
    def reads_profiles(self) -> bool:
        return len(self.fields) > 0

    @property
    def answers_empty_histories(self) -> bool:
        return self.params.start_token

    def encode(self, batch: Batch) -> Float32:
        """float32 [batch, embedding_size]: each history as a vector; zeros where nothing of it is known."""
        network, batch = self._fitted(), batch.newest(self.params.length)
        out = np.zeros((len(batch), self.params.embedding_size), np.float32)
        for start in range(0, len(batch), ENCODED_AT_ONCE):
            part = batch.slice(start, start + ENCODED_AT_ONCE)
            wide = ((0, ENCODED_AT_ONCE - len(part)), (0, 0))
            how = {"context": self.params.reads_time, "start_token": self.params.start_token}
            inputs = encoder_inputs(part, self.fields, **how)
            block = {name: np.pad(array, wide) for name, array in inputs.items()}
            hidden = ops.convert_to_numpy(network.predict_on_batch(block))[: len(part), -1]
            known = part.has_history[:, None] | self.params.start_token
            out[start : start + len(part)] = np.where(known, hidden, 0.0)
        return out

    def embeddings(self) -> Float32:
        """float32 [items, embedding_size]."""
        network = self._built()
        numbers = ops.arange(1, network.items + 1, dtype="int32")
        return np.asarray(ops.convert_to_numpy(ops.cast(network.vectors(numbers), "float32")), np.float32)

    def value_head(self) -> Float32:
        """float32 [items, embedding_size + 1]: the value of a next event is these, times a history's vector and 1."""
        if not self.params.valued:
            raise ValueError(f"{self.name} learned no values; set values above 0, or loss to mse")
        network, vectors, (mean, deviation) = self._fitted(), self.embeddings(), self.scale
        both, ours, theirs = np.asarray(ops.convert_to_numpy(network.worth), np.float32)
        level = float(ops.convert_to_numpy(network.level))
        lone = mean + deviation * (vectors @ theirs + level)
        return np.concatenate([deviation * (vectors * both + ours), lone[:, None]], axis=1).astype(np.float32)

    def values(self, batch: Batch) -> Float32:
        """float32 [batch, items]: the value that the next event would have, in the unit of the commonest valued kind.

        Raises:
            ValueError: no values were learned.
        """
        head = self.value_head()
        valued: Float32 = self.encode(batch) @ head[:, :-1].T + head[:, -1]
        return valued

    def repeats(self) -> Float32:
        """float32 [length]: what an item gains by standing in the history, by its age there; zeros if switched off."""
        return np.asarray(ops.convert_to_numpy(self._fitted().repeats), np.float32)

    def score(self, batch: Batch) -> Float32:
        batch = batch.newest(self.params.length)
        by_value = self.params.loss == "mse"
        scores: Float32 = self.values(batch) if by_value else self.encode(batch) @ self.embeddings().T
        if self.params.repeats:
            add_repeats(scores, batch.items, self.repeats())
        if not (self.params.start_token or batch.has_history.all()):
            scores[~batch.has_history] = np.log1p(self.popularity)
        return scores

    def probabilities(self, batch: Batch) -> Float32:
        return softmax(self.score(batch))

    def save(self, folder: Path, prefix: str = "") -> list[str]:
        """Arrays, and `encoder.onnx`: items, kinds, gaps int32 [batch, length] -> float32 [batch, embedding_size].

        Where it reads them, also profile int32 [batch, fields] and time_features int32 [batch, 2].
        """
        write_encoder(self._built(), folder / f"{prefix}encoder.onnx")
        arrays = {"popularity": self.popularity, "embeddings": self.embeddings(), "repeats": self.repeats()}
        if self.params.valued:
            arrays["value_head"] = self.value_head()
        return [*write_arrays(folder, prefix, arrays), f"{prefix}encoder.onnx"]

    def describe(self) -> dict[str, Any]:
        """Parameters, and `fields`, what is read of profiles, unless that is nothing."""
        params = msgspec.structs.asdict(self.params)
        return {**params, "fields": self.fields.to_json()} if len(self.fields) else params

    def weights_to_start_from(self, until: int) -> warm_start.Start:
        return warm_start.start_of(self, until)

    def _built(self) -> Network:
        network = self._fitted()
        network.ready()
        return network

    def _fitted(self) -> Network:
        if self.network is None:
            raise ValueError(f"{self.name} is not fitted; call fit(interactions) first")
        return self.network


def _negative_probabilities(interactions: Interactions, trained: int, objective: Loss) -> Float64 | None:
    """Each trained item's chance to be drawn as a negative; None where all items are compared.

    For sampled softmax by popularity to the power of .75; for gBCE even, as its authors draw.
    """
    match objective:
        case "sampled":
            counts = (np.bincount(interactions.items, minlength=trained)[:trained] + 1.0) ** 0.75
        case "gbce":
            counts = np.ones(max(1, trained))
        case _:
            return None
    chances: Float64 = counts / counts.sum()
    return chances


class _Watch(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    def __init__(self, after_epoch: Epoch, until: float | None, clock: Callable[[], float]) -> None:
        super().__init__()
        self.after_epoch, self.until, self.clock = after_epoch, until, clock

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        if self.until is not None and self.clock() > self.until:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self.after_epoch(epoch, dict(logs or {})):
            self.model.stop_training = True
