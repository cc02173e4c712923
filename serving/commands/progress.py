"""Progress bars for long commands: a bar where there is a terminal, a line now and then where there is none."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from models.training.train import Progress as Training

QUIET_S = 5.0


@contextmanager
def training() -> Iterator[Training]:
    """A bar per stage of a training run."""
    with _bars() as bars:
        tasks: dict[str, TaskID] = {}

        def tell(stage: str, done: float, figures: dict[str, float]) -> None:
            shown = " ".join(f"{name}={value:.4g}" for name, value in figures.items() if name in {"loss", "ndcg@10"})
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=100, note="")
            bars.update(tasks[stage], completed=round(100 * done), note=shown)

        yield tell


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int | None, str], None]]:
    """A bar over a number of things: call with how many are done, how many there are, and a note."""
    with _bars() as bars:
        task = bars.add_task(what, total=None, note="")
        said = time.monotonic()

        def tell(done: int, total: int | None, note: str) -> None:
            nonlocal said
            bars.update(task, completed=done, total=total, note=note)
            if not sys.stderr.isatty() and time.monotonic() - said > QUIET_S:
                said = time.monotonic()
                sys.stderr.write(f"{what}: {done:,}{f' of {total:,}' if total else ''} {note}\n")

        yield tell


def _bars() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
