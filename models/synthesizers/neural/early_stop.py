"""Training in epochs until a score no longer rises: the best weights are kept, and a killed training resumes."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
from keras import ops

from models.arrays import AnyArray
from models.synthesizers.base import Progress
from stream.files import replacing


class BestWeights(msgspec.Struct):
    """Epochs done, the best score so far with the weights that reached it, and the epochs since."""

    epochs: int = 0
    best: float = -np.inf
    waited: int = 0
    weights: dict[str, AnyArray] = {}

    def record(self, score: float, weights: Mapping[str, AnyArray]) -> None:
        """Take an epoch's score and weights."""
        self.epochs, self.waited = self.epochs + 1, self.waited + 1
        if score > self.best or not self.weights:
            self.best, self.waited, self.weights = score, 0, dict(weights)


class TrainedPart(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a model that is trained in epochs.

    `epoch`: trains one more and returns its figures. `score` of the figures: higher is better. `arrays`: the weights.
    `variables`: all that training changes, the optimizer's too. `rng`: what an epoch draws from.
    """

    name: str
    epoch: Callable[[int], dict[str, float]]
    score: Callable[[Mapping[str, float]], float]
    arrays: Callable[[], dict[str, AnyArray]]
    variables: Sequence[keras.Variable]
    rng: np.random.Generator
    most: int
    patience: int


class PartClock:
    """The seconds that a fit of several parts has taken, of those it may take (None: any), and its progress."""

    def __init__(self, most: float | None, progress: Progress) -> None:
        self.most, self.progress, self.began = most, progress, time.monotonic()
        self.first, self.last = 0.0, 1.0

    def start_part(self, first: float, last: float) -> None:
        """The part that begins takes the fit from one share of its time to another."""
        self.first, self.last = first, last

    def resume(self, seconds: float) -> None:
        """The fit was killed after so many seconds."""
        self.began = time.monotonic() - seconds

    @property
    def seconds(self) -> float:
        """Since the fit began, with the time before it was resumed."""
        return time.monotonic() - self.began

    @property
    def over(self) -> bool:
        """Whether the part's time is used up."""
        return self.most is not None and self.seconds > self.last * self.most

    def report(self, share: float, figures: Mapping[str, float]) -> None:
        """Report that a share of the part is done."""
        self.progress(min(1.0, self.first + (self.last - self.first) * share), figures)


class PartCheckpoints(msgspec.Struct, frozen=True):
    """Files `<part>.npz` in a folder; those of other data or parameters (`digest`) are not read."""

    folder: Path
    digest: str

    def write(
        self, part: TrainedPart, state: BestWeights, curve: Sequence[Mapping[str, float]], seconds: float
    ) -> None:
        """Replace the part's file by its state, the figures of its epochs and the seconds since the fit began."""
        about: dict[str, Any] = {"epochs": state.epochs, "best": state.best, "waited": state.waited, "seconds": seconds}
        about |= {"digest": self.digest, "curve": list(curve), "rng": part.rng.bit_generator.state}
        arrays = {f"best-{name}": array for name, array in state.weights.items()}
        for number, variable in enumerate(part.variables):
            arrays[f"now-{number:04d}"] = np.array(ops.convert_to_numpy(variable.value))
        with replacing(self.folder / f"{part.name}.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)

    def read(self, part: TrainedPart, state: BestWeights, curve: list[dict[str, float]]) -> float | None:
        """Take state, curve, variables and random numbers back; the seconds that the fit had taken, None: no file."""
        path = self.folder / f"{part.name}.npz"
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as kept:
            about: dict[str, Any] = json.loads(str(kept["about"]))
            if about["digest"] != self.digest:
                return None
            state.weights = {name.removeprefix("best-"): kept[name] for name in kept.files if name.startswith("best-")}
            for number, variable in enumerate(part.variables):
                variable.assign(kept[f"now-{number:04d}"])
        state.epochs, state.best, state.waited = about["epochs"], about["best"], about["waited"]
        part.rng.bit_generator.state = about["rng"]
        curve[:] = about["curve"]
        return float(about["seconds"])


def train_part(
    part: TrainedPart,
    curve: list[dict[str, float]],
    clock: "PartClock",
    checkpoints: PartCheckpoints | None = None,
) -> dict[str, AnyArray]:
    """Train at least one epoch, until `score` has not risen for `patience` epochs; the best weights.

    `curve` gets the figures of each epoch.
    """
    state = BestWeights()
    before = checkpoints.read(part, state, curve) if checkpoints is not None else None
    if before is not None:
        clock.resume(before)
    while not state.epochs or (state.epochs < part.most and state.waited < part.patience and not clock.over):
        figures = part.epoch(state.epochs)
        curve.append(figures)
        state.record(part.score(figures), part.arrays())
        if checkpoints is not None:
            checkpoints.write(part, state, curve, clock.seconds)
        clock.report(state.epochs / part.most, figures)
    return state.weights
