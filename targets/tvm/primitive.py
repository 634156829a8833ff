"""Operators that ONNX defines by others become those others: what the importer need not know.

onnx's schemas hold the bodies. One is taken as it would be from the model's own functions: its nodes in the place of
the call, after which what they compute from constants and sizes folds away (see `clean`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...ir.clone import inline
from ...ir.node import Node, Value
from ...ir.types import TensorType
from ...passes.base import Context, Pass, Report

if TYPE_CHECKING:
    from ...ir.graph import Graph

BODIES = frozenset({
    "AffineGrid", "Attention", "BlackmanWindow", "CausalConvWithState", "Celu", "FlexAttention",
    "GroupNormalization", "HammingWindow", "HannWindow", "LinearAttention", "MeanVarianceNormalization",
    "NegativeLogLikelihoodLoss", "RMSNormalization", "RotaryEmbedding", "Shrink", "SoftmaxCrossEntropyLoss", "SwiGLU",
    "Swish", "ThresholdedRelu",
})  # fmt: skip
"""Operators that are taken by their bodies."""
_OLD = 11
"""The first version of ONNX's operators whose forms the importer knows: before, Slice, Pad, TopK and others had
attributes for operands, and broadcasting was asked for."""
_ROUNDS = 8
"""How deep bodies hold operators that have bodies again."""


@dataclass(frozen=True, slots=True)
class Primitive(Pass):
    """The old forms of operators become the newer one, and operators of `BODIES` what they are defined by.

    Exact: ONNX defines both so. Does not fire where onnx has no body for the types that a node works on.
    """

    name: ClassVar[str] = "primitive"

    def run(self, graph: Graph, ctx: Context) -> Report:
        from ...ir.shapes import infer
        from ...passes.clean.clean import Clean

        report = Report()
        if graph.opset() < _OLD and _lift(graph):
            report.rewrote(f"opset {graph.opset()}")
            Clean().run(graph, ctx)
        for _ in range(_ROUNDS):
            calls = [node for node in graph.walk() if node.op in BODIES and node.domain == ""]
            if not calls:
                break
            infer(graph)
            count = sum(_expand(node, graph.opset()) for node in calls)
            if not count:
                break
            report.rewrote("body", count)
            Clean().run(graph, ctx)
        _believe(graph)
        return report


def _lift(graph: Graph) -> bool:
    """Bring old forms of operators to those of `_OLD`; whether onnx can. Where not, nodes that need it are refused."""
    from ...errors import ModelError
    from ...ir.opset import convert
    from .lifting import AWAY, lift_resize

    lifted = [node for node in list(graph.walk()) if node.domain == "" and node.op in ("Resize", "Upsample")]
    for node in lifted:
        lift_resize(node, graph.opset())
    graph.opsets[AWAY] = 1
    try:
        convert(graph, _OLD)
    except ModelError:
        return False
    finally:
        for node in graph.walk():
            if node.domain == AWAY:
                node.domain = ""
        graph.opsets.pop(AWAY, None)
    return True


def _believe(graph: Graph) -> None:
    """Give values the sizes that outputs declare, where inference has none: what makes them checks as it runs that they
    are right."""
    from ...ir.shapes import infer

    infer(graph)
    for output in graph.outputs:
        value, kind = output.value, output.type
        sized = isinstance(kind, TensorType) and kind.static_shape is not None and value.dtype is kind.dtype
        if sized and value.static_shape is None and value.producer is not None:
            value.type = kind
    for node in reversed(graph):
        source = node.input(0)
        alike = node.op in _ALIKE and node.domain == "" and source is not None and source.producer is not None
        if alike and source is not None and source.static_shape is None and node.output.static_shape is not None:
            dtype = source.dtype
            if dtype is not None:
                source.type = TensorType(dtype, node.output.static_shape)


_ALIKE = frozenset({"Abs", "Cast", "Exp", "Identity", "Log", "Neg", "Not", "Relu", "Sigmoid", "Sqrt", "Tanh"})
"""Operators whose result has the sizes of what they read."""


def _expand(node: Node, opset: int) -> bool:
    """Put the body of an operator in its place; whether onnx has one for it."""
    body = body_of(node, opset)
    graph = node.graph
    if body is None or graph is None:
        return False
    values: dict[Value, Value] = {}
    read = [value for value in node.inputs if value is not None]
    for value, source in zip(body.inputs, dict.fromkeys(read), strict=True):
        values[value] = source
    inline(body, values, node)
    for old, output in zip([value for value in node.outputs if value.name or value.uses], body.outputs, strict=True):
        new = values[output.value]
        if new.producer is not None and new.type is None:
            new.type = old.type
        old.replace_uses(new)
    graph.remove(node)
    return True


def body_of(node: Node, opset: int) -> Graph | None:
    """The nodes that onnx defines an operator by, for the types of its inputs; none where it has none."""
    from onnx import inliner

    from ...ir.graph import Graph
    from ...ir.reader import from_proto
    from ...ir.writer import to_proto

    alone = Graph("body", opsets={"": opset})
    stand_ins: dict[Value, Value] = {}
    for value in node.inputs:
        if value is not None and value not in stand_ins:
            if not isinstance(value.type, TensorType):
                return None
            stand_ins[value] = alone.add_input(f"x{len(stand_ins)}", value.type)
    twin = alone.add(
        node.op,
        [None if value is None else stand_ins[value] for value in node.inputs],
        outputs=[f"y{index}" if value.name or value.uses else "" for index, value in enumerate(node.outputs)],
        types=[value.type for value in node.outputs],
        name=node.name or node.op,
        origin=node.origin,
    )
    for name, attribute in node.attributes.items():
        twin.set_attribute(name, attribute)
    for index, value in enumerate(node.outputs):
        if value.name or value.uses:
            alone.add_output(twin.outputs[index], f"y{index}")
    try:
        whole = inliner.inline_selected_functions(to_proto(alone), [("", node.op)], inline_schema_functions=True)
    except RuntimeError:  # a type that the body asks for and a test of the inliner's own fails on
        return None
    body = from_proto(whole)
    return None if any(inner.op == node.op and inner.domain == "" for inner in body) else body
