"""Generators whose next event comes from a network that was trained on users' events."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import msgspec
import numpy as np

from models.arrays import AnyArray, Float32, Float64, Int32, Int64
from models.data.interactions import Interactions
from models.data.profiles import ProfileSchema, time_features
from models.data.vocabulary import Vocabulary
from models.recommenders.base import checked, write_arrays
from models.synthesizers.base import Progress, SynthesizerContext, conditions_for_step, no_progress, require_events
from models.synthesizers.conditions import CONDITION_NAMES, ConditionName, Conditions, SynthesisError, check_conditions
from models.synthesizers.decoding import DrawingState
from models.synthesizers.details import EventDetails
from models.synthesizers.enumeration import expected_after
from models.synthesizers.histories import Histories
from models.synthesizers.neural.condition_reader import ConditionReader, gap_code
from models.synthesizers.neural.onnx_runner import OnnxRunner
from models.synthesizers.neural.runner import NetworkPosition, OutputWeights, StepRunner, kept_where
from models.synthesizers.neural.windows import scoring_stretches
from models.synthesizers.stepwise import StepwiseSynthesizer
from stream.events import KINDS

if TYPE_CHECKING:
    from models.synthesizers.neural.fitting import NetworkFit, NetworkPlan
    from models.synthesizers.neural.network import SequenceNetwork

STATE: Final = "synthesizer.json"
ENUMERATED: Final = (2, 3)
"""Steps ahead whose expectation is enumerated; for more, histories are sampled."""


class SequencePosition(msgspec.Struct):
    """The network's position, and the time of each history's last event, epoch ms (0: unknown). `target` float32
    [rows, size] is what the next item's distribution came from."""

    position: NetworkPosition
    at: Int64
    target: Float32 | None = None

    def __getitem__(self, rows: Int64) -> "SequencePosition":
        return SequencePosition(self.position.take(rows), self.at[rows])


