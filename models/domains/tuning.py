"""Write the results of a hyperparameter search into a preset file; the rest of the file does not change."""

import json
import math
import re
from pathlib import Path
from typing import Any, Final

import msgspec

from models.domains.preset import NONE, DomainPreset, TunedParams, read_preset
from models.errors import PresetError
from stream.files import exclusive, write_atomically

HEADER: Final = "# Parameters found by coldstream tune. The setting `preset` makes training start from them.\n\n"
TABLE: Final = re.compile(r"(?m)^(?=\[)")


def put(path: Path, name: str, tuned: TunedParams) -> DomainPreset:
    """Write a recommender's parameters into a new or existing preset file; returns the preset.

    Writes are atomic, and several processes may write to the same file.

    Raises:
        PresetError: the file is not a preset, or a parameter cannot be written.
    """
    with exclusive(path.with_name(f".{path.name}.lock")):
        preset = read_preset(path) if path.exists() else DomainPreset()
        before, *tables = TABLE.split(path.read_text("utf-8")) if path.exists() else [HEADER]
        others = [table for table in tables if _recommender_of(table) != name]
        place = next((n for n, table in enumerate(others) if _recommender_of(table) > name), len(others))
        own = f"{_toml(name, tuned)}\n" + ("\n" if place < len(others) else "")
        ahead = "".join([before, *others[:place]]).rstrip("\n") + "\n\n"
        write_atomically(path, ahead + own + "".join(others[place:]))
    return msgspec.structs.replace(preset, recommenders={**preset.recommenders, name: tuned})


def _recommender_of(table: str) -> str:
    """The NAME of a table [recommenders.NAME] or [recommenders.NAME.params]; empty for any other table."""
    title = table.partition("]")[0]
    return title.removeprefix("[recommenders.").removesuffix(".params") if title.startswith("[recommenders.") else ""


def _toml(name: str, tuned: TunedParams) -> str:
    facts = {key: value for key, value in msgspec.structs.asdict(tuned).items() if key != "params"}
    lines = [f"[recommenders.{name}]", *(f"{key} = {_toml_value(value)}" for key, value in facts.items())]
    lines += [f"[recommenders.{name}.params]"]
    return "\n".join([*lines, *(f"{key} = {_toml_value(value)}" for key, value in sorted(tuned.params.items()))])


def _toml_value(value: Any) -> str:
    if value is None:
        return f'"{NONE}"'
    if isinstance(value, float) and not math.isfinite(value):
        raise PresetError(f"{value} is not a parameter that a preset can hold")
    return json.dumps(value)
