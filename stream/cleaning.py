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

from stream.cleaning_report import (
    EVENTS,
    UNPARSEABLE,
    CleaningReport,
    CleaningStep,
    FileCount,
    RejectedRow,
    TableReport,
)
from stream.errors import SourceError
from stream.files import replacing

LINE: Final = "line_number"
EXAMPLES: Final = 5
MAX_SHOWN: Final = 500

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


class Cleaner:
    """Takes rows out of frames, and counts. One for each opening of a source, with one of its own for each table."""

    def __init__(self, source: str, cleaning: CleaningOptions, table: str = EVENTS) -> None:
        self.source = source
        self.cleaning = cleaning
        self.now_ms = cleaning.now_ms if cleaning.now_ms is not None else int(time.time() * 1000)
        self._table = table
        self._files: list[FileCount] = []
        self._steps: dict[str, int] = {}
        self._faults: dict[str, int] = {}
        self._left_out: dict[str, int] = {}
        self._kept = 0
        self._notes: list[str] = []
        self._rejects: list[RejectedRow] = []
        self._others: dict[str, Cleaner] = {}

    def of(self, table: str) -> "Cleaner":
        """The cleaner of another table of the same source, such as items; notes and rejected rows are shared."""
        if table not in self._others:
            other = self._others[table] = Cleaner(self.source, self.cleaning, table)
            other.now_ms, other._notes, other._rejects = self.now_ms, self._notes, self._rejects
        return self._others[table]

    def note(self, text: str) -> None:
        """Say something in the report, once."""
        if text not in self._notes:
            self._notes.append(text)

    def count(self, file: FileCount) -> None:
        """Count a file's lines and rows."""
        self._files.append(file)

    def remove(self, step: str, rows: int) -> None:
        """Count rows that `step` took out."""
        self._steps[step] = self._steps.get(step, 0) + rows

    def leave_out(self, field: str, rows: int, example: str) -> None:
        """Count rows that are kept without an optional field; `example` says where and why."""
        if rows:
            self._left_out[field] = self._left_out.get(field, 0) + rows
            self.note(f"{self._table} without {field}, which could not be read: {rows:,}; the first: {example}")

    def keep(self, step: str, frame: pl.DataFrame, kept: pl.Expr | pl.Series) -> pl.DataFrame:
        """The rows of `frame` for which `kept` holds; the others are counted under `step`."""
        after = frame.filter(kept)
        self.remove(step, frame.height - after.height)
        return after

    def close(self, kept: int) -> None:
        """Set how many rows of the table are left in the end."""
        self._kept = kept

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
        for row in rejected:
            self._faults[row.fault] = self._faults.get(row.fault, 0) + 1
        self._rejects += rejected

    def keep_parsed(self, file: str, raw: pl.DataFrame, typed: pl.DataFrame, faults: pl.DataFrame) -> pl.DataFrame:
        """The rows of `typed` that have no fault; the others are rejected with their `raw` row.

        `raw` (with the column `LINE`), `typed` and `faults` (columns fault and reason, null where the row is good) are
        of one height. Raises like `reject`.
        """
        bad = faults["fault"].is_not_null()
        if not bad.any():
            self.reject([])
            return typed
        rejected = raw.filter(bad)
        lines, rows = rejected[LINE].to_list(), rejected.drop(LINE).to_dicts()
        self.reject(
            [
                RejectedRow(file, line, reason, {name: _as_text(value) for name, value in row.items()}, fault)
                for line, row, (fault, reason) in zip(lines, rows, faults.filter(bad).iter_rows(), strict=True)
            ]
        )
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
        """The report, held against itself; the file of rejected rows is written where one was asked for.

        Raises:
            SourceError: rows were read and none is left, figures do not add up, or the file cannot be written.
        """
        self.close(kept)
        path = self.cleaning.rejects
        if path is not None:
            _write(path, self._rejects)
        read = [cleaner for cleaner in (self, *self._others.values()) if cleaner._files]
        for number, cleaner in enumerate(read):
            cleaner._check_rows(main=number == 0)
        tables = [cleaner._report() for cleaner in read]
        for table in tables:
            table.check()
        return CleaningReport(
            self.source,
            sum(file.rows for file in self._files),
            self._report().steps,
            kept,
            self._notes,
            self._rejects[:EXAMPLES],
            tables,
            str(path) if path is not None else None,
        )

    def _report(self) -> TableReport:
        steps = [CleaningStep(name, removed) for name, removed in self._steps.items()]
        read = sum(file.rows for file in self._files)
        return TableReport(self._table, self._files, read, steps, self._kept, self._faults, self._left_out)

    def _check_rows(self, *, main: bool) -> None:
        """Refuse a table of which no row is left; one beside the `main` table may have none from the start."""
        if self._kept:
            return
        if main or any(file.rows for file in self._files):
            source = self.source if main else self._files[0].file
            raise SourceError(f"{source}: {self._why_empty()}")
        self.note(f"{self._files[0].file}: there is no row below the header")

    def _why_empty(self) -> str:
        read = sum(file.rows for file in self._files)
        if not read:
            return f"there is no row below the header; give a file with {self._table}"
        steps = ", ".join(f"{name} {removed:,}" for name, removed in self._steps.items() if removed)
        files = {file.file for file in self._files}
        mine = [row for row in self._rejects if row.file in files][:1]
        first = "".join(f"; first rejected: {row.file} line {row.line}: {row.reason}" for row in mine)
        return f"none of {read:,} rows is left ({steps}){first}"


def _as_text(value: object) -> str | None:
    return None if value is None else str(value)[:MAX_SHOWN]


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
        writer.writerow(["file", "line", "fault", "reason", "row"])
        writer.writerows(
            [reject.file, reject.line, reject.fault, reject.reason, msgspec.json.encode(reject.row).decode()]
            for reject in rejects
        )