class SequenceSynthesizer(StepwiseSynthesizer):
    """A generator around a `SequenceNetwork`, which a `StepRunner` runs: Keras after a fit, ONNX Runtime live.

    The hour and the weekday of an event come from its time; other parts of a `context` (device, store) are in no
    training data and change nothing. `elsewhere` counts as far as its items are in the vocabulary.
    """

    supports: ClassVar[frozenset[ConditionName]] = frozenset(CONDITION_NAMES)
    profiles_first = True

    def __init__(self, params: msgspec.Struct | None = None, context: SynthesizerContext | None = None) -> None:
        super().__init__(params, context)
        self.reader = ConditionReader(Vocabulary.from_items([]), np.zeros(2, np.int32), (), ProfileSchema())
        self.figures: dict[str, float] = {}
        self._runner: StepRunner | None = None
        self._network: SequenceNetwork | None = None

    @property
    def runner(self) -> StepRunner:
        """What runs the network.

        Raises:
            ValueError: there is none yet.
        """
        if self._runner is None:
            raise ValueError(f"{self.name} is not fitted; call fit(interactions), or load one that was saved")
        return self._runner

    def fit(self, interactions: Interactions, progress: Progress = no_progress) -> None:
        self._learn_catalogue(interactions)
        from models.synthesizers.neural.fitting import fit_network  # Keras takes seconds to import

        fitted = fit_network(self.plan(), interactions, self.context, progress)
        self._network, self._runner, self.figures = fitted

    def prepare(self, interactions: Interactions) -> "NetworkFit":
        """A network of its own with what it is to be trained on, by whoever called this.

        Raises:
            SynthesisError: there is nothing to learn from.
        """
        self._learn_catalogue(interactions)
        from models.synthesizers.neural.fitting import prepare_fit

        fit = prepare_fit(self.plan(), interactions, self.context.seed)
        self._network, self._runner = fit.network, fit.runner
        return fit

    def _learn_catalogue(self, interactions: Interactions) -> None:
        require_events(interactions, self.name)
        self.vocabulary = interactions.vocabulary
        self.details.fit(interactions)
        self.reader = ConditionReader.fit(interactions)

    def expected(self, conditions: Sequence[Conditions], steps: int = 1, seed: int = 0) -> Float32:
        """See `Synthesizer.expected`; two and three steps ahead by enumeration of the most probable events between."""
        if abs(steps) not in ENUMERATED:
            return super().expected(conditions, steps, seed)
        turned = conditions_for_step(conditions, steps)
        check_conditions(turned, self.supports, self.name)
        return expected_after(self, turned, abs(steps) - 1, backward=steps < 0)

    def begin(self, drawing: DrawingState) -> SequencePosition:
        position = self.runner.encode(self.inputs_of(drawing))
        at = drawing.times[:, -1] if drawing.times.shape[1] else np.zeros(len(drawing.conditions), np.int64)
        return SequencePosition(position, at)

    def inputs_of(self, drawing: DrawingState) -> dict[str, AnyArray]:
        """What the network reads of known events and conditions."""
        return self.reader.read(drawing, self.params.window)

    def item_probabilities(self, state: SequencePosition, drawing: DrawingState) -> Float32:
        at = (
            drawing.at
            if drawing.streams is not None
            else np.array([condition.at for condition in drawing.conditions], np.int64)
        )
        moment = time_features(at)
        state.target = self.runner.target(state.position, gap_code(at, state.at), moment[:, 0], moment[:, 1])
        return self.runner.output.items(state.target)

    def advance(self, state: SequencePosition, items: Int32, at: Int64, kinds: Int32) -> SequencePosition:
        known = items >= 0
        numbers, codes = np.where(known, items + 1, 0).astype(np.int32), np.where(known, kinds + 1, 0).astype(np.int32)
        after = self.runner.advance(state.position, numbers, codes, gap_code(at, state.at))
        return SequencePosition(kept_where(known, after, state.position), np.where(known, at, state.at))

    @property
    def network(self) -> "SequenceNetwork":
        """The network, where Keras runs it.

        Raises:
            ValueError: there is none.
        """
        if self._network is None:
            raise ValueError(f"{self.name} has no network here; call fit(interactions), or load what `save` wrote")
        return self._network

    def write_onnx(self, folder: Path) -> list[str]:
        """Write what `load_onnx` needs to generate without Keras; the file names.

        Raises:
            TrainingError: the graphs cannot be written.
        """
        from models.synthesizers.neural.export import write_graphs  # Keras and ONNX take seconds to import

        output = {f"output-{name}": array for name, array in msgspec.structs.asdict(self.runner.output).items()}
        state = {"params": self.describe(), "item_ids": self.vocabulary.item_ids}
        (folder / STATE).write_bytes(msgspec.json.encode(state))
        names = write_arrays(folder, "", {**self.arrays_without_weights(), **output})
        return [STATE, *names, *write_graphs(self, self.network, self.reader, folder)]

    @classmethod
    def load_onnx(cls, folder: Path) -> Self:
        """A generator that ONNX Runtime runs, from what `write_onnx` wrote. It has no `log_prob`, and cannot be saved.

        Raises:
            SynthesisError: a file is missing or cannot be read.
        """
        try:
            state = msgspec.json.decode((folder / STATE).read_bytes())
            arrays = {path.stem: np.load(path, allow_pickle=False) for path in folder.glob("*.npy")}
            synthesizer = cls(checked(cls.Params, state["params"], cls.name))
            synthesizer.vocabulary = Vocabulary.from_items(state["item_ids"])
            synthesizer.restore_without_weights(arrays)
            output = OutputWeights(*(arrays[f"output-{name}"] for name in OutputWeights.__struct_fields__))
        except (OSError, KeyError, ValueError) as error:
            raise SynthesisError(f"{folder} has no complete generator ({error!r}); write it with write_onnx") from error
        synthesizer._runner = OnnxRunner(folder, output)
        return synthesizer

    def arrays(self) -> dict[str, AnyArray]:
        weights = {f"weight-{number:03d}": np.array(each) for number, each in enumerate(self.network.get_weights())}
        return {**weights, **self.arrays_without_weights()}

    def arrays_without_weights(self) -> dict[str, AnyArray]:
        """What is needed besides the network."""
        details = {f"details-{name}": array for name, array in self.details.arrays().items()}
        return {**self.reader.arrays(), **details}

    def restore(self, arrays: Mapping[str, Any]) -> None:
        self.restore_without_weights(arrays)
        self.restore_network([arrays[name] for name in sorted(arrays) if name.startswith("weight-")])

    def restore_without_weights(self, arrays: Mapping[str, Any]) -> None:
        """Take back what `arrays_without_weights` returned."""
        self.reader = ConditionReader.from_arrays(self.vocabulary, arrays)
        details = {name.removeprefix("details-"): array for name, array in arrays.items()}
        self.details = EventDetails.from_arrays(details)

    def restore_network(self, weights: Sequence[AnyArray]) -> None:
        """Build the network and give it these weights."""
        from models.synthesizers.neural.fitting import network_of

        self._network = network_of(self.plan())
        self._network.set_weights(weights)
        self._runner = self.classes()[1](self._network)

    def plan(self) -> "NetworkPlan":
        """What its network is built from."""
        from models.synthesizers.neural.fitting import NetworkPlan

        params, classes = self.params, self.classes()
        return NetworkPlan(*classes, params, self.reader, self.log_kinds(), self.latent_units)

    @classmethod
    @abstractmethod
    def classes(cls) -> tuple[Any, Any]:
        """The classes of its network and of what runs it in Keras, which take seconds to import."""

    @property
    def latent_units(self) -> int:
        """Units of the latent vector behind a history."""
        return 0

    def log_prob(self, histories: Histories) -> Float64:
        """See `Synthesizer.log_prob`; the times of events before each item count as known, its own does not."""
        runner = self.classes()[1](self.network)
        stretches = scoring_stretches(histories.starts, self.params.window)
        logs = runner.log_likelihoods(self.reader.data_of(histories), stretches, backward=False)
        users = np.searchsorted(histories.starts, stretches.first, side="right") - 1
        sums: Float64 = np.bincount(users, logs, minlength=len(histories)).astype(np.float64)
        return sums

    def log_kinds(self) -> Float32:
        """float32 [items + 2, kinds]: logs of each item's shares of kinds, by number; even for padding and start."""
        shares = np.full((len(self.vocabulary) + 2, len(KINDS)), 1 / len(KINDS), np.float32)
        shares[1:-1] = self.details.item_kinds
        return np.log(np.maximum(shares, 1e-6)).astype(np.float32)
