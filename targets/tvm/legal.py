"""Bringing a graph to what the importer takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...passes.base import Context, Pass, Report

if TYPE_CHECKING:
    from ...ir.graph import Graph
    from ...ir.node import Node


@dataclass(frozen=True, slots=True)
class FloatWeights(Pass):
    """Weights that are stored as integers become the floats they stand for: TVM computes with floats around them.

    y = (x - zero_point) * scale, per tensor, per channel along `axis`, or in blocks of `block_size` (ONNX
    DequantizeLinear). Does not fire where any of the three is computed.
    """

    name: ClassVar[str] = "float-weights"

    def run(self, graph: Graph, ctx: Context) -> Report:
        report = Report()
        for node in list(graph):
            known = all(value is None or value.constant is not None for value in node.inputs)
            if node.op == "DequantizeLinear" and node.domain == "" and known:
                node.output.replace_uses(graph.constant(_dequantized(node), node.output.name))
                graph.remove(node)
                report.rewrote("float-weights")
        return report


def _dequantized(node: Node) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    x, scale, *rest = [
        value.constant.numpy() for value in node.inputs if value is not None and value.constant is not None
    ]
    axis, block = node.get_int("axis", 1), node.get_int("block_size", 0)
    parts = []
    for part in (scale, *rest):
        if part.ndim and block:
            part = np.repeat(part, block, axis=axis).take(range(x.shape[axis]), axis=axis)
        elif part.ndim == 1 and x.ndim > 1:
            part = part.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])
        parts.append(part)
    shifted = x.astype(np.float32)
    if rest:
        shifted -= parts[1].astype(np.float32)
    return np.asarray(shifted * parts[0].astype(np.float32), scale.dtype)
