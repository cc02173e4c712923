"""An experiment as units of work in a folder: each is computed once, and found again after a kill."""

import hashlib
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, Self, TypeVar

import msgspec
import pandas as pd

from models.experiments.errors import ExperimentError
from models.experiments.results import UnitResults
from stream.files import creating_folder, try_lock, write_atomically

PLAN: Final = "plan.json"
UNITS: Final = "units"
FORMAT: Final = 1
"""Raise it when the tables of a unit change: units of another format are computed again in another folder."""


class Results(Protocol):
    """What a unit of work results in."""

    def write(self, folder: Path) -> None:
        """Write the results into a folder; their lists are in `predictions.parquet`, where they are wanted."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """What `write` wrote, without predictions."""


R = TypeVar("R", bound=Results)


class Unit(msgspec.Struct, frozen=True):
    """What is computed in one go: a fold under a seed, and a scenario where an experiment has several."""

    fold: int
    seed: int
    scenario: str = ""

    @property
    def name(self) -> str:
        """The name of its folder."""
        scenario = re.sub(r"[^A-Za-z0-9=.-]+", "-", self.scenario)
        return f"seed-{self.seed}-fold-{self.fold}" + (f"-{scenario}" if scenario else "")


class RunPlan(msgspec.Struct, frozen=True):
    """What a folder holds the results of: the experiment, a fingerprint of its data, and its settings."""

    experiment: str
    data: str
    settings: dict[str, Any]
    format: int = FORMAT


def units_of(folds: int, seeds: int, scenarios: Sequence[str] = ("",)) -> list[Unit]:
    """Every unit, seed after seed and fold after fold: what a small budget reaches is whole folds of the first seed."""
    return [Unit(fold, seed, scenario) for seed in range(seeds) for fold in range(folds) for scenario in scenarios]


def fingerprint(*frames: pd.DataFrame) -> str:
    """A text that differs when any value or the order of rows differs."""
    digest = hashlib.blake2b(digest_size=16)
    for frame in frames:
        digest.update(str(list(frame.columns)).encode())
        digest.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    return digest.hexdigest()


class ExperimentRun:
    """The results of an experiment in a folder. A folder is of one plan; a plan is data, settings and format.

    Raises:
        ExperimentError: the folder has the results of another plan, or is no folder of results.
    """

    def __init__(self, folder: Path, plan: RunPlan, *, restart: bool = False) -> None:
        self.folder, self.plan = folder, plan
        if restart:
            shutil.rmtree(folder / UNITS, ignore_errors=True)
            (folder / PLAN).unlink(missing_ok=True)
        if (folder / PLAN).exists():
            self._check()
        else:
            write_atomically(folder / PLAN, msgspec.json.format(msgspec.json.encode(plan)) + b"\n")

    def compute(
        self,
        units: Sequence[Unit],
        results_of: Callable[[Unit], Results],
        *,
        minutes: float | None = None,
        progress: Callable[[int, int, str], None] = lambda _done, _of, _unit: None,
    ) -> list[Unit]:
        """Compute the units that are not there yet; those that are still missing when the `minutes` are over.

        No unit starts after the minutes; one that has begun is completed.

        Raises:
            ExperimentError: another process computes in this folder.
        """
        lock = try_lock(self.folder / "lock")
        if lock is None:
            raise ExperimentError(f"{self.folder}: another process runs this experiment; wait for it, or stop it")
        try:
            return self._compute(units, results_of, minutes, progress)
        finally:
            lock.release()

    def _compute(
        self,
        units: Sequence[Unit],
        results_of: Callable[[Unit], Results],
        minutes: float | None,
        progress: Callable[[int, int, str], None],
    ) -> list[Unit]:
        started, missing = time.monotonic(), []
        for number, unit in enumerate(units):
            progress(number, len(units), unit.name)
            if self.has(unit):
                continue
            if minutes is not None and time.monotonic() - started >= 60 * minutes:
                missing.append(unit)
                continue
            results = results_of(unit)
            with creating_folder(self._place(unit)) as folder:
                results.write(folder)
        progress(len(units), len(units), "")
        return missing

    def has(self, unit: Unit) -> bool:
        """Whether a unit's results are there."""
        return self._place(unit).is_dir()

    def read(self, units: Sequence[Unit]) -> Iterator[tuple[Unit, UnitResults]]:
        """The results of those units that are there, one after another."""
        return self.read_as(UnitResults, units)

    def read_as(self, results: type[R], units: Sequence[Unit]) -> Iterator[tuple[Unit, R]]:
        """The same for an experiment with results of its own."""
        return ((unit, results.read(self._place(unit))) for unit in units if self.has(unit))

    def export(self, units: Sequence[Unit], folder: Path) -> list[Path]:
        """Copy the predictions of the units into `folder`, one Parquet file each; their paths.

        Raises:
            ExperimentError: a unit was computed without predictions.
        """
        folder.mkdir(parents=True, exist_ok=True)
        copies = []
        for unit in (unit for unit in units if self.has(unit)):
            kept = self._place(unit) / "predictions.parquet"
            if not kept.exists():
                raise ExperimentError(f"{kept.parent}: has no predictions; run again with --restart and --predictions")
            copies.append(Path(shutil.copyfile(kept, folder / f"{unit.name}.parquet")))
        return copies

    def _place(self, unit: Unit) -> Path:
        return self.folder / UNITS / unit.name

    def _check(self) -> None:
        try:
            kept = msgspec.json.decode((self.folder / PLAN).read_bytes(), type=RunPlan)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise ExperimentError(f"{self.folder / PLAN}: is no plan of an experiment ({error}); {CURE}") from None
        planned = msgspec.json.decode(msgspec.json.encode(self.plan), type=RunPlan)
        differing = [name for name in ("experiment", "data", "format") if getattr(kept, name) != getattr(planned, name)]
        names = sorted({*kept.settings, *planned.settings})
        differing += [name for name in names if kept.settings.get(name) != planned.settings.get(name)]
        if differing:
            raise ExperimentError(
                f"{self.folder}: holds results of an experiment with another {', another '.join(differing)}; {CURE}"
            )


CURE: Final = "give another folder, or --restart to delete what it holds"
