"""What cleaning reports: where every line of every file went, table by table, as text and as data."""

from collections.abc import Mapping
from typing import Final

import msgspec

from stream.errors import SourceError

UNPARSEABLE: Final = "unparseable"
EVENTS: Final = "events"


class RejectedRow(msgspec.Struct, frozen=True):
    """A row that cannot be read. `line` counts from 1, the header included; of a Parquet file it is the row.

    `fault` is the reason in general, `reason` with what the row holds.
    """

    file: str
    line: int
    reason: str
    row: dict[str, str | None]
    fault: str


class CleaningStep(msgspec.Struct, frozen=True):
    """One step of the cleaning and the number of rows that it took out."""

    name: str
    removed: int


class FileCount(msgspec.Struct, frozen=True):
    """A file's lines: `lines` = `skipped` + `header` + `blank` + `continued` + `rows`.

    Of Parquet, `lines` are its rows. `continued` lines go on with a quoted value of the line before; `skipped` ones
    stand above the header.
    """

    file: str
    lines: int
    rows: int
    header: int = 0
    blank: int = 0
    continued: int = 0
    skipped: int = 0

    @property
    def outside_rows(self) -> int:
        """Lines that hold no row and begin none."""
        return self.skipped + self.header + self.blank + self.continued


class TableReport(msgspec.Struct, frozen=True):
    """One table, such as events or items: `read` = the sum of what the steps removed + `kept`.

    `faults` tells the unparseable rows apart; `left_out` counts optional values that could not be read, by field: their
    rows are kept without them.
    """

    table: str
    files: list[FileCount]
    read: int
    steps: list[CleaningStep]
    kept: int
    faults: dict[str, int] = {}
    left_out: dict[str, int] = {}

    def removed(self, name: str) -> int:
        """Rows that the step of that name took out; 0 where it did not run."""
        return sum(step.removed for step in self.steps if step.name == name)

    def lines(self) -> list[tuple[str, int]]:
        """Labels and numbers of the table's text."""
        rows = [
            (f"{file.file}: lines" if file.lines != file.rows else f"{file.file}: rows", file.lines)
            for file in self.files[:3]
        ]
        if len(self.files) > 3:
            rows = [(f"{len(self.files)} files: lines", sum(file.lines for file in self.files))]
        for part in _PARTS:
            lines = sum(getattr(file, part) for file in self.files)
            rows += [(f"  - {_PARTS[part]}", -lines)] if lines else []
        rows.append(("rows read" if self.table == EVENTS else f"rows read ({self.table})", self.read))
        for step in self.steps:
            if not step.removed and self.table != EVENTS:
                continue
            rows.append((f"  - {step.name}", -step.removed))
            if step.name == UNPARSEABLE:
                rows += [(f"      {fault}", -number) for fault, number in _largest(self.faults)]
        rows.append((f"{self.table} kept", self.kept))
        return rows + [(f"  {field} left out", number) for field, number in self.left_out.items()]

    def check(self) -> None:
        """Hold the figures against each other.

        Raises:
            SourceError: they do not add up.
        """
        for file in self.files:
            if file.lines != file.outside_rows + file.rows:
                raise SourceError(f"{file.file}: of {file.lines:,} lines, {file.rows:,} rows were read: {_DEFECT}")
        rows, removed = sum(file.rows for file in self.files), sum(step.removed for step in self.steps)
        if rows != self.read or self.read != removed + self.kept:
            raise SourceError(
                f"{self.table}: {rows:,} rows of files, {self.read:,} read, {removed:,} taken out, "
                f"{self.kept:,} kept: {_DEFECT}"
            )


class CleaningReport(msgspec.Struct, frozen=True):
    """What was read, taken out and kept. `read`, `steps` and `kept` are those of the events; `tables` has every table.

    `notes` say what was assumed.
    """

    source: str
    read: int
    steps: list[CleaningStep]
    kept: int
    notes: list[str]
    examples: list[RejectedRow]
    tables: list[TableReport]
    rejects_file: str | None = None

    def removed(self, name: str) -> int:
        """Rows of events that the step of that name took out; 0 where it did not run."""
        return sum(step.removed for step in self.steps if step.name == name)

    def of(self, table: str) -> TableReport:
        """The report on a table. Raises KeyError where no file of it was read."""
        return {report.table: report for report in self.tables}[table]

    def table(self) -> str:
        """The report as text, a line a step."""
        rows = [row for table in self.tables for row in table.lines()]
        width = max((len(label) for label, _ in rows), default=0)
        lines = [f"{label:<{width}}  {number:>13,}" for label, number in rows]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"rejected: {row.file} line {row.line}: {row.reason}" for row in self.examples]
        if self.rejects_file is not None:
            lines.append(f"every rejected row: {self.rejects_file}")
        return "\n".join(lines)


_PARTS: Final = {
    "skipped": "skipped (--skip-lines)",
    "header": "header",
    "blank": "empty lines",
    "continued": "lines within quoted values",
}
_DEFECT: Final = "these figures do not add up, so nothing is imported; please report this file's form as a defect"


def _largest(faults: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(faults.items(), key=lambda entry: -entry[1])
