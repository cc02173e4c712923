"""An adversarially trained generator of event sequences, in the latent space of a sequence autoencoder."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from msgspec import Meta

from models.arrays import AnyArray, Float32, Int32, Int64
from models.data.interactions import Interactions
from models.data.profiles import ProfileSchema
from models.synthesizers.base import (
    MAX_EVENTS,
    Progress,
    SynthesizerContext,
    conditions_for_step,
    no_progress,
    require_events,
)
from models.synthesizers.conditions import Conditions, check_conditions
from models.synthesizers.decoding import LATENT, DrawingState
from models.synthesizers.details import EventDetails
from models.synthesizers.fidelity import Reference, overlap, statistics_of
from models.synthesizers.histories import Histories
from models.synthesizers.neural.latent_decoder import LatentDecoder
from models.synthesizers.neural.sequence_windows import WindowSource
from models.synthesizers.stepwise import BATCH, StepwiseSynthesizer
from models.synthesizers.streams import RandomStreams

HELD_OUT: Final = 0.1
MOST_HELD_OUT: Final = 1_000
"""The share of the users, and at most how many, by which training stops."""
MONITORED: Final = 256
"""Histories that are sampled after each round to measure fidelity."""
MOST_LATENTS: Final = 100_000
RECONSTRUCTION_SHARE: Final = 0.7
"""The share of the time that the autoencoder may take."""
NOISES: Final = 32
"""Latent vectors over which an expectation is averaged."""


class LatentState(msgspec.Struct, frozen=True):
    """Where a batch stands, padded to BATCH rows: `hidden`, `condition` float32 [rows, d], `latent` float32 [rows, s],
    numbers of the newest items `recent` int32 [rows, known], how many events were drawn. `drawing`: where it began."""

    drawing: DrawingState
    hidden: Float32
    latent: Float32
    condition: Float32
    recent: Int32
    drawn: int = 0


class GANTraining(msgspec.Struct, frozen=True):
    """What a GAN is trained on: windows, `users` to learn from and held-out ones, the training of its autoencoder
    (`neural.reconstruction.AutoencoderTraining`), and what fidelity is measured by."""

    source: WindowSource
    users: tuple[Int64, Int64]
    reconstruction: Any
    reference: Reference

    @property
    def held_out(self) -> Histories:
        """Histories of the users by whom training stops."""
        return self.source.histories.take(self.users[1])

    def encoded(self, rng: np.random.Generator) -> tuple[Float32, Float32]:
        """float32 [windows, s] and [windows, d]: latent vectors and conditions of windows to learn from."""
        from models.synthesizers.neural.reconstruction import encoded

        windows = self.source.draw(self.users[0], rng)
        return encoded(self.reconstruction.autoencoder, windows.take(np.arange(min(len(windows), MOST_LATENTS))))


class GAN(StepwiseSynthesizer):
    """Generated latent vectors, which a decoder turns into events (ARAE: Zhao et al., ICML 2018; with a fixed
    autoencoder: Donahue & Rumshisky, 2018).

    An autoencoder is trained first (`neural.autoencoder`); then a generator maps noise and what is known to latent
    vectors, against a Wasserstein critic with gradient penalty (`neural.adversary`). It stops when sampled histories no
    longer come closer to those of held-out users. A latent vector stands behind `length` events; then the next one is
    generated, given the newest. `training` keeps the figures of every epoch of the autoencoder and every round of the
    adversaries (`neural.curves.plot_training` draws them).
    """

    name = "gan"
    supports = frozenset({"first", "later", "profile", "category"})

    class Params(msgspec.Struct, frozen=True, kw_only=True):
        """`known`: first (later) events that are read. `latent_noise`: relative to a latent component. `negatives`:
        items drawn to compare with, where there are more than four times as many. `rounds` of `steps` generator
        updates, each after `critic_steps` of the critic; `penalty` is WGAN-GP's lambda."""

        embedding_size: Annotated[int, Meta(ge=4, le=512)] = 64
        latent_size: Annotated[int, Meta(ge=2, le=256)] = 32
        length: Annotated[int, Meta(ge=2, le=MAX_EVENTS)] = 16
        known: Annotated[int, Meta(ge=1, le=MAX_EVENTS)] = 8
        latent_noise: Annotated[float, Meta(ge=0)] = 1.0
        hidden: Annotated[float, Meta(ge=0, lt=1)] = 0.2
        epochs: Annotated[int, Meta(ge=1)] = 30
        learning_rate: Annotated[float, Meta(gt=0)] = 3e-3
        batch_size: Annotated[int, Meta(ge=8)] = 128
        negatives: Annotated[int, Meta(ge=16)] = 1024
        units: Annotated[int, Meta(ge=8)] = 128
        rounds: Annotated[int, Meta(ge=1)] = 40
        steps: Annotated[int, Meta(ge=1)] = 50
        critic_steps: Annotated[int, Meta(ge=1)] = 5
        penalty: Annotated[float, Meta(gt=0)] = 10.0
        adversarial_rate: Annotated[float, Meta(gt=0)] = 5e-4
        patience: Annotated[int, Meta(ge=1)] = 3
        round_patience: Annotated[int, Meta(ge=1)] = 8

    def __init__(self, params: msgspec.Struct | None = None, context: SynthesizerContext | None = None) -> None:
        super().__init__(params, context)
        self.schema, self.categories = ProfileSchema(), dict[str, int]()
        self.weights: dict[str, Float32] = {}
        self.training: dict[str, list[dict[str, float]]] = {"autoencoder": [], "adversarial": []}

    def fit(self, interactions: Interactions, progress: Progress = no_progress) -> None:
        from models.synthesizers.neural.early_stop import PartClock

        training = self.prepare(interactions)
        clock = PartClock(self.context.seconds, progress)
        checkpoints = self._checkpoints(training)
        clock.start_part(0.0, RECONSTRUCTION_SHARE)
        self._train_autoencoder(training, clock, checkpoints)
        clock.start_part(RECONSTRUCTION_SHARE, 1.0)
        self.train_adversary(training, clock, checkpoints)

    def prepare(self, interactions: Interactions) -> "GANTraining":
        """What its training needs, with an autoencoder that is not trained yet.

        Raises:
            SynthesisError: there is nothing to learn from.
        """
        from models.synthesizers.neural.reconstruction import AutoencoderTraining, ReconstructionOptions

        require_events(interactions, self.name)
        self.vocabulary = interactions.vocabulary
        self.details.fit(interactions)
        self.categories = {name: code for code, name in enumerate(interactions.category_names, 1)}
        source = WindowSource(interactions, self.params.length, self.params.known)
        self.schema = source.schema
        self.training = {"autoencoder": [], "adversarial": []}
        users = self._split(source.histories)
        rng = np.random.default_rng([self.context.seed, 2])
        options = msgspec.convert(self.params, ReconstructionOptions, from_attributes=True)
        autoencoder = AutoencoderTraining(self._new_autoencoder(interactions, rng), source, users, options, rng)
        reference = Reference.fit(interactions, self.context.seed)
        return GANTraining(source, users, autoencoder, reference)

    def _checkpoints(self, training: "GANTraining") -> Any:
        """Where the progress is kept; None without a folder."""
        from models.synthesizers.neural.early_stop import PartCheckpoints

        folder, histories = self.context.checkpoint, training.source.histories
        if folder is None:
            return None
        digest = blake2b(msgspec.json.encode([self.params, self.context.seed]), digest_size=8)
        for array in (histories.starts, histories.items, training.source.codes, training.source.categories):
            digest.update(array.tobytes())
        if self.item_embeddings is not None:
            digest.update(self.item_embeddings.tobytes())
        return PartCheckpoints(folder, digest.hexdigest())

    def _split(self, histories: Histories) -> tuple[Int64, Int64]:
        """Users to train on, and held-out ones."""
        order = np.random.default_rng([self.context.seed, 1]).permutation(np.flatnonzero(histories.lengths > 0))
        most = min(MOST_HELD_OUT, round(HELD_OUT * len(order)))
        return (order[most:], order[:most]) if most else (order, order)

    def _new_autoencoder(self, interactions: Interactions, rng: np.random.Generator) -> Any:
        from models.synthesizers.neural.autoencoder import SequenceAutoencoder

        params = self.params
        counts = np.bincount(interactions.items, minlength=len(self.vocabulary))
        sizes = {
            "embedding_size": params.embedding_size,
            "latent_size": params.latent_size,
            "labels": len(self.schema.labels),
            "categories": len(self.categories),
        }
        return SequenceAutoencoder.create(
            counts / counts.sum(),
            sizes,
            self.schema.offsets,
            rng,
            log_q=self._log_q(counts),
            latent_noise=params.latent_noise,
            item_embeddings=self._initial_embeddings(),
        )

    def _train_autoencoder(self, training: "GANTraining", clock: Any, checkpoints: Any) -> None:
        from models.synthesizers.neural.early_stop import TrainedPart, train_part

        reconstruction = training.reconstruction
        part = TrainedPart(
            name="autoencoder",
            epoch=reconstruction.epoch,
            score=lambda figures: -figures["held-out-loss"],
            arrays=reconstruction.autoencoder.arrays,
            variables=reconstruction.variables,
            rng=reconstruction.rng,
            most=self.params.epochs,
            patience=self.params.patience,
        )
        weights = train_part(part, self.training["autoencoder"], clock, checkpoints)
        reconstruction.autoencoder.set_arrays(weights)
        self.item_embeddings = weights["items"][1:]

    def _initial_embeddings(self) -> Float32 | None:
        """Vectors that were given and fit in number and size."""
        vectors, shape = self.item_embeddings, (len(self.vocabulary), self.params.embedding_size)
        return vectors if vectors is not None and vectors.shape == shape else None

    def new_adversary(self, training: "GANTraining") -> Any:
        """A generator and its critic, not trained yet, of the autoencoder's latent vectors."""
        from models.synthesizers.neural.adversary import Adversary, AdversaryOptions

        rng = np.random.default_rng([self.context.seed, 3])
        options = msgspec.convert(self.params, AdversaryOptions, from_attributes=True)
        return Adversary(*training.encoded(rng), options, rng)

    def train_adversary(
        self, training: "GANTraining", clock: Any, checkpoints: Any = None, adversary: Any = None
    ) -> None:
        """Train generator and critic while the autoencoder stays as it is; `adversary`: one to go on with."""
        from models.synthesizers.neural.early_stop import TrainedPart, train_part

        adversary = adversary or self.new_adversary(training)
        decoder, real = training.reconstruction.autoencoder.arrays(), training.held_out

        def arrays() -> dict[str, AnyArray]:
            return {**decoder, **adversary.arrays()}

        def epoch(number: int) -> dict[str, float]:
            figures = adversary.train()
            self.weights = arrays()
            return {"round": number, **figures, **self.fidelity(real, training.reference)}

        part = TrainedPart(
            name="adversary",
            epoch=epoch,
            score=lambda figures: figures["fidelity"],
            arrays=arrays,
            variables=adversary.variables,
            rng=adversary.rng,
            most=self.params.rounds,
            patience=self.params.round_patience,
        )
        self.weights = train_part(part, self.training["adversarial"], clock, checkpoints)

    def fidelity(self, real: Histories, reference: Reference) -> dict[str, float]:
        """How close sampled histories are to held-out ones: `fidelity`, the mean of `items` and `transitions` (between
        groups), each 1 - total variation distance; `item-coverage` and `group-coverage`, the shares of the held-out
        users' items and groups that samples reach."""
        rows = np.arange(min(MONITORED, len(real)))
        real = real.take(rows)
        conditions = [Conditions(events=int(min(length, MAX_EVENTS))) for length in real.lengths]
        histories = self.sample(conditions, 1, np.random.default_rng(self.context.seed))
        ours, theirs = (statistics_of(users, reference).distributions for users in (histories, real))
        items, transitions = (overlap(ours[name], theirs[name]) for name in ("items", "group-transitions"))
        groups = reference.groups
        return {
            "fidelity": (items + transitions) / 2,
            "items": items,
            "transitions": transitions,
            "item-coverage": _reached(histories.items, real.items),
            "group-coverage": _reached(groups[histories.items], groups[real.items]),
        }

    def _log_q(self, counts: Int64) -> Float32 | None:
        """float32 [items + 1]: the logarithm of each item's chance to be drawn; None where all are compared."""
        if len(counts) <= 4 * self.params.negatives:
            return None
        chances = np.where(counts > 0, (counts + 1.0) ** 0.75, 0.0)
        logs = np.log(np.maximum(self.params.negatives * chances / chances.sum(), 1e-30))
        return np.concatenate([[0.0], logs]).astype(np.float32)

    def begin(self, drawing: DrawingState) -> LatentState:
        known = np.zeros((len(drawing.conditions), self.params.known), np.int32)
        width = min(self.params.known, drawing.items.shape[1])
        if width:
            known[:, -width:] = drawing.items[:, -width:] + 1
        return self._next_latent(drawing, _padded(known), 0)

    def item_probabilities(self, state: LatentState, drawing: DrawingState) -> Float32:
        decoder = self._decoder()
        return decoder.probabilities(state.hidden, state.latent, state.condition)[: len(drawing.conditions)]

    def advance(self, state: LatentState, items: Int32, at: Int64, kinds: Int32) -> LatentState:  # noqa: ARG002
        drawn, numbers = state.drawn + 1, _padded(items + 1)
        added = np.column_stack([state.recent[:, 1:], numbers])
        recent = np.where(numbers[:, None] > 0, added, state.recent)
        if drawn % self.params.length == 0:
            return self._next_latent(state.drawing, recent, drawn)
        after = self._decoder().read(state.hidden, state.latent, numbers)
        hidden = np.where(numbers[:, None] > 0, after, state.hidden)
        return msgspec.structs.replace(state, hidden=hidden, recent=recent, drawn=drawn)

    def expected(self, conditions: Sequence[Conditions], steps: int = 1, seed: int = 0) -> Float32:
        """As every synthesizer's; one step ahead it is the mean of the decoder's probabilities over NOISES latents."""
        if abs(steps) > 1:
            return super().expected(conditions, steps, seed)
        turned = conditions_for_step(conditions, steps)
        check_conditions(turned, self.supports, self.name)
        out = np.zeros((len(turned), len(self.vocabulary)), np.float32)
        at_once = BATCH // NOISES
        for start in range(0, len(turned), at_once):
            part = [condition for condition in turned[start : start + at_once] for _ in range(NOISES)]
            streams = RandomStreams(np.tile(np.arange(NOISES), len(part) // NOISES), seed)
            drawing = self.before_drawing(part, streams, backward=steps < 0)
            probabilities = self.item_probabilities(self.begin(drawing), drawing)
            out[start : start + at_once] = probabilities.reshape(-1, NOISES, out.shape[1]).mean(axis=1)
        return out

    def _next_latent(self, drawing: DrawingState, known: Int32, drawn: int) -> LatentState:
        if drawing.streams is None:
            raise ValueError("a latent vector is drawn from the histories' random streams; the drawing state has none")
        decoder, rows = self._decoder(), len(drawing.conditions)
        codes = [self.categories.get(condition.category or "", 0) for condition in drawing.conditions]
        profiles, categories = self.schema.encode(drawing.profiles), np.array(codes, np.int32)
        backward = np.full(rows, int(drawing.backward), np.int32)
        condition = decoder.condition(known, _padded(profiles), _padded(categories), _padded(backward))
        noise = drawing.streams.normal(drawn, LATENT, 2 * self.params.latent_size).astype(np.float32)
        latent = decoder.latent(condition, _padded(noise))
        hidden = decoder.read(decoder.start(latent, condition), latent, known[:, -1])
        return LatentState(drawing, hidden, latent, condition, known, drawn)

    def _decoder(self) -> LatentDecoder:
        return LatentDecoder(self.weights, self.schema.offsets, self.params.latent_noise)

    def arrays(self) -> dict[str, AnyArray]:
        about = {"fields": self.schema.to_json(), "categories": self.categories, "training": self.training}
        details = {f"details-{name}": array for name, array in self.details.arrays().items()}
        return {**self.weights, **details, "about": np.frombuffer(msgspec.json.encode(about), np.uint8)}

    def restore(self, arrays: Mapping[str, Any]) -> None:
        about = msgspec.json.decode(np.asarray(arrays["about"]).tobytes())
        self.schema, self.categories = ProfileSchema.from_json(about["fields"]), about["categories"]
        self.training = about["training"]
        details = {name.removeprefix("details-"): array for name, array in arrays.items()}
        self.details = EventDetails.from_arrays(details)
        names = [name for name in arrays if name != "about" and not name.startswith("details-")]
        self.weights = {name: np.asarray(arrays[name], np.float32) for name in names}


def _reached(sampled: Int32, real: Int32) -> float:
    return float(np.isin(np.unique(real), sampled).mean()) if len(real) else 0.0


def _padded(rows: AnyArray) -> AnyArray:
    """BATCH rows, so that a row's result does not depend on how many there are."""
    return np.pad(rows, ((0, BATCH - len(rows)), *((0, 0) for _ in rows.shape[1:])))
