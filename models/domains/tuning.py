"""Writes what a hyperparameter search found into a preset file; everything else in the file stays as it is written."""

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
    """Write one recommender's parameters into a preset file, new or not; returns the preset.

    The file is always whole, and several processes may write into it.

    Raises:
        PresetError: the file is no preset, or a parameter cannot be written.
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
