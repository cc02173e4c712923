"""The network of a generator as ONNX: the known events, one event more, and what the next item is compared with.

TensorFlow writes it whatever trained the network: with another backend of Keras, in a process of its own.
`python -m models.synthesizers.neural.export KEPT FOLDER` is that process: KEPT holds the saved generator.
"""

import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import keras
import msgspec
import numpy as np
import onnx

from models.arrays import AnyArray
from models.data.vocabulary import Vocabulary
from models.errors import TrainingError
from models.recommenders.neural.export import BACKEND, WITHIN_S
from models.recommenders.neural.onnx_graph import OPSET, simplify
from models.synthesizers import registry
from models.synthesizers.base import Synthesizer
from models.synthesizers.neural.condition_reader import ConditionReader
from models.synthesizers.neural.keras_runner import NetworkFunction
from models.synthesizers.neural.network import SequenceNetwork
from models.synthesizers.neural.onnx_runner import GRAPHS
from stream.child_process import python_command

STATE: Final = "synthesizer.json"


def write_graphs(
    synthesizer: Synthesizer, network: SequenceNetwork, reader: ConditionReader, folder: Path
) -> list[str]:
    """Write the graphs of a fitted generator into `folder`; their file names.

    Raises:
        TrainingError: the process that writes for another backend failed, or did not end.
    """
    if keras.backend.backend() == BACKEND:
        _write(network, reader, folder)
        return list(GRAPHS)
    with tempfile.TemporaryDirectory(prefix="coldstream-export-") as kept:
        _keep(synthesizer, Path(kept))
        command = python_command("models.synthesizers.neural.export", kept, str(folder))
        variables = {**os.environ, "KERAS_BACKEND": BACKEND, "CUDA_VISIBLE_DEVICES": ""}  # the trainer has the GPU
        try:
            done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=WITHIN_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise TrainingError(f"the graphs of {synthesizer.name} were not written within {WITHIN_S} s") from error
    if done.returncode or not all((folder / name).exists() for name in GRAPHS):
        lines = done.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"exit {done.returncode}"
        raise TrainingError(f"the graphs of {synthesizer.name} were not written to {folder}: {reason}")
    return list(GRAPHS)


def _write(network: SequenceNetwork, reader: ConditionReader, folder: Path) -> None:
    params = network.params
    read = network.encoded_inputs(reader.empty(params.window))
    code = np.zeros(1, np.int32)
    condition = np.zeros((1, params.embedding_size), np.float32)
    memory = np.zeros((1, *network.stack.state_shape), np.float32)
    event = {"items": code, "kinds": code, "gaps": code, "condition": condition, "memory": memory}
    moment = {"hidden": condition, "condition": condition, "gaps": code, "hours": code, "weekdays": code}
    functions = (
        (network.encode, read),
        (lambda each: network.advance(*(each[name] for name in event)), event),
        (lambda each: network.target(each["hidden"], each["condition"], [each[n] for n in tuple(moment)[2:]]), moment),
    )
    for (function, inputs), name in zip(functions, GRAPHS, strict=True):
        _convert(network, function, inputs, folder / name)


def _convert(network: SequenceNetwork, function: Any, empty: Mapping[str, AnyArray], path: Path) -> None:
    given = {name: keras.Input(each.shape[1:], dtype=str(each.dtype), name=name) for name, each in empty.items()}
    model = keras.Model(given, NetworkFunction(network, function)(given))
    model(dict(empty))  # Keras exports only what was called
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the exporter's own look at numpy
        model.export(str(path), format="onnx", verbose=False, opset_version=OPSET)
    onnx.save(simplify(onnx.load(path)), path)


def _keep(synthesizer: Synthesizer, folder: Path) -> None:
    """What `_kept` makes the same generator of."""
    state = {
        "name": synthesizer.name,
        "params": synthesizer.describe(),
        "item_ids": synthesizer.vocabulary.item_ids,
    }
    (folder / STATE).write_bytes(msgspec.json.encode(state))
    synthesizer.save(folder)


def _kept(folder: Path) -> tuple[SequenceNetwork, ConditionReader]:
    state = msgspec.json.decode((folder / STATE).read_bytes())
    arrays = {path.stem: np.load(path, allow_pickle=False) for path in folder.glob("*.npy")}
    vocabulary = Vocabulary.from_items(state["item_ids"])
    synthesizer: Any = registry.load(state["name"], state["params"], vocabulary, arrays)
    return synthesizer.network, synthesizer.reader


if __name__ == "__main__":
    _write(*_kept(Path(sys.argv[1])), Path(sys.argv[2]))
