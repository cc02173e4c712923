"""The fit of a network of events: batches, early stop on held-out users, a budget of seconds, and checkpoints."""

import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Final, Protocol

import keras
import msgspec
import numpy as np

from models.arrays import AnyArray, Float64, Int64
from models.synthesizers.base import Progress, SynthesizerContext
from models.synthesizers.neural.latent_inputs import drawn_prefixes, with_latent
from models.synthesizers.neural.network import SequenceNetwork
from models.synthesizers.neural.params import SequenceParams
from models.synthesizers.neural.windows import (
    SequenceData,
    events_in_order,
    network_inputs,
    training_stretches,
    with_conditions,
)
from stream.files import replacing

WIDTHS: Final = (8, 16, 32)
"""Stretches are batched with others of their length: most histories are short."""
HELD_OUT: Final = 500
"""At most so many users are held out."""
REPORTED: Final = 20
"""Progress is reported every so many batches."""
WARM_UP: Final = 50
"""Steps over which the learning rate rises to its value."""
Likelihood = Callable[[], float]
"""Mean log-likelihood per event of the users held out."""


class EpochBatches(Protocol):
    """Batches by number, drawn again for each epoch."""

    def start(self, epoch: int) -> None:
        """Draw those of an epoch."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> tuple[dict[str, AnyArray], AnyArray]: ...


class SequenceBatches:
    """Batches of stretches of about one length; a batch depends on seed, epoch and number alone.

    A stretch is learned in a direction that is drawn again in each epoch. `negatives` float64 [items] are each item's
    chances to be compared with, None where all items are.
    With `latent` units they hold what a network with a latent vector reads.
    """

    def __init__(
        self, data: SequenceData, params: SequenceParams, seed: int, negatives: Float64 | None, latent: int = 0
    ) -> None:
        self.latent = latent
        self.data, self.params, self.seed = data, params, seed
        self.cumulative = np.cumsum(negatives) if negatives is not None else None
        self.start(0)

    def start(self, epoch: int) -> None:
        """Draw the stretches of an epoch and their order."""
        self.epoch, params = epoch, self.params
        rng = self._rng(0)
        self.stretches = training_stretches(self.data.histories.starts, params.window, rng)
        lengths = self.stretches.end - self.stretches.first
        widths = np.array([*(width for width in WIDTHS if width < params.window), params.window])
        group = np.searchsorted(widths, lengths)
        self.batches: list[tuple[int, Int64]] = []
        for number, width in enumerate(widths.tolist()):
            rows = rng.permutation(np.flatnonzero(group == number))
            self.batches += [
                (width, rows[at : at + params.batch_size]) for at in range(0, len(rows), params.batch_size)
            ]
        self.order = rng.permutation(len(self.batches))

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> tuple[dict[str, AnyArray], AnyArray]:
        width, rows = self.batches[self.order[number]]
        rng, size = self._rng(number + 1), self.params.batch_size
        stretches = self.stretches.take(rows[np.arange(size) % len(rows)])
        backward = rng.random(size) < 0.5
        events, conditions = with_conditions(
            self.data, events_in_order(self.data, stretches, backward), self.params, rng
        )
        x, targets = network_inputs(self.data, events, backward, width)
        targets[len(rows) :] = -1
        if self.latent:
            x, targets = with_latent(self.data, x, targets, drawn_prefixes(targets, rng), self.latent, rng)
        packed, numbers = self._packed(x["next_gaps"], targets, rng)
        for names in (("next_gaps",), ("hours", "weekdays"), ("gaps",)):
            kept = rng.random((size, 1)) >= self.params.condition_dropout
            x |= {name: (x[name] * kept).astype(np.int32) for name in names}
        marked = {f"width_{width}": np.zeros(1, np.int32)}  # so that each width is compiled for itself
        return {**x, **conditions, **packed, **marked}, numbers

    def _packed(
        self, next_gaps: AnyArray, targets: AnyArray, rng: np.random.Generator
    ) -> tuple[dict[str, AnyArray], AnyArray]:
        """Where events follow, what they are, and which items they are compared with."""
        histories, places = self.data.histories, np.flatnonzero(targets.ravel() >= 0)
        events = targets.ravel()[places]

        def packed(column: AnyArray) -> AnyArray:
            return np.pad(column, (0, targets.size - len(column))).astype(np.int32)

        x = {"places": packed(places), "target_kinds": packed(histories.kinds[events])}
        x["target_gaps"] = packed(next_gaps.ravel()[places])
        if self.cumulative is not None:
            drawn = np.searchsorted(self.cumulative, rng.random(self.params.negatives)) + 1
            x["negatives"] = np.minimum(drawn, self.data.size).astype(np.int32)
        return x, packed(histories.items[events] + 1)

    def _rng(self, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.epoch, number])


class FitState(msgspec.Struct):
    """How far a fit is: epochs done, the best likelihood of held-out users and the weights that reached it."""

    epoch: int = 0
    best: float = -np.inf
    since_best: int = 0
    weights: list[AnyArray] = []
    seconds: float = 0.0


def held_out_users(users: int, share: float, rng: np.random.Generator) -> Int64:
    """int64 [n]: the rows of users whose likelihood decides when to stop; none where there are fewer than two."""
    count = min(HELD_OUT, max(1, round(share * users))) if users > 1 else 0
    return np.sort(rng.permutation(users)[:count])


def train(
    network: SequenceNetwork,
    batches: SequenceBatches,
    likelihood: Likelihood,
    context: SynthesizerContext,
    progress: Progress,
) -> dict[str, float]:
    """Train until held-out users have not become more likely for some epochs; the best weights stay. Its figures.

    With a `checkpoint` a fit that was killed goes on after its last whole epoch.
    """
    params = batches.params
    compile_network(network, params)
    checkpoint = Checkpoint(context.checkpoint / "fit.npz", network, batches) if context.checkpoint else None
    state = FitState()
    if checkpoint is not None:
        checkpoint.read(state)
    clock = FitClock(context.seconds, params.epochs, state.seconds)
    while state.epoch < params.epochs and state.since_best < params.patience and not clock.over:
        loss = train_epoch(network, batches, state.epoch, clock, progress)
        value = likelihood()
        state.epoch, state.since_best = state.epoch + 1, state.since_best + 1
        if value > state.best or not state.weights:
            state.best, state.since_best, state.weights = value, 0, network.get_weights()
        state.seconds = clock.seconds
        if checkpoint is not None:
            checkpoint.write(state)
        progress(clock.share(state.epoch), {"loss": loss, "held_out_log_likelihood": value})
    if state.weights:
        network.set_weights(state.weights)
    progress(1.0, {})
    return {"epochs": state.epoch, "held_out_log_likelihood": state.best, "fit_seconds": state.seconds}


def compile_network(network: SequenceNetwork, params: SequenceParams) -> None:
    """Give the network its optimizer: AdamW, whose rate rises to its value over the first steps."""
    rate = keras.optimizers.schedules.PolynomialDecay(params.learning_rate / 10, WARM_UP, params.learning_rate)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=params.reg, clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_list=[network.bias])
    optimizer.build(network.trainable_variables)
    network.compile(optimizer, jit_compile=keras.backend.backend() == "jax")


def train_epoch(
    network: SequenceNetwork, batches: EpochBatches, epoch: int, clock: "FitClock", progress: Progress
) -> float:
    """Train on every batch of an epoch, or until the time is over; the mean loss."""
    batches.start(epoch)
    losses = []
    for number in range(len(batches)):
        x, y = batches[number]
        network.before_step(epoch * len(batches) + number)
        losses.append(float(network.train_on_batch(x, y)))
        if number % REPORTED == 0:
            progress(clock.share(epoch + number / len(batches)), {"loss": float(np.mean(losses[-REPORTED:]))})
        if clock.over:
            break
    return float(np.mean(losses))


class FitClock:
    """The seconds that a fit has taken, of those it may take (None: any)."""

    def __init__(self, most: float | None, epochs: int, before: float = 0.0) -> None:
        self.most, self.epochs = most, epochs
        self.began = time.monotonic() - before

    @property
    def seconds(self) -> float:
        """Since the fit began, with the time before it was resumed."""
        return time.monotonic() - self.began

    @property
    def over(self) -> bool:
        """Whether the time is used up."""
        return self.most is not None and self.seconds > self.most

    def share(self, epochs: float) -> float:
        """How much of the fit is done after so many epochs."""
        return min(1.0, max(epochs / max(1, self.epochs), self.seconds / self.most if self.most else 0.0))


class Checkpoint:
    """A fit's state in an `.npz` file; one of other data or parameters is not read."""

    def __init__(self, path: Path, network: SequenceNetwork, batches: SequenceBatches) -> None:
        self.path, self.network = path, network
        histories = batches.data.histories
        digest = blake2b(msgspec.json.encode(batches.params) + str(batches.seed).encode(), digest_size=8)
        for array in (histories.starts, histories.items, histories.kinds, histories.at):
            digest.update(array.tobytes())
        self.digest = digest.hexdigest()

    def write(self, state: FitState) -> None:
        """Replace the file by the state, the network's weights and the optimizer's."""
        now = [*self.network.get_weights(), *(np.array(value) for value in self.network.optimizer.variables)]
        arrays = {f"now_{number:03d}": array for number, array in enumerate(now)}
        arrays |= {f"best_{number:03d}": array for number, array in enumerate(state.weights)}
        figures = np.array([state.epoch, state.best, state.since_best, state.seconds])
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, digest=np.array(self.digest), figures=figures, **arrays)

    def read(self, state: FitState) -> None:
        """Take the state back, and the weights of network and optimizer; nothing changes where there is none."""
        if not self.path.exists():
            return
        with np.load(self.path, allow_pickle=False) as kept:
            if str(kept["digest"]) != self.digest:
                return
            epoch, best, since_best, seconds = kept["figures"].tolist()
            now = [kept[name] for name in sorted(kept.files) if name.startswith("now_")]
            state.weights = [kept[name] for name in sorted(kept.files) if name.startswith("best_")]
        state.epoch, state.best, state.since_best, state.seconds = int(epoch), best, int(since_best), seconds
        count = len(self.network.weights)
        self.network.set_weights(now[:count])
        for variable, value in zip(self.network.optimizer.variables, now[count:], strict=True):
            variable.assign(value)
