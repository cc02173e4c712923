"""How files of events, items and users are read: everything that `import`, `evaluate` and `tune` let a user say."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from stream.cleaning import CleaningOptions
from stream.errors import SourceError
from stream.events import KINDS

TABLES: Final = ("events", "items", "users")


class TableOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the files are written, and which column holds what.

    `columns` (field -> column) is used by every file that has the column; `item_columns` and `user_columns` hold for
    the files of items and users alone. Without a map, columns are guessed by common names. `kind` is the kind of every
    event whose file does not say it; `kinds` translates the file's names. `delimiter` and `encoding` are detected where
    they are None. `missing` lists texts that mean "nothing", beside the empty one. `skip_lines` (table -> lines) stand
    above the header.
    """

    columns: Mapping[str, str] = {}
    item_columns: Mapping[str, str] = {}
    user_columns: Mapping[str, str] = {}
    items: Path | None = None
    users: Path | None = None
    kind: str | None = None
    kinds: Mapping[str, str] = {}
    delimiter: str | None = None
    encoding: str | None = None
    quotes: bool = True
    time_format: str | None = None
    missing: tuple[str, ...] = ()
    skip_lines: Mapping[str, int] = {}
    cleaning: CleaningOptions = CleaningOptions()

    def describe_file(self) -> bool:
        """Whether anything is said that only a file of one's own can follow."""
        return msgspec.structs.replace(self, cleaning=CleaningOptions()) != TableOptions()


def check_kinds(options: TableOptions) -> None:
    """Refuse kinds that do not exist.

    Raises:
        SourceError: `kind` or a target of `kinds` is not one of the schema's.
    """
    known = f"kinds are {', '.join(KINDS)}"
    if options.kind is not None and options.kind not in KINDS:
        raise SourceError(f"--kind {options.kind}: there is no such kind; {known}")
    for name, kind in options.kinds.items():
        if kind not in KINDS:
            raise SourceError(f"--kind-map {name}={kind}: there is no kind {kind!r}; {known}")


def parse_skips(text: str | None) -> dict[str, int]:
    """`3`, or `events=3,items=1`, as lines by table; the table "" is the first file that is read. None is empty.

    Raises:
        SourceError: it is neither.
    """
    skips: dict[str, int] = {}
    for part in filter(str.strip, (text or "").split(",")):
        table, _, lines = (piece.strip() for piece in part.rpartition("="))
        if not lines.isascii() or not lines.isdigit() or table not in {"", *TABLES}:
            raise SourceError(
                f"--skip-lines {text}: {part!r} is no number of lines; give one for the first file, such as 3, or one "
                "for each, such as events=3,items=1"
            )
        skips[table] = int(lines)
    return skips


def skips_of(options: TableOptions, tables: Sequence[str]) -> dict[str, int]:
    """How many lines to leave out of the file of each table. `tables` are those that are read, in their order.

    Raises:
        SourceError: a table has no file.
    """
    skips = {table or tables[0]: lines for table, lines in options.skip_lines.items()}
    absent = [table for table in skips if table not in tables]
    if absent:
        raise SourceError(f"--skip-lines {absent[0]}=...: there is no file of {absent[0]}; give it with --{absent[0]}")
    return skips
