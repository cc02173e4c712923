"""How files of events, items and users are read: everything that `import`, `evaluate` and `tune` let a user say."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from stream.cleaning import CleaningOptions
from stream.errors import SourceError
from stream.events import KINDS


class TableOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the files are written, and which column holds what.

    `columns` (field -> column) is used by every file that has the column; `item_columns` and `user_columns` hold for
    the files of items and users alone. Without a map, columns are guessed by common names. `kind` is the kind of every
    event whose file does not say it; `kinds` translates the file's names. `delimiter` and `encoding` are detected where
    they are None. `missing` lists texts that mean "nothing", beside the empty one.
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
