"""Encoders' graphs in fewer steps: the same vectors, one node for each layer."""

from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.data.profiles import ProfileSchema
from models.recommenders.neural.export import write_encoder
from models.recommenders.neural.network import Network
from models.recommenders.neural.onnx_graph import OPSET, simplify
from models.recommenders.neural.params import Params

ITEMS, LENGTH, SIZE = 30, 8, 16
NORMS = {"transformer": 5, "dnn": 3, "cnn": 5, "rnn": 1}


def trained(encoder: str) -> Network:
    """A network whose every weight says something, as after training."""
    fields = (
        ProfileSchema.from_json([{"name": "age", "values": ["young", "old"]}]) if encoder == "dnn" else ProfileSchema()
    )
    params = Params(encoder=encoder, embedding_size=SIZE, length=LENGTH, blocks=2, heads=2, context=encoder == "dnn")
    network = Network(np.arange(ITEMS, dtype=np.int32) % 3, params, fields=fields)
    network.ready()
    rng = np.random.default_rng(0)
    network.set_weights([rng.normal(0, 0.4, weights.shape) for weights in network.get_weights()])
    return network


def random_inputs(network: Network, rng: np.random.Generator, rows: int = 5) -> dict[str, Any]:
    inputs = {name: np.zeros((rows, *array.shape[1:]), np.int32) for name, array in network.nothing().items()}
    for row in range(rows):
        n = min(row * 2, LENGTH)
        inputs["items"][row, LENGTH - n :] = rng.integers(1, ITEMS + 1, n)
        inputs["kinds"][row, LENGTH - n :] = rng.integers(1, 6, n)
        inputs["gaps"][row, LENGTH - n :] = rng.integers(1, 6, n)
    for name in ("profile", "time_features"):
        if name in inputs:
            inputs[name][:] = rng.integers(0, 2, inputs[name].shape)
    return inputs


def run(model: Any, inputs: dict[str, Any]) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    known = {port.name for port in session.get_inputs()}
    return session.run(None, {name: array for name, array in inputs.items() if name in known})[0]


@pytest.mark.parametrize("encoder", list(NORMS))
def test_an_encoder_is_written_in_few_steps_and_says_the_same(encoder: str, tmp_path: Path) -> None:
    network, rng = trained(encoder), np.random.default_rng(1)
    write_encoder(network, tmp_path / "encoder.onnx")
    model = onnx.load(tmp_path / "encoder.onnx")
    onnx.checker.check_model(model)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["LayerNormalization"] == NORMS[encoder]
    assert not {"Less", "Sqrt", "Reciprocal"} & set(kinds)
    assert kinds["Shape"] <= 1
    inputs = random_inputs(network, rng)
    expected = keras.ops.convert_to_numpy(network(inputs, newest=True))[:, -1]
    np.testing.assert_allclose(run(model, inputs)[1:], expected[1:], atol=1e-4)


def graph(nodes: list[Any], constants: dict[str, Any], shape: tuple[int, ...]) -> Any:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    spelled = helper.make_graph(nodes, "g", [x], [y], initializers)
    return helper.make_model(spelled, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)


def norm(axes: list[int]) -> Any:
    """Layer normalization as the converter spells it, over these axes."""
    steps = [
        ("ReduceMean", ["x", "axes"], "mean"),
        ("Sub", ["x", "mean"], "apart"),
        ("Mul", ["apart", "apart"], "square"),
        ("ReduceMean", ["square", "axes"], "variance"),
        ("Add", ["variance", "epsilon"], "spread"),
        ("Sqrt", ["spread"], "root"),
        ("Reciprocal", ["root"], "inverse"),
        ("Mul", ["inverse", "gamma"], "m"),
        ("Mul", ["x", "m"], "scaled"),
        ("Neg", ["mean"], "minus"),
        ("Mul", ["minus", "m"], "moved"),
        ("Add", ["moved", "beta"], "rest"),
        ("Add", ["scaled", "rest"], "y"),
    ]
    nodes = [helper.make_node(kind, inputs, [output]) for kind, inputs, output in steps]
    floats = {name: np.linspace(0.5, 2, 4, dtype=np.float32).reshape(1, 1, 4) for name in ("gamma", "beta")}
    epsilon = np.float32(1e-6)
    return graph(nodes, {**floats, "epsilon": epsilon, "axes": np.array(axes, np.int64)}, (3, 4))


@pytest.mark.parametrize("axes", [[2], [-1]])
def test_normalization_over_the_last_axis_is_one_node(axes: list[int]) -> None:
    x = {"x": np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)}
    expected = run(norm(axes), x)
    simplified = simplify(norm(axes))
    assert [node.op_type for node in simplified.graph.node] == ["LayerNormalization"]
    np.testing.assert_allclose(run(simplified, x), expected, atol=1e-6)


def test_normalization_over_another_axis_stays_as_it_is() -> None:
    x = {"x": np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)}
    expected, simplified = run(norm([1]), x), simplify(norm([1]))
    assert len(simplified.graph.node) == len(norm([1]).graph.node)
    np.testing.assert_array_equal(run(simplified, x), expected)


def test_a_product_of_rows_that_are_laid_out_otherwise_stays_as_it_is() -> None:
    """Six numbers as three rows of two: the last axis of x is not what the product goes over."""
    nodes = [
        helper.make_node("Reshape", ["x", "rows"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["product"]),
        helper.make_node("Reshape", ["product", "back"], ["y"]),
    ]
    weights = np.arange(4, dtype=np.float32).reshape(2, 2)
    constants = {"rows": np.array([-1, 2]), "back": np.array([-1, 2, 3]), "weights": weights}
    x = {"x": np.arange(12, dtype=np.float32).reshape(2, 2, 3)}
    expected, simplified = run(graph(nodes, constants, (2, 3)), x), simplify(graph(nodes, constants, (2, 3)))
    assert [node.op_type for node in simplified.graph.node] == ["Reshape", "MatMul", "Reshape"]
    np.testing.assert_array_equal(run(simplified, x), expected)
