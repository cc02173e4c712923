"""Cleaning on the way in: what was read, what each step took out and why, and what was kept. The figures add up.

Steps run in one order for every source: unparseable rows of the file, missing users, unparseable values, duplicates,
what a source itself takes out (cancellations), bots. A rejected row goes to a file with its line and the reason.
"""

import csv
import time
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from stream.errors import SourceError
from stream.files import replacing

LINE: Final = "line_number"
EXAMPLES: Final = 5

UNPARSEABLE: Final = "unparseable"
MISSING_USERS: Final = "missing users"
DUPLICATES: Final = "duplicates"
BOTS: Final = "bots"


class BotRule(msgspec.Struct, frozen=True):
    """A user with more than `events` events within `within_ms` is a bot; all of that user's events are left out."""

    events: int
    within_ms: int


class CleaningOptions(msgspec.Struct, frozen=True):
    """What is asked of the cleaning.

    `strict` stops at the first unparseable row. `rejects` is the file for unparseable rows: JSON lines, or CSV where
    it is named so. `bots` is off by default. `now_ms` (epoch ms) bounds times; the clock's by default.
    """

    strict: bool = False
    rejects: Path | None = None
    bots: BotRule | None = None
    now_ms: int | None = None


class RejectedRow(msgspec.Struct, frozen=True):
    """A row that cannot become an event. `line` counts from 1, the header included; of a Parquet file it is the row."""

    file: str
    line: int
    reason: str
    row: dict[str, str | None]


class CleaningStep(msgspec.Struct, frozen=True):
    """One step of the cleaning and the number of rows that it took out."""

    name: str
    removed: int


class CleaningReport(msgspec.Struct, frozen=True):
    """`read` = the sum of what the steps removed + `kept`. `notes` say what was assumed."""

    source: str
    read: int
    steps: list[CleaningStep]
    kept: int
    notes: list[str]
    examples: list[RejectedRow]
    rejects_file: str | None = None

    def removed(self, name: str) -> int:
        """Rows that the step of that name took out; 0 where it did not run."""
        return sum(step.removed for step in self.steps if step.name == name)

    def table(self) -> str:
        """The report as text, a line a step."""
        rows = [("rows read", self.read), *((f"  - {step.name}", -step.removed) for step in self.steps)]
        rows.append(("events kept", self.kept))
        width = max(len(label) for label, _ in rows)
        lines = [f"{label:<{width}}  {number:>13,}" for label, number in rows]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"rejected: {row.file} line {row.line}: {row.reason}" for row in self.examples]
        if self.rejects_file is not None:
            lines.append(f"every rejected row: {self.rejects_file}")
        return "\n".join(lines)


