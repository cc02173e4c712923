"""An encoder's ONNX graph in fewer nodes: three rules for onnxscript's rewriter.

TensorFlow's converter spells one operation of ONNX as a dozen nodes, and for one history each node costs mostly its
call. The rules change nothing but the last digits; what does not match a pattern stays as it is.
"""

from typing import Any, Final

import numpy as np
import onnx
import onnx_ir
from onnxscript.rewriter import pattern, rewrite

from models.arrays import AnyArray

OPSET: Final = 18
"""LayerNormalization came with 17; since 18 the axes of a mean are an input."""

Value = Any  # onnx_ir.Value, or the pattern of one
Nodes = Any  # what creates nodes, or patterns of nodes, by the names of operators


def simplify(model: Any) -> Any:
    """The model with layer normalization, embedding look-ups and dense layers as one node each.

    No index of `Gather` may be below zero: indices that count from the end are no longer wrapped.
    """
    for rule in (LayerNormRule, LookupRule, DenseRule):
        typed = onnx_ir.from_proto(onnx.shape_inference.infer_shapes(model, data_prop=True))  # rules read shapes
        rules = pattern.RewriteRuleSet([rule.rule(remove_nodes=False)], commute=True)
        model = onnx_ir.to_proto(rewrite(typed, rules))  # which removes nodes that nothing reads any more
    return model


class LayerNormRule(pattern.RewriteRuleClassBase):  # type: ignore[misc]  # onnxscript's types are skipped
    """x * m + (beta - mean * m), with m = gamma / sqrt(variance + epsilon), is LayerNormalization of x."""

    def pattern(
        self, op: Nodes, x: Value, axes: Value, squared_axes: Value, epsilon: Value, gamma: Value, beta: Value
    ) -> Value:
        mean = op.ReduceMean(x, axes)
        centered = op.Sub(x, mean)
        variance = op.ReduceMean(op.Mul(centered, centered), squared_axes)
        scale = op.Mul(op.Reciprocal(op.Sqrt(op.Add(variance, epsilon))), gamma)
        return op.Add(op.Mul(x, scale), op.Add(op.Mul(op.Neg(mean), scale), beta))

    def check(self, context: Any, x: Value, axes: Value, squared_axes: Value, **others: Value) -> bool:  # noqa: ARG002
        if x.shape is None or any(_constant(others[name]) is None for name in ("epsilon", "gamma", "beta")):
            return False
        reduced = [_constant(value) for value in (axes, squared_axes)]
        return all(array is not None and array.tolist() in ([-1], [len(x.shape) - 1]) for array in reduced)

    def rewrite(self, op: Nodes, x: Value, epsilon: Value, gamma: Value, beta: Value, **_: Value) -> Value:
        flat = [
            op.initializer(onnx_ir.tensor(np.ravel(_known(value))), f"{x.name}/{value.name}") for value in (gamma, beta)
        ]
        return op.LayerNormalization(x, *flat, axis=-1, epsilon=float(_known(epsilon).item()))


class LookupRule(pattern.RewriteRuleClassBase):  # type: ignore[misc]  # onnxscript's types are skipped
    """Rows at where(i < 0, i + n, i), spelled (i < 0) * (i + n) + (not i < 0) * i, are rows at i."""

    def pattern(self, op: Nodes, table: Value, index: Value, compared: Value, zero: Value, size: Value) -> Value:
        below = op.Less(compared, zero)
        wrapped = op.Mul(op.Cast(below), op.Add(index, size))
        return op.Gather(table, op.Add(wrapped, op.Mul(index, op.Cast(op.Not(below)))))

    def check(self, context: Any, index: Value, compared: Value, **_: Value) -> bool:  # noqa: ARG002
        return _uncast(compared) is index

    def rewrite(self, op: Nodes, table: Value, index: Value, **_: Value) -> Value:
        return op.Gather(table, index)


class DenseRule(pattern.RewriteRuleClassBase):  # type: ignore[misc]  # onnxscript's types are skipped
    """A product of rows that are reshaped to a matrix and back is the product over the last axis."""

    def pattern(self, op: Nodes, x: Value, rows: Value, weights: Value, shape: Value) -> Value:
        return op.Reshape(op.MatMul(op.Reshape(x, rows), weights), shape)

    def check(self, context: Any, x: Value, rows: Value, weights: Value, shape: Value) -> bool:  # noqa: ARG002
        matrix, flat, back = _constant(weights), _constant(rows), _constant(shape)
        if matrix is None or flat is None or x.shape is None or (back is not None and 0 in back):
            return False
        return flat.tolist() == [-1, len(matrix)] and bool(x.shape[-1] == len(matrix))

    def rewrite(self, op: Nodes, x: Value, weights: Value, shape: Value, **_: Value) -> Value:
        product = op.MatMul(x, weights)
        return product if _is_shape_of(shape, x, _known(weights).shape[1]) else op.Reshape(product, shape)


def _is_shape_of(shape: Value, x: Value, last: int) -> bool:
    """Whether `shape` is computed as the shape of `x` with another last axis."""
    joined = _uncast(shape).producer()
    if joined is None or joined.op_type != "Concat" or len(joined.inputs) != 2:
        return False
    leading, end = _uncast(joined.inputs[0]).producer(), _constant(joined.inputs[1])
    if leading is None or leading.op_type != "Gather" or end is None or end.tolist() != [last]:
        return False
    whole, axes = _uncast(leading.inputs[0]).producer(), _constant(leading.inputs[1])
    same = whole is not None and whole.op_type == "Shape" and whole.inputs[0] is x
    return same and axes is not None and axes.tolist() == list(range(len(x.shape) - 1))


def _uncast(value: Value) -> Value:
    """The value before casts."""
    while (node := value.producer()) is not None and node.op_type == "Cast":
        value = node.inputs[0]
    return value


def _constant(value: Value) -> AnyArray | None:
    """What `value` holds, if no input changes it."""
    tensor = onnx_ir.convenience.get_const_tensor(value)
    array: AnyArray | None = tensor.numpy() if tensor is not None else None
    return array


def _known(value: Value) -> AnyArray:
    """What a constant holds."""
    array = _constant(value)
    assert array is not None, "a rule's check comes before its rewrite"
    return array
