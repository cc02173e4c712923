"""What a recommender is: a scorer that serving needs, and what training needs beyond it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import numpy as np

from models.arrays import AnyArray, Float32, Int32, Int64
from models.data.batch import Batch
from models.data.interactions import Interactions
from models.data.vocabulary import Vocabulary
from models.errors import TrainingError

if TYPE_CHECKING:
    from optuna import Trial

    from models.recommenders.neural.warm_start import Start


class Scorer(ABC):
    """Scores every item of its vocabulary for histories: what serving needs."""

    name: str
    vocabulary: Vocabulary
    is_neural: ClassVar[bool] = False
    """Whether it is a neural network: refits leave it as it is."""
    is_personalized: ClassVar[bool] = True
    """Whether scores depend on the history."""
    reads_imagined_events: ClassVar[bool] = False
    """Whether it takes events that the user did not take, each with a weight (`Batch.imagined`)."""
    follows_stream: ClassVar[bool] = False
    """Whether it reads what happened until the moment of the request: evaluations fit it on later events too."""

    @abstractmethod
    def score(self, batch: Batch) -> Float32:
        """float32 [batch, items]: higher is better; finite; an empty history gets the order of popularity."""

    def probabilities(self, batch: Batch) -> Float32:
        """float32 [batch, items]: scores as shares that sum to one, in the same order, so that they can be blended."""
        return shares(self.score(batch))

    def add(self, out: Float32, batch: Batch, weights: Float32) -> None:
        """Add in place to `out` float32 [batch, items] the probabilities times `weights` float32 [batch]."""
        out += weights[:, None] * self.probabilities(batch)

    def contributions(self, batch: Batch, items: Int64) -> Float32 | None:  # noqa: ARG002 - for those that have them
        """float32 [items, length]: what each event of one history adds to the scores of `items` int64 [items].

        `batch` holds the one history. None where scores are no sum over events, as those of encoders.
        """
        return None

    def score_sum(self, batch: Batch) -> float:
        """The sum that turns the scores of the one history in `batch` into shares."""
        return float(np.maximum(self.score(batch)[0], 0.0).sum())

    @property
    def members(self) -> "Sequence[Scorer]":
        """The scorers that a blend combines; any other scorer alone."""
        return [self]

    @property
    def sparse(self) -> "SparseScores | None":
        """The scorer itself where its scores are a prior plus what the history adds to a few items."""
        return None

    @property
    def scores_are_logits(self) -> bool:
        """Whether scores are logarithms of shares, up to a constant: a factor on shares is then a summand."""
        return False

    @property
    def value_model(self) -> "ValueModel | None":
        """What predicts values of events (stars, seconds, a price); None where no values were learned."""
        return None

    @property
    def reads_profiles(self) -> bool:
        """Whether users' profiles change the scores."""
        return False

    @property
    def reads_time(self) -> bool:
        """Whether the time of the request changes the scores."""
        return False

    @property
    def answers_empty_histories(self) -> bool:
        """Whether an empty history gets more than the order of popularity: what new users take, or the profile."""
        return False

    def refit(self, interactions: Interactions) -> None:  # noqa: B027 - what cannot be fitted stays as it is
        """Learn from other interactions, which takes seconds. Neural networks stay as they are."""


class SparseScores(Scorer):
    """A scorer whose scores are `prior` float32 [items] plus what the history's events add to a few items."""

    prior: Float32

    @property
    def sparse(self) -> "SparseScores":
        return self

    @abstractmethod
    def add_event_scores(self, out: Float32, batch: Batch, weights: Float32) -> Float32:
        """Add in place to `out` [batch, items] the probabilities times `weights` [batch], without the prior's part.

        Returns:
            float32 [batch]: the factor of `prior` that is still to be added to each row. Scorers with the same prior
            add it together.
        """


class ValueModel(Scorer):
    """A scorer that also predicts the value of the next event."""

    @abstractmethod
    def values(self, batch: Batch) -> Float32:
        """float32 [batch, items]: the value that the next event would have, in the unit of the most common value kind.

        Raises:
            ValueError: no values were learned.
        """


class TuningContext(msgspec.Struct, frozen=True):
    """What parameters depend on besides tuning.

    `repeats`: whether items of the history may be recommended. `baskets`: whether events of one time are unordered.
    `days`: span of the events. `length`: events of a history. `items`: size of the vocabulary. `profiles`: whether
    users' profiles are available. `item_text`: whether items have titles or categories.
    """

    repeats: bool = False
    baskets: bool = True
    days: float = 365.0
    length: int = 50
    items: int = 0
    profiles: bool = False
    item_text: bool = False


class StoredRecommender(msgspec.Struct, frozen=True):
    """A recommender as a release stores it: its parameters, and its arrays by file name without prefix and ending.

    `load` loads a part of it: a member of a blend.
    """

    params: Mapping[str, Any]
    vocabulary: Vocabulary
    arrays: Mapping[str, Any]
    load: "Callable[[StoredRecommender], Scorer]"

    def part(self, params: Mapping[str, Any]) -> Scorer:
        """A part whose files begin with its own name."""
        prefix = f"{params['recommender']}."
        arrays = {name.removeprefix(prefix): array for name, array in self.arrays.items() if name.startswith(prefix)}
        return self.load(StoredRecommender(params, self.vocabulary, arrays, self.load))


