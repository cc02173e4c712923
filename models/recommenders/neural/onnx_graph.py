"""An encoder's ONNX graph in fewer steps: what TensorFlow's converter spells out in a dozen nodes is one of ONNX.

For one history the steps are so short that each costs mostly being called. Nothing is computed otherwise, but for the
last digits; what does not look as expected stays as it is.
"""

from collections import defaultdict
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from models.arrays import AnyArray

OPSET: Final = 18
"""LayerNormalization came with 17; since 18 the axes of a mean are an input."""

Node = Any  # onnx.NodeProto, which says nothing of its fields to a type checker


def lighter(model: Any) -> Any:
    """The same model, in place: layer normalization, looking up rows and dense layers over the last axis as one node
    each. What is looked up must not count from the end: no index of `Gather` may be below zero."""
    for shorten in (_normalized, _looked_up, _dense):
        graph = _Graph(model)
        for node in list(model.graph.node):
            shorten(graph, node)
        graph.write()
    return model


class _Graph:
    """Who makes what in a model's graph, and who reads it."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.maker: dict[str, Node] = {}
        self.readers: dict[str, list[Node]] = defaultdict(list)
        for node in model.graph.node:
            self.maker |= dict.fromkeys(node.output, node)
            for name in node.input:
                self.readers[name].append(node)
        self.constants = {one.name: one for one in model.graph.initializer}
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        self.shapes = {one.name: one.type.tensor_type.shape.dim for one in (*inferred.value_info, *inferred.input)}
        self.instead: dict[str, str] = {}
        self.added: dict[str, Node] = {}

    def made(self, name: str, kind: str) -> Node | None:
        """The node that makes `name`, if it is of this kind; one that casts is looked through."""
        node = self.maker.get(name)
        while node is not None and node.op_type == "Cast" and kind != "Cast":
            node = self.maker.get(node.input[0])
        return node if node is not None and node.op_type == kind else None

    def reader(self, name: str, kind: str) -> Node | None:
        """The only node that reads `name`, if it is of this kind."""
        readers = self.readers[name]
        return readers[0] if len(readers) == 1 and readers[0].op_type == kind else None

    def constant(self, name: str) -> AnyArray | None:
        """What `name` holds, if that does not depend on what is asked."""
        found = self.constants.get(name)
        return numpy_helper.to_array(found) if found is not None else None

    def last(self, name: str) -> int | None:
        """The length of the last axis of `name`, if that is known."""
        shape = self.shapes.get(name)
        return shape[-1].dim_value or None if shape else None

    def replace(self, name: str, node: Node) -> None:
        """Let `node` make `name`."""
        self.added[name] = node

    def write(self) -> None:
        """What is still asked for, in an order in which each node finds what it reads."""
        graph = self.model.graph
        nodes = [self.added.get(node.output[0], node) for node in graph.node]
        for node in nodes:
            for place, name in enumerate(node.input):
                node.input[place] = self.instead.get(name, name)
        asked, kept = {one.name for one in graph.output}, []
        for node in reversed(nodes):
            if asked.intersection(node.output):
                kept.append(node)
                asked.update(node.input)
        constants = [one for one in graph.initializer if one.name in asked]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(reversed(kept))
        graph.initializer.extend(constants)


def _other(node: Node, name: str) -> str | None:
    """What a node of two inputs reads beside `name`."""
    first, second = node.input
    return second if first == name else first if second == name else None


def _normalized(graph: _Graph, node: Node) -> None:
    """x * m + (beta - mean * m), with m = gamma / sqrt(variance + epsilon), is LayerNormalization of x."""
    if node.op_type != "Sqrt" or (spread := graph.made(node.input[0], "Add")) is None:
        return
    squares = graph.made(spread.input[0], "ReduceMean")
    square = graph.made(squares.input[0], "Mul") if squares is not None else None
    apart = graph.made(square.input[0], "Sub") if square is not None else None
    inverse = graph.reader(node.output[0], "Reciprocal")
    scaled = graph.reader(inverse.output[0], "Mul") if inverse is not None else None
    if squares is None or square is None or apart is None or inverse is None or scaled is None:
        return
    x, mean = apart.input
    means = graph.made(mean, "ReduceMean")
    epsilon, gamma = graph.constant(spread.input[1]), graph.constant(_other(scaled, inverse.output[0]) or "")
    over_last = means is not None and means.input[0] == x and all(_over_last(graph, one) for one in (means, squares))
    if square.input[0] != square.input[1] or not over_last or epsilon is None or gamma is None:
        return
    beside = {_other(one, scaled.output[0]): one for one in graph.readers[scaled.output[0]] if one.op_type == "Mul"}
    minus = next((one for name, one in beside.items() if (made := graph.made(name or "", "Neg")) is not None
                  and made.input[0] == mean), None)  # fmt: skip
    if len(beside) != 2 or minus is None or x not in beside:
        return
    moved = graph.reader(minus.output[0], "Add")
    beta = graph.constant(_other(moved, minus.output[0]) or "") if moved is not None else None
    end = graph.reader(beside[x].output[0], "Add")
    if moved is None or beta is None or end is None or _other(end, beside[x].output[0]) != moved.output[0]:
        return
    names = [_flat(graph, f"{end.output[0]}/{part}", array) for part, array in (("gamma", gamma), ("beta", beta))]
    graph.replace(
        end.output[0],
        helper.make_node("LayerNormalization", [x, *names], list(end.output), axis=-1, epsilon=float(epsilon.item())),
    )


def _over_last(graph: _Graph, mean: Node) -> bool:
    axes, shape = graph.constant(mean.input[1]) if len(mean.input) > 1 else None, graph.shapes.get(mean.input[0])
    return axes is not None and shape is not None and axes.tolist() in ([-1], [len(shape) - 1])


def _flat(graph: _Graph, name: str, array: AnyArray) -> str:
    graph.model.graph.initializer.append(numpy_helper.from_array(np.ravel(array), name))
    return name


def _looked_up(graph: _Graph, node: Node) -> None:
    """Rows at `where(i < 0, i + n, i)`, which is spelled (i < 0) * (i + n) + (not i < 0) * i, are rows at i."""
    wrapped = graph.made(node.input[1], "Add") if node.op_type == "Gather" else None
    parts = [graph.made(one, "Mul") for one in wrapped.input] if wrapped is not None else []
    for below, above in (parts, parts[::-1]) if len(parts) == 2 else ():
        if below is None or above is None:
            return
        for asked, index in (above.input, above.input[::-1]):
            otherwise = graph.made(asked, "Not")
            less = graph.made(otherwise.input[0], "Less") if otherwise is not None else None
            cast = graph.made(less.input[0], "Cast") if less is not None else None
            if less is None or index not in (less.input[0], cast.input[0] if cast is not None else None):
                continue
            shifted = [graph.made(one, "Add") for one in below.input]
            if any(one is not None and index in one.input for one in shifted):
                graph.instead[node.input[1]] = index
                return


def _dense(graph: _Graph, node: Node) -> None:
    """A product of rows laid out one below the other, and laid back again, is the product over the last axis."""
    weights = graph.constant(node.input[1]) if node.op_type == "MatMul" else None
    below = graph.made(node.input[0], "Reshape") if weights is not None else None
    if weights is None or below is None:
        return
    x, rows = below.input[0], graph.constant(below.input[1])
    if rows is None or rows.tolist() != [-1, len(weights)] or graph.last(x) != len(weights):
        return
    readers = graph.readers[node.output[0]]
    shapes = [graph.constant(one.input[1]) for one in readers if one.op_type == "Reshape"]
    if len(shapes) < len(readers) or any(shape is not None and 0 in shape for shape in shapes):
        return
    graph.replace(node.output[0], helper.make_node("MatMul", [x, node.input[1]], list(node.output)))
    for one in readers:  # what is not constant is the shape of x, but for its last axis
        if graph.constant(one.input[1]) is None and _shape_of(graph, one.input[1], x, weights.shape[1]):
            graph.instead[one.output[0]] = node.output[0]


def _shape_of(graph: _Graph, name: str, x: str, last: int) -> bool:
    """Whether `name` is the shape of `x` with another last axis."""
    joined = graph.made(name, "Concat")
    if joined is None or len(joined.input) != 2:
        return False
    chosen, end = graph.made(joined.input[0], "Gather"), graph.constant(joined.input[1])
    shape = graph.made(chosen.input[0], "Shape") if chosen is not None else None
    axes = graph.constant(chosen.input[1]) if chosen is not None else None
    rank = len(graph.shapes.get(x, ()))
    same = shape is not None and shape.input[0] == x and axes is not None and axes.tolist() == list(range(rank - 1))
    return same and end is not None and end.tolist() == [last]
