"""Presets: parameters that a study found, in a TOML file that people can read and change."""

import json
import math
import os
import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec

from models.errors import ModelError
from models.recommenders.candidates import CANDIDATES

HEAD: Final = "# Parameters that coldstream tune found. A training run begins with them: setting `preset`.\n\n"
NONE: Final = "none"
"""How a parameter that is None is written: TOML has no word for it."""


class PresetError(ModelError):
    """A preset that cannot be read, or that names what there is not."""


class Tuning(msgspec.Struct, frozen=True):
    """What a study found for one recommender: NDCG@10 on its tuning cases, under `protocol`, on `source`."""

    params: dict[str, Any]
    ndcg: float = 0.0
    trials: int = 0
    study: str = ""
    source: str = ""
    protocol: str = ""


class Preset(msgspec.Struct, frozen=True):
    """Parameters by recommender; a training run's first trial takes them in place of the defaults."""

    recommenders: dict[str, Tuning] = {}

    def params(self) -> dict[str, dict[str, Any]]:
        return {name: one.params for name, one in self.recommenders.items()}


def read(path: Path) -> Preset:
    """A preset from its file.

    Raises:
        PresetError: no such file, no TOML, or a recommender or a parameter that there is not.
    """
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
        preset = msgspec.convert(raw, Preset)
    except OSError as error:
        raise PresetError(f"preset {path}: {error.strerror}; coldstream tune --preset FILE writes one") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise PresetError(f"preset {path}: {error}") from error
    return Preset(recommenders_of(path, preset.recommenders))


def recommenders_of(path: Path, found: dict[str, Tuning]) -> dict[str, Tuning]:
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


def put(path: Path, name: str, tuning: Tuning) -> Preset:
    """Write one recommender's tuning into a preset file, new or not; the others stay, and the file is always whole.

    What stands before the first recommender (a domain's preset) stays as it is written.
    """
    preset = read(path) if path.exists() else Preset()
    before = path.read_text("utf-8").partition("[recommenders.")[0] if path.exists() else HEAD
    changed = Preset({**preset.recommenders, name: tuning})
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.aside")
    with aside.open("w", encoding="utf-8") as file:
        file.write(before.rstrip("\n") + "\n\n" + _toml(changed))
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    return changed


def _toml(preset: Preset) -> str:
    lines = []
    for name, one in sorted(preset.recommenders.items()):
        lines.append(f"[recommenders.{name}]")
        facts = {key: value for key, value in msgspec.structs.asdict(one).items() if key != "params"}
        lines += [f"{key} = {_written(value)}" for key, value in facts.items()]
        lines.append(f"[recommenders.{name}.params]")
        lines += [f"{key} = {_written(value)}" for key, value in sorted(one.params.items())]
        lines.append("")
    return "\n".join(lines)


def _written(value: Any) -> str:
    if value is None:
        return f'"{NONE}"'
    if isinstance(value, float) and not math.isfinite(value):
        raise PresetError(f"{value} is no parameter")
    return json.dumps(value)


def _read(value: Any) -> Any:
    return None if value == NONE else value
