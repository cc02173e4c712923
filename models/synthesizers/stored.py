"""A fitted synthesizer in a folder of its own: `synthesizer.json` and one .npy file for each array."""

from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from models.data.vocabulary import Vocabulary
from models.synthesizers import registry
from models.synthesizers.base import Synthesizer
from models.synthesizers.conditions import SynthesisError
from stream.files import write_atomically

FILE: Final = "synthesizer.json"


class StoredSynthesizer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `synthesizer.json` holds: name and parameters, the vocabulary, and the names of the arrays' files."""

    name: str
    params: dict[str, Any]
    item_ids: list[str]
    kind_weights: tuple[float, ...]
    files: list[str]


def save(synthesizer: Synthesizer, folder: Path) -> None:
    """Write a fitted synthesizer into `folder`; the description comes last, so that a folder without it is no model.

    Raises:
        FileError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).unlink(missing_ok=True)
        files = synthesizer.save(folder)
    except OSError as error:
        raise SynthesisError(f"{folder} cannot be written: {error.strerror}; name another folder") from error
    vocabulary = synthesizer.vocabulary
    stored = StoredSynthesizer(
        synthesizer.name, synthesizer.describe(), vocabulary.item_ids, vocabulary.kind_weights, files
    )
    write_atomically(folder / FILE, msgspec.json.encode(stored))


def load(folder: Path) -> Synthesizer:
    """The synthesizer that `save` wrote.

    Raises:
        SynthesisError: the folder holds none, or a damaged one.
    """
    cure = f"fit it again, or name another folder than {folder}"
    try:
        stored = msgspec.json.decode((folder / FILE).read_bytes(), type=StoredSynthesizer)
        paths = [folder / Path(name).name for name in stored.files]
        arrays = {path.stem: np.load(path, allow_pickle=False) for path in paths}
        vocabulary = Vocabulary.from_items(stored.item_ids, stored.kind_weights)
        return registry.load(stored.name, stored.params, vocabulary, arrays)
    except FileNotFoundError as error:
        raise SynthesisError(f"{error.filename} is missing; {cure}") from error
    except (OSError, EOFError, ValueError, KeyError, msgspec.MsgspecError) as error:
        raise SynthesisError(f"{folder} holds no readable synthesizer ({error}); {cure}") from error
