"""Progress of long commands: a bar on a terminal, otherwise an occasional line."""

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

from models.evaluation.experiment import Progress as ReportStage

LINE_EVERY_S = 5.0


@contextmanager
def training() -> Iterator[ReportStage]:
    """A bar for each stage of a training run; the function it yields reports a stage's progress."""
    with _bars() as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: float, figures: dict[str, float]) -> None:
            note = " ".join(f"{name}={value:.4g}" for name, value in figures.items() if name in {"loss", "ndcg@10"})
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=100, note="")
            bars.update(tasks[stage], completed=round(100 * done), note=note)

        yield report


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int | None, str], None]]:
    """A bar that counts; the function it yields takes the number done, the total if known, and a note."""
    with _bars() as bars:
        task = bars.add_task(what, total=None, note="")
        reported = time.monotonic()

        def report(done: int, total: int | None, note: str) -> None:
            nonlocal reported
            bars.update(task, completed=done, total=total, note=note)
            if not sys.stderr.isatty() and time.monotonic() - reported > LINE_EVERY_S:
                reported = time.monotonic()
                sys.stderr.write(f"{what}: {done:,}{f' of {total:,}' if total else ''} {note}\n")

        yield report


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