class Cleaner:
    """Takes rows out of frames, and counts. One for each opening of a source."""

    def __init__(self, source: str, cleaning: CleaningOptions, *, events_expected: bool = True) -> None:
        self.source = source
        self._events_expected = events_expected
        self.cleaning = cleaning
        self.now_ms = cleaning.now_ms if cleaning.now_ms is not None else int(time.time() * 1000)
        self._read = 0
        self._steps: dict[str, int] = {}
        self._notes: list[str] = []
        self._rejects: list[RejectedRow] = []

    @property
    def rejected(self) -> int:
        """Rows that were set aside so far."""
        return len(self._rejects)

    def note(self, text: str) -> None:
        """Say something in the report, once."""
        if text not in self._notes:
            self._notes.append(text)

    def read(self, rows: int) -> None:
        """Count rows that were found in a file."""
        self._read += rows

    def remove(self, step: str, rows: int) -> None:
        """Count rows that `step` took out."""
        self._steps[step] = self._steps.get(step, 0) + rows

    def keep(self, step: str, frame: pl.DataFrame, kept: pl.Expr) -> pl.DataFrame:
        """The rows of `frame` for which `kept` holds; the others are counted under `step`."""
        after = frame.filter(kept)
        self.remove(step, frame.height - after.height)
        return after

    def reject(self, rejected: list[RejectedRow]) -> None:
        """Set unparseable rows aside.

        Raises:
            SourceError: under `strict`, for the first of them.
        """
        if rejected and self.cleaning.strict:
            first = min(rejected, key=lambda row: row.line)
            raise SourceError(
                f"{first.file} line {first.line}: {first.reason}; row {_shown(first.row)} (--strict stops at the first "
                "unparseable row; without it such rows are set aside and counted)"
            )
        self.remove(UNPARSEABLE, len(rejected))
        self._rejects += rejected

    def keep_parsed(self, file: str, raw: pl.DataFrame, typed: pl.DataFrame, reasons: pl.Series) -> pl.DataFrame:
        """The rows of `typed` that have no reason against them; the others are rejected with their `raw` row.

        `raw` (with the column `line_number`), `typed` and `reasons` (String, null where the row is good) are of one
        height. Raises like `reject`.
        """
        bad = reasons.is_not_null()
        if not bad.any():
            self.reject([])
            return typed
        rejected = raw.filter(bad)
        lines = rejected[LINE].to_list()
        rows = rejected.drop(LINE).cast(pl.String, strict=False).to_dicts()
        self.reject([RejectedRow(file, *row) for row in zip(lines, reasons.filter(bad).to_list(), rows, strict=True)])
        return typed.filter(~bad)

    def keep_people(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Without the users who break the rate rule, where one is asked for. Wants columns user_id and at."""
        rule = self.cleaning.bots
        if rule is None:
            return frame
        ordered = frame.select("user_id", "at").sort("user_id", "at")
        burst = pl.col("at") - pl.col("at").shift(rule.events).over("user_id") <= rule.within_ms
        bots = ordered.filter(burst)["user_id"].unique()
        self.note(
            f"bots: {len(bots)} users with more than {rule.events} events within {rule.within_ms / 1000:g} s, left out"
        )
        return self.keep(BOTS, frame, ~pl.col("user_id").is_in(bots.implode()))

    def finish(self, kept: int) -> CleaningReport:
        """The report; the file of rejected rows is written where one was asked for.

        Raises:
            SourceError: rows were read and none is left, or the file cannot be written.
        """
        if not kept and self._events_expected:
            raise SourceError(f"{self.source}: {self._why_empty()}")
        path = self.cleaning.rejects
        if path is not None:
            _write(path, self._rejects)
        steps = [CleaningStep(name, removed) for name, removed in self._steps.items()]
        examples = self._rejects[:EXAMPLES]
        return CleaningReport(
            self.source, self._read, steps, kept, self._notes, examples, str(path) if path is not None else None
        )

    def _why_empty(self) -> str:
        if not self._read:
            return "there is no row below the header; give a file with events"
        steps = ", ".join(f"{name} {removed:,}" for name, removed in self._steps.items() if removed)
        first = f"; first rejected: {self._rejects[0].file} line {self._rejects[0].line}: {self._rejects[0].reason}"
        return f"none of {self._read:,} rows is left ({steps}){first if self._rejects else ''}"


def _shown(row: dict[str, str | None]) -> str:
    text = msgspec.json.encode(row).decode()
    return text if len(text) <= 300 else text[:300] + "..."


def _write(path: Path, rejects: list[RejectedRow]) -> None:
    try:
        with replacing(path) as temporary:
            if path.suffix == ".csv":
                _write_csv(temporary, rejects)
            else:
                temporary.write_bytes(b"".join(msgspec.json.encode(reject) + b"\n" for reject in rejects))
    except OSError as error:
        raise SourceError(f"{path}: rejected rows cannot be written: {error.strerror}; name another file") from None


def _write_csv(path: Path, rejects: list[RejectedRow]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "line", "reason", "row"])
        writer.writerows(
            [reject.file, reject.line, reject.reason, msgspec.json.encode(reject.row).decode()] for reject in rejects
        )
