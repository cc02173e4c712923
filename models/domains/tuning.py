"""Presets: parameters that a study found, in a TOML file that people can read and change."""

import fcntl
import json
import math
import os
import re
import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec

from models.errors import ModelError
from models.recommenders.registry import CANDIDATES

HEAD: Final = "# Parameters that coldstream tune found. A training run begins with them: setting `preset`.\n\n"
TABLE: Final = re.compile(r"(?m)^(?=\[)")
NONE: Final = "none"
"""How a parameter that is None is written: TOML has no word for it."""


class PresetError(ModelError):
    """A preset that cannot be read, or that names what there is not."""


class TunedParams(msgspec.Struct, frozen=True):
    """What a study found for one recommender: NDCG@10 on its tuning cases, under `protocol`, on `source`."""

    params: dict[str, Any]
    ndcg: float = 0.0
    trials: int = 0
    study: str = ""
    source: str = ""
    protocol: str = ""


class TunedPreset(msgspec.Struct, frozen=True):
    """Parameters by recommender; a training run's first trial takes them in place of the defaults."""

    recommenders: dict[str, TunedParams] = {}

    def params(self) -> dict[str, dict[str, Any]]:
        return {name: one.params for name, one in self.recommenders.items()}


def read(path: Path) -> TunedPreset:
    """A preset from its file.

    Raises:
        PresetError: no such file, no TOML, or a recommender or a parameter that there is not.
    """
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
        preset = msgspec.convert(raw, TunedPreset)
    except OSError as error:
        raise PresetError(f"preset {path}: {error.strerror}; coldstream tune --preset FILE writes one") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise PresetError(f"preset {path}: {error}") from error
    return TunedPreset(recommenders_of(path, preset.recommenders))


def recommenders_of(path: Path, found: dict[str, TunedParams]) -> dict[str, TunedParams]:
    """What a file says of recommenders, "none" read as None.

    Raises:
        PresetError: a recommender that there is not.
    """
    for name in found:
        if name not in CANDIDATES:
            raise PresetError(f"preset {path}: no recommender is called {name!r}; there are {', '.join(CANDIDATES)}")
    return {
        name: msgspec.structs.replace(one, params={key: _read(value) for key, value in one.params.items()})
        for name, one in found.items()
    }


def put(path: Path, name: str, tuning: TunedParams) -> TunedPreset:
    """Write one recommender's tuning into a preset file, new or not; everything else stays as it is written.

    The file is always whole, also where several processes write into it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        return _put(path, name, tuning)
    finally:
        os.close(folder)


def _put(path: Path, name: str, tuning: TunedParams) -> TunedPreset:
    preset = read(path) if path.exists() else TunedPreset()
    before, *tables = TABLE.split(path.read_text("utf-8")) if path.exists() else [HEAD]
    others = [one for one in tables if _owner(one) != name]
    place = next((number for number, one in enumerate(others) if _owner(one) > name), len(others))
    mine = f"{_toml(name, tuning)}\n" + ("\n" if place < len(others) else "")
    ahead = "".join([before, *others[:place]]).rstrip("\n") + "\n\n"
    aside = path.with_name(f".{path.name}.aside")
    with aside.open("w", encoding="utf-8") as file:
        file.write(ahead + mine + "".join(others[place:]))
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    return TunedPreset({**preset.recommenders, name: tuning})


def _owner(table: str) -> str:
    """The recommender that a table is of ([recommenders.NAME], [recommenders.NAME.params]); empty for any other."""
    title = table.partition("]")[0]
    return title.removeprefix("[recommenders.").removesuffix(".params") if title.startswith("[recommenders.") else ""


def _toml(name: str, tuning: TunedParams) -> str:
    facts = {key: value for key, value in msgspec.structs.asdict(tuning).items() if key != "params"}
    lines = [f"[recommenders.{name}]", *(f"{key} = {_written(value)}" for key, value in facts.items())]
    lines += [f"[recommenders.{name}.params]"]
    return "\n".join([*lines, *(f"{key} = {_written(value)}" for key, value in sorted(tuning.params.items()))])


def _written(value: Any) -> str:
    if value is None:
        return f'"{NONE}"'
    if isinstance(value, float) and not math.isfinite(value):
        raise PresetError(f"{value} is no parameter")
    return json.dumps(value)


def _read(value: Any) -> Any:
    return None if value == NONE else value
