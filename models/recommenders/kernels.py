"""What of a look-up is as wide as the catalogue, in ONNX Runtime: products with the item matrix, and softmax.

NumPy hands a matrix to BLAS anew in each call, which for few rows is mostly reading it, and takes exponentials one by
one where the processor has no AVX-512.
"""

from functools import cache
from typing import Any, Final

import numpy as np

from models.recommenders.base import Floats

OPSET: Final = 18
IR: Final = 9
"""Versions of the ONNX format that ONNX Runtime has read since 1.14."""


class Product:
    """`product(hidden)`: float32 [batch, size] times `vectors` float32 [items, size] is float32 [batch, items].

    The matrix is laid out for the kernels once. It is handed over beside the graph, which therefore has no upper size.
    """

    def __init__(self, vectors: Floats) -> None:
        self.items, size = vectors.shape
        self._session = _product(np.ascontiguousarray(vectors.T, np.float32)) if self.items and size else None

    def __call__(self, hidden: Floats) -> Floats:
        if self._session is None:
            return np.zeros((len(hidden), self.items), np.float32)
        scores: Floats = self._session.run(None, {"hidden": hidden})[0]
        return scores


def softmax(scores: Floats) -> Floats:
    """float32 [batch, items], rows summing to one."""
    if not scores.size:
        return np.zeros_like(scores)
    shares: Floats = _softmax().run(None, {"scores": scores})[0]
    return shares


def options_of(threads: int = 1) -> Any:
    """Options of a session whose operators share `threads`, one operator after another."""
    from onnxruntime import SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return options


def _product(vectors: Floats) -> Any:
    from onnx import TensorProto, helper
    from onnxruntime import OrtValue

    size, items = vectors.shape
    matrix = TensorProto(name="vectors", data_type=TensorProto.FLOAT, dims=vectors.shape)
    matrix.data_location = TensorProto.EXTERNAL
    matrix.external_data.add(key="location", value="handed over")
    node = helper.make_node("MatMul", ["hidden", "vectors"], ["scores"])
    return _session(node, [size], [items], matrix, OrtValue.ortvalue_from_numpy(vectors))


@cache
def _softmax() -> Any:
    from onnx import helper

    return _session(helper.make_node("Softmax", ["scores"], ["shares"], axis=-1), ["items"], ["items"])


def _session(node: Any, given: list[Any], made: list[Any], matrix: Any = None, value: Any = None) -> Any:
    """A session of one node from `given` to `made` float32 [batch, ...]; `value` is the node's matrix."""
    from onnx import TensorProto, helper
    from onnxruntime import InferenceSession

    inputs = [helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, ["batch", *given])]
    outputs = [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, ["batch", *made])]
    graph = helper.make_graph([node], node.op_type, inputs, outputs, [matrix] if matrix is not None else [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    options = options_of()
    if matrix is not None:
        options.add_external_initializers([matrix.name], [value])
    return InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