class RecommenderSpec(ABC):
    """What the registry asks of a recommender: how it is created and tuned."""

    is_neural: ClassVar[bool] = False
    """Whether it is trained by epochs, and can start from the weights of an earlier one."""
    needs_repeats: ClassVar[bool] = False
    """Whether it is useless where past items are never recommended again."""
    needs_item_text: ClassVar[bool] = False
    """Whether it is useless where items have neither titles nor categories."""
    follows_stream: ClassVar[bool] = False
    """Whether it reads what happened until the moment of the request: evaluations fit it on later events too."""
    derived: ClassVar[frozenset[str]] = frozenset({"seed"})
    """Parameters that the run or its context sets, not tuning."""

    @classmethod
    @abstractmethod
    def create(cls, params: Mapping[str, Any], context: TuningContext, seed: int = 0) -> "Recommender":
        """An unfitted recommender; parameters that are not given have their defaults.

        Raises:
            TrainingError: there is no such parameter, or a value is out of bounds.
        """

    @classmethod
    def useful(cls, context: TuningContext) -> bool:
        """Whether it can say anything in a context."""
        return (context.repeats or not cls.needs_repeats) and (context.item_text or not cls.needs_item_text)

    @classmethod
    def space(cls, trial: "Trial", context: TuningContext) -> dict[str, Any]:  # noqa: ARG003 - for those that are tuned
        """Parameters of one trial of tuning; none where there is nothing to tune."""
        return {}

    @classmethod
    def space_id(cls, context: TuningContext) -> str:  # noqa: ARG003 - for those whose space depends on it
        """Distinguishes spaces: a study goes on only in the space that it began in."""
        return ""


class ReleasableSpec(RecommenderSpec):
    """How a recommender is created and tuned, and loaded from a release."""

    @classmethod
    @abstractmethod
    def load(cls, stored: StoredRecommender) -> Scorer:
        """The scorer that a release stores.

        Raises:
            KeyError: a parameter or an array is missing.
            ValueError: parameters or arrays do not fit.
        """


class Recommender(Scorer):
    """A scorer that is fitted on interactions and saved into a release."""

    started_from: str | None = None
    """The release whose weights training started from."""

    @abstractmethod
    def fit(self, interactions: Interactions) -> None:
        """Learn from interactions."""

    def refit(self, interactions: Interactions) -> None:
        self.fit(interactions)

    @property
    def members(self) -> "Sequence[Recommender]":
        return [self]

    def weights_to_start_from(self, until: int) -> "Start | None":  # noqa: ARG002 - for neural networks
        """A network's weights for a later run, learned from what came before `until` (epoch ms); None: no network."""
        return None

    @abstractmethod
    def save(self, folder: Path, prefix: str = "") -> list[str]:
        """Write the recommender's files into `folder`, each name beginning with `prefix`; their names."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Parameters as JSON values: with the saved files all that `load` needs."""


class ArrayRecommender(Recommender, ReleasableSpec):
    """A recommender whose state is arrays: it serves as it was fitted. A subclass owns its `Params`."""

    Params: ClassVar[type[msgspec.Struct]]

    params: Any

    @abstractmethod
    def arrays(self) -> dict[str, AnyArray]:
        """What a release stores, by file name."""

    @abstractmethod
    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Take the state back from what `arrays` returned."""

    def save(self, folder: Path, prefix: str = "") -> list[str]:
        return write_arrays(folder, prefix, self.arrays())

    def describe(self) -> dict[str, Any]:
        return msgspec.structs.asdict(self.params)

    @classmethod
    def create(cls, params: Mapping[str, Any], context: TuningContext, seed: int = 0) -> Recommender:  # noqa: ARG003
        seeded = {"seed": seed} if "seed" in cls.Params.__struct_fields__ else {}
        return cls(checked(cls.Params, {**params, **seeded}, cls.name))  # type: ignore[call-arg]

    @classmethod
    def load(cls, stored: StoredRecommender) -> Scorer:
        params = {name: stored.params[name] for name in cls.Params.__struct_fields__}
        recommender = cls(msgspec.convert(params, cls.Params))  # type: ignore[call-arg]
        recommender.vocabulary = stored.vocabulary
        recommender.restore(stored.arrays)
        return recommender


def checked(params: type[msgspec.Struct], values: Mapping[str, Any], name: str) -> Any:
    """The `params` of recommender `name` from values by name.

    Raises:
        TrainingError: there is no such parameter, or a value is out of bounds.
    """
    unknown = sorted(set(values) - set(params.__struct_fields__))
    if unknown:
        known = ", ".join(params.__struct_fields__)
        raise TrainingError(f"{name} has no parameter {unknown[0]!r}; its parameters are {known}")
    try:
        return msgspec.convert(dict(values), params)
    except msgspec.ValidationError as error:
        raise TrainingError(f"{name}: {error}") from error


def shares(scores: Float32) -> Float32:
    """float32 [batch, items]: negative scores count as 0, and each row sums to one.

    >>> shares(np.array([[3.0, -1.0, 1.0]], np.float32)).tolist()
    [[0.75, 0.0, 0.25]]
    """
    positive = np.maximum(scores, 0.0)
    normalized: Float32 = positive / np.maximum(positive.sum(axis=1, keepdims=True), np.float32(1e-12))
    return normalized


def add_repeats(scores: Float32, items: Int32, repeats: Float32) -> None:
    """Add in place to `scores` float32 [batch, items] what items gain by being in the history.

    `items` int32 [batch, length]: item numbers, 0 for padding; `repeats` float32 [length]: the gain by the event's age.
    """
    rows, columns = np.nonzero(items)
    np.add.at(scores, (rows, items[rows, columns] - 1), repeats[items.shape[1] - 1 - columns])


def write_arrays(folder: Path, prefix: str, arrays: Mapping[str, AnyArray]) -> list[str]:
    """Write each array as `<prefix><name>.npy`; the file names."""
    for name, array in arrays.items():
        np.save(folder / f"{prefix}{name}.npy", array, allow_pickle=False)
    return [f"{prefix}{name}.npy" for name in arrays]
