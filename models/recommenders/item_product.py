"""What of a look-up is as wide as the catalogue, in ONNX Runtime: products with the item matrix, and softmax.

For a few rows a product is mostly reading the matrix, which ONNX Runtime packs once and NumPy reads in each call; and
without AVX-512 NumPy computes exponentials element by element.
"""

import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import numpy as np

from models.arrays import AnyArray, Float32
from models.recommenders.top_k import candidates

OPSET: Final = 18
IR: Final = 9
"""Versions of the ONNX format that ONNX Runtime has read since 1.14."""
ROUGH_ITEMS: Final = 30_000
"""A smaller matrix stays in the caches."""
ROUGH_BLOCK: Final = 16
MOST_BLOCK: Final = 128
"""A scale covers at least ROUGH_BLOCK and at most MOST_BLOCK numbers of a vector."""
ROUGH_ROWS: Final = (1, 2)
EXACT: Final = 128
SLOWER: Final = 1.5
"""Measured again and again, with all of both matrices in the caches, what is rough may take so many times as long: in a
running system the larger matrix is not in the caches, while a processor without the instructions takes ten times."""
FAR_OFF: Final = 0.03
"""Of the largest score: farther off is a processor whose sums of products overflow."""
ROUNDS: Final = 5


class Product:
    """`product(hidden)`: float32 [batch, size] times `vectors` float32 [items, size] is float32 [batch, items].

    The matrix is laid out for the kernels once. It is passed outside the graph, which therefore has no upper size.

    With few histories the time goes into reading it. Where it is large, and the processor is faster so, up to `rough`
    histories are multiplied with a copy in eight bits (a fourth of the bytes; a scale for each item, the histories in
    eight bits too), and the best EXACT of each are recomputed in float32: those are exact, all others within about a
    hundredth of the largest. `rough` is 0 where this does not pay; None tries it. The vectors must not change.
    """

    def __init__(self, vectors: Float32, rough: int | None = None) -> None:
        self.items, self.size = vectors.shape
        self._session: Any = None
        if self.items and self.size:
            self._session = _product(np.ascontiguousarray(vectors.T, np.float32))
        self._in_eight_bits: Any = None
        self._vectors, self.rough = vectors, 0
        large = self.items >= ROUGH_ITEMS and self.size % ROUGH_BLOCK == 0
        if rough != 0 and large and np.isfinite(vectors).all():
            self._vectors = np.ascontiguousarray(vectors, np.float32)
            self._in_eight_bits = _in_eight_bits(self._vectors)
            self.rough = self._paying() if rough is None else rough
            self._in_eight_bits = self._in_eight_bits if self.rough else None

    def __call__(self, hidden: Float32) -> Float32:
        if self._session is None:
            return np.zeros((len(hidden), self.items), np.float32)
        return self._roughly(hidden) if len(hidden) <= self.rough else self._whole(hidden)

    def _whole(self, hidden: Float32) -> Float32:
        scores: Float32 = self._session.run(None, {"hidden": hidden})[0]
        return scores

    def _roughly(self, hidden: Float32) -> Float32:
        scores: Float32 = self._in_eight_bits.run(None, {"hidden": hidden})[0]
        for row, history in zip(scores, hidden, strict=True):
            if not history.any():  # of equal scores all would be the best
                continue
            best = candidates(row, EXACT)
            row[best] = self._vectors[best] @ history
        return scores

    def _paying(self) -> int:
        """The largest number of histories for which eight bits are faster here; 0 if none."""
        longest = self._vectors[np.argsort(np.square(self._vectors).sum(axis=1))[-2:]]
        whole, rough = self._whole(longest), self._in_eight_bits.run(None, {"hidden": longest})[0]
        if np.abs(whole - rough).max() > FAR_OFF * np.abs(whole).max():
            return 0
        most, rng = 0, np.random.default_rng(0)
        for rows in ROUGH_ROWS:
            hidden = rng.standard_normal((rows, self.size), np.float32)
            if _seconds(self._roughly, hidden) > SLOWER * _seconds(self._whole, hidden):
                break
            most = rows
        return most


def softmax(scores: Float32) -> Float32:
    """float32 [batch, items], rows summing to one."""
    if not scores.size:
        return np.zeros_like(scores)
    shares: Float32 = _softmax().run(None, {"scores": scores})[0]
    return shares


def options_of(threads: int = 1) -> Any:
    """Options of a session whose operators share `threads`, one operator after another."""
    from onnxruntime import SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return options


def _seconds(product: Callable[[Float32], Float32], hidden: Float32) -> float:
    """The median of a few calls, after one that is not counted, of this thread's processor time.

    A release is loaded while others work, and what is rough has more steps at which it waits for them.
    """
    taken = []
    for _ in range(ROUNDS + 1):
        began = time.thread_time()
        product(hidden)
        taken.append(time.thread_time() - began)
    return float(np.median(taken[1:]))


def _product(vectors: Float32) -> Any:
    from onnx import helper

    size, items = vectors.shape
    node = helper.make_node("MatMul", ["hidden", "vectors"], ["scores"])
    return _session(node, [size], [items], {"vectors": vectors})


def _in_eight_bits(vectors: Float32) -> Any:
    """A session of the product with each vector as whole numbers from -127 to 127, times a scale of its own.

    ONNX Runtime's MatMulNBits at accuracy level 4, which takes the histories in eight bits as well.
    """
    from onnx import helper

    items, size = vectors.shape
    block = min(MOST_BLOCK, size & -size)
    parts = vectors.reshape(items, size // block, block)
    scales = np.maximum(np.abs(parts).max(axis=2), np.finfo(np.float32).tiny) / 127
    whole = (np.rint(parts / scales[:, :, None]) + 128).astype(np.uint8)
    attributes = {"K": size, "N": items, "bits": 8, "block_size": block, "accuracy_level": 4}
    inputs = ["hidden", "vectors", "scales"]
    node = helper.make_node("MatMulNBits", inputs, ["scores"], domain="com.microsoft", **attributes)
    return _session(node, [size], [items], {"vectors": whole, "scales": scales.astype(np.float32)})


@cache
def _softmax() -> Any:
    from onnx import helper

    return _session(helper.make_node("Softmax", ["scores"], ["shares"], axis=-1), ["items"], ["items"])


def _session(
    node: Any, input_shape: list[Any], output_shape: list[Any], arrays: Mapping[str, AnyArray] | None = None
) -> Any:
    """A session of one node, from float32 [batch, *input_shape] to float32 [batch, *output_shape].

    `arrays` are its other inputs by name.
    """
    from onnx import TensorProto, helper
    from onnxruntime import InferenceSession, OrtValue

    inputs = [helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, ["batch", *input_shape])]
    outputs = [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, ["batch", *output_shape])]
    external = []
    for name, array in (arrays or {}).items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        external.append(TensorProto(name=name, data_type=kind, dims=array.shape, data_location=TensorProto.EXTERNAL))
        external[-1].external_data.add(key="location", value="passed to the session")
    graph = helper.make_graph([node], node.op_type, inputs, outputs, external)
    sets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=sets, ir_version=IR)
    options = options_of()
    if arrays:
        values = [OrtValue.ortvalue_from_numpy(array) for array in arrays.values()]
        options.add_external_initializers(list(arrays), values)
    return InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
