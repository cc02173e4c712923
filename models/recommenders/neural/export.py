"""A network's encoder as ONNX. TensorFlow writes it whatever trained the network: with another backend of Keras, in a
process of its own, so that training with JAX needs no converter in its process.

`python -m models.recommenders.neural.export NETWORK.npz ENCODER.onnx` is that process.
"""

import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Final

import keras
import msgspec
import numpy as np
import onnx

from models.data.profiles import ProfileSchema
from models.errors import TrainingError
from models.recommenders.neural.network import Network, folded
from models.recommenders.neural.onnx_graph import OPSET, simplify
from models.recommenders.neural.params import Params
from stream.child_process import python_command

BACKEND: Final = "tensorflow"
WITHIN_S: Final = 600


def write_encoder(network: Network, path: Path) -> None:
    """Items, kinds, gaps int32 [batch, length] -> float32 [batch, embedding_size], as ONNX at `path`.

    Where the network reads them, also profile int32 [batch, fields] and time_features int32 [batch, 2].

    Raises:
        TrainingError: the process that writes for another backend failed, or did not end.
    """
    plain = folded(network)
    if keras.backend.backend() == BACKEND:
        _write(plain, path)
        return
    with tempfile.TemporaryDirectory(prefix="coldstream-export-") as folder:
        kept = Path(folder) / "network.npz"
        _keep(plain, kept)
        command = python_command("models.recommenders.neural.export", str(kept), str(path))
        variables = {**os.environ, "KERAS_BACKEND": BACKEND, "CUDA_VISIBLE_DEVICES": ""}  # the trainer has the GPU
        try:
            done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=WITHIN_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise TrainingError(f"{path.name} was not written within {WITHIN_S} s") from error
    if done.returncode or not path.exists():
        lines = done.stderr.strip().splitlines()
        raise TrainingError(f"{path.name} was not written: {lines[-1] if lines else f'exit {done.returncode}'}")


def convert(plain: Network, path: Path) -> None:
    """Write a folded network to `path` as TensorFlow's converter spells it."""
    empty = plain.nothing()
    inputs = {name: keras.Input(array.shape[1:], dtype="int32", name=name) for name, array in empty.items()}
    encoder = keras.Model(inputs, plain(inputs, newest=True)[:, -1])
    encoder(empty)  # Keras exports only what was called
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the exporter's own look at numpy
        encoder.export(str(path), format="onnx", verbose=False, opset_version=OPSET)


def _write(plain: Network, path: Path) -> None:
    convert(plain, path)
    onnx.save(simplify(onnx.load(path)), path)


def _keep(plain: Network, path: Path) -> None:
    """Everything that `_kept` makes the same network of."""
    facts = {"params": msgspec.structs.asdict(plain.params), "fields": plain.fields.to_json()}
    weights = {f"weight_{number:03d}": array for number, array in enumerate(plain.get_weights())}
    categories = plain.category_of[1:]
    np.savez(path, allow_pickle=False, facts=np.array(msgspec.json.encode(facts)), categories=categories, **weights)


def _kept(path: Path) -> Network:
    with np.load(path, allow_pickle=False) as kept:
        facts = msgspec.json.decode(kept["facts"].item())
        params = msgspec.convert(facts["params"], Params)
        network = Network(kept["categories"], params, fields=ProfileSchema.from_json(facts["fields"]))
        network.ready()
        network.set_weights([kept[name] for name in sorted(kept.files) if name.startswith("weight_")])
    return network


if __name__ == "__main__":
    _write(_kept(Path(sys.argv[1])), Path(sys.argv[2]))
