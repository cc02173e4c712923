"""A network of events run by ONNX Runtime, without Keras."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from models.arrays import AnyArray, Float32, Int32
from models.synthesizers.conditions import SynthesisError
from models.synthesizers.neural.runner import NetworkPosition, OutputWeights, StepRunner

GRAPHS: Final = ("encode.onnx", "step.onnx", "target.onnx")


class OnnxRunner(StepRunner):
    """Runs the graphs that `export.write_graphs` wrote into `folder`, on one thread.

    Raises:
        SynthesisError: a graph is missing, or cannot be read.
    """

    def __init__(self, folder: Path, output: OutputWeights) -> None:
        self.output = output
        self._encode, self._step, self._target = (_session(folder / name) for name in GRAPHS)
        self._read = {port.name for port in self._encode.get_inputs()}

    def encode(self, inputs: Mapping[str, AnyArray]) -> NetworkPosition:
        used = {name: array for name, array in inputs.items() if name in self._read}
        return NetworkPosition(*self._encode.run(None, used))

    def advance(self, position: NetworkPosition, items: Int32, kinds: Int32, gaps: Int32) -> NetworkPosition:
        event = {"items": items, "kinds": kinds, "gaps": gaps}
        given = {**event, "condition": position.condition, "memory": position.memory}
        hidden, memory = self._step.run(None, given)
        return NetworkPosition(hidden, memory, position.condition)

    def target(self, position: NetworkPosition, gaps: Int32, hours: Int32, weekdays: Int32) -> Float32:
        moment = {"gaps": gaps, "hours": hours, "weekdays": weekdays}
        given = {**moment, "hidden": position.hidden, "condition": position.condition}
        target: Float32 = np.asarray(self._target.run(None, given)[0])
        return target


def _session(path: Path) -> Any:
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except (OSError, RuntimeError) as error:
        raise SynthesisError(f"{path} cannot be read ({error}); write it again with write_onnx") from error
