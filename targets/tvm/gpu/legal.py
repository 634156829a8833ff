"""Bringing a graph to what the GPU targets store well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ....ir.graph import Graph
from ....ir.node import Node, Value
from ....passes.base import Context, Pass, Report
from ..legal.legal import dequantized

_AXIS = {"Conv": 0, "Gemm": 1, "MatMul": 1}
"""The axis of the weights that output channels are on."""


@dataclass(frozen=True, slots=True)
class ScaleBehind(Pass):
    """The scales of int8 weights go behind their layer, whose weights are then whole numbers and can be stored so.

    y = conv(x, q * s) + b = conv(x, q) * s + b, for one scale or one for each output channel (ONNX DequantizeLinear).
    The sums are of floats, as before. Fires for Conv, Gemm and MatMul whose weights are int8 with zero points of 0 and
    are read once; other weights become the floats that they stand for (`FloatWeights`).
    """

    name: ClassVar[str] = "scale-behind"

    def run(self, graph: Graph, ctx: Context) -> Report:
        report = Report()
        for node in list(graph):
            if node.op == "DequantizeLinear" and node.domain == "" and _whole(node, np.int32):
                # A bias: the sums have another scale by the time that it is added.
                node.output.replace_uses(graph.constant(dequantized(node), node.output.name))
                graph.remove(node)
        for node in list(graph):
            weights = node.input(1) if node.op in _AXIS and node.domain == "" else None
            codes = None if weights is None else _codes(node, weights)
            if codes is not None:
                _rewrite(graph, node, *codes)
                report.rewrote("scale-behind")
        graph.sweep()
        return report


def _codes(node: Node, weights: Value) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]] | None:
    """The int8 weights of a layer and the scale of each output channel (or the one of all); none where they differ."""
    decode = weights.producer
    if decode is None or decode.op != "DequantizeLinear" or decode.domain or len(weights.uses) != 1:
        return None
    if not _whole(decode, np.int8) or (node.op == "Conv" and node.input(2) is not None and not _known(node.input(2))):
        return None
    x, scale, *rest = [v.constant.numpy() for v in decode.inputs if v is not None and v.constant is not None]
    if scale.dtype != np.float32 or decode.get_int("block_size", 0) or any(z.any() for z in rest):
        return None
    wanted = _AXIS[node.op]
    if node.op == "Gemm":
        if node.get_float("alpha", 1.0) != 1 or node.get_float("beta", 1.0) != 1:
            return None
        wanted = 0 if node.get_int("transB") else 1
    if x.ndim < 2 or (node.op != "Conv" and x.ndim != 2):
        return None
    if scale.size > 1 and decode.get_int("axis", 1) % x.ndim != wanted:
        return None
    return x, scale.ravel()


def _known(value: Value | None) -> bool:
    return value is None or value.constant is not None


def _whole(node: Node, dtype: type[np.signedinteger]) -> bool:
    """Whether a DequantizeLinear reads constants, of this type."""
    x = node.inputs[0]
    return (
        all(map(_known, node.inputs)) and x is not None and x.constant is not None and x.constant.numpy().dtype == dtype
    )


def _rewrite(graph: Graph, node: Node, codes: npt.NDArray[np.generic], scale: npt.NDArray[np.generic]) -> None:
    def shaped(array: npt.NDArray[np.generic]) -> Value:
        """One number a channel, as it broadcasts against the layer's output."""
        return graph.constant(array.reshape(-1, *(1,) * (codes.ndim - 2)) if node.op == "Conv" else array)

    result, bias = node.output, node.input(2) if node.op != "MatMul" else None
    inputs = [node.inputs[0], graph.constant(codes.astype(np.float32))]
    layer = graph.add(
        node.op, inputs, dict(node.attributes), types=[result.type], name=node.name, origin=node.origin, before=node
    )
    scaled = graph.add(
        "Mul", [layer.output, shaped(scale)], types=[result.type], origin=node.origin, before=node
    ).output
    if bias is not None:
        if node.op == "Conv" and bias.constant is not None:
            bias = shaped(bias.constant.numpy())
        scaled = graph.add("Add", [scaled, bias], types=[result.type], origin=node.origin, before=node).output
    result.replace_uses(scaled)
    graph.remove(node)
