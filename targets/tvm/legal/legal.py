"""Bringing a graph to what the importer takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ....ir.graph import Graph
from ....ir.node import Node
from ....passes.base import Context, Pass, Report, option
from .integer_layers import coded_layer

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True)
class Spread(Pass):
    """Integer operators become DequantizeLinear, the float operator and QuantizeLinear, and codes, scales and biases
    that a file stores packed become constants: integer code is made from that form.

    Does not fire where a scale is computed as the model runs.
    """

    name: ClassVar[str] = "spread"

    def run(self, graph: Graph, ctx: Context) -> Report:
        from ....passes.quant.read.spread import spread
        from ....passes.quant.read.unpack import unpack

        report = Report()
        for rule, count in (("unpack", unpack(graph)), ("spread", spread(graph))):
            if count:
                report.rewrote(rule, count)
        return report


@dataclass(frozen=True, slots=True)
class FloatWeights(Pass):
    """Weights that are stored as integers become the floats they stand for: TVM computes with floats around them.

    y = (x - zero_point) * scale, per tensor, per channel along `axis`, or in blocks of `block_size` (ONNX
    DequantizeLinear). Does not fire where any of the three is computed, and with `integer` not for weights and biases
    of layers that compute with integers (see `codes`). Other layers between codes are told of: they run in floats.
    """

    name: ClassVar[str] = "float-weights"

    integer: bool = option(False, "whether layers on codes compute with integers")

    def run(self, graph: Graph, ctx: Context) -> Report:
        report = Report()
        kept: set[Node | None] = set()
        for node in graph if self.integer else ():
            if coded_layer(node) is not None:
                kept.update(value.producer for value in node.inputs if value is not None)
            elif node.op in _LAYERS and node.domain == "" and _reads_codes(node):
                report.notes.append(f"{node.op} '{node.name}' runs in floats: it has no integer kernel of this form")
        for node in list(graph):
            if node in kept:
                continue
            constant = all(value is None or value.constant is not None for value in node.inputs)
            if node.op == "DequantizeLinear" and node.domain == "" and constant:
                node.output.replace_uses(graph.constant(dequantized(node), node.output.name))
                graph.remove(node)
                report.rewrote("float-weights")
        return report


def _reads_codes(node: Node) -> bool:
    read = node.inputs[0]
    return read is not None and read.producer is not None and read.producer.op == "DequantizeLinear"


def dequantized(node: Node) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """What a DequantizeLinear of constants gives."""
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
