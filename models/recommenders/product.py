"""Every item's score for an encoded history: the product with the item matrix, which a look-up waits longest for."""

from typing import Any, Final

import numpy as np

from models.recommenders.base import Floats

OPSET: Final = 18
IR: Final = 9
"""Versions of the ONNX format that ONNX Runtime has read since 1.14."""


class Product:
    """`product(hidden)`: float32 [batch, size] times `vectors` float32 [items, size] is float32 [batch, items].

    ONNX Runtime lays the matrix out for its kernels once; NumPy hands it to BLAS anew in each call, which for few rows
    is mostly reading it. The graph is one node, the matrix is handed over beside it: such a graph has no upper size.
    """

    def __init__(self, vectors: Floats, threads: int = 1) -> None:
        import onnxruntime

        self.shape = vectors.shape
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        across = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(vectors.T, np.float32))
        options.add_external_initializers(["vectors"], [across])
        self._session: Any = None
        if vectors.size:
            self._session = onnxruntime.InferenceSession(_graph(vectors.shape), options, ["CPUExecutionProvider"])

    def __call__(self, hidden: Floats) -> Floats:
        if self._session is None:
            return np.zeros((len(hidden), self.shape[0]), np.float32)
        scores: Floats = self._session.run(None, {"hidden": hidden})[0]
        return scores


def _graph(shape: tuple[int, ...]) -> bytes:
    from onnx import TensorProto, helper

    items, size = shape
    kind = TensorProto.FLOAT
    vectors = TensorProto(name="vectors", data_type=kind, dims=[size, items], data_location=TensorProto.EXTERNAL)
    vectors.external_data.add(key="location", value="handed over")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["hidden", "vectors"], ["scores"])],
        "product",
        [helper.make_tensor_value_info("hidden", kind, ["batch", size])],
        [helper.make_tensor_value_info("scores", kind, ["batch", items])],
        [vectors],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    return bytes(made.SerializeToString())
