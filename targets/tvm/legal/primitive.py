"""Operators that ONNX defines by others become those others: what the importer need not know.

onnx's schemas hold the bodies. One is taken as it would be from the model's own functions: its nodes in the place of
the call, after which what they compute from constants and sizes folds away (see `clean`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ....errors import ModelError
from ....ir.clone import inline
from ....ir.graph import Graph
from ....ir.node import Node, Value
from ....ir.types import TensorType
from ....passes.base import Context, Pass, Report
from .lifting import POOLS, lift_affine_grid, lift_auto_pad, lift_broadcast, lift_order, lift_scatter, lift_transposed
from .norms import LIFTED
from .tabular import lift_tabular

if TYPE_CHECKING:
    import onnx

    from ....ir.graph import Graph

BODIES = frozenset({
    "AffineGrid", "Attention", "BlackmanWindow", "CastLike", "CausalConvWithState", "Celu", "FlexAttention",
    "GlobalLpPool", "GroupNormalization", "HammingWindow", "HannWindow", "LinearAttention", "MeanVarianceNormalization",
    "NegativeLogLikelihoodLoss", "RMSNormalization", "RotaryEmbedding", "SimplifiedLayerNormalization",
    "SoftmaxCrossEntropyLoss", "SwiGLU", "Swish",
})  # fmt: skip
"""Operators that are taken by their bodies."""
FIXED = {"AffineGrid": 1, "BlackmanWindow": 0, "HammingWindow": 0, "HannWindow": 0}
"""Operators whose body makes sizes of an operand, and which one: it must be known when the model is built."""
WRITTEN_OUT = frozenset({"GRU", "If", "LSTM", "Loop", "RNN", "Scan"})
"""Operators that are written out where they can be: see `control`, `recurrent`."""
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
        from ....ir.shapes.infer import infer
        from ....passes.clean.clean import Clean
        from . import control, quantized, recurrent

        report = Report()
        if graph.opset() < _OLD and _lift(graph):
            report.rewrote(f"opset {graph.opset()}")
            Clean().run(graph, ctx)
        infer(graph)
        if count := lift_tabular(graph):
            report.rewrote("tabular", count)
            infer(graph)
        if count := quantized.part(graph):
            report.rewrote("codes", count)
        for _ in range(_ROUNDS):
            calls = [
                node for node in graph.walk() if node.domain == "" and (node.op in BODIES or node.op in WRITTEN_OUT)
            ]
            if not calls:
                break
            infer(graph)
            count = 0
            # Those within loops first: with its loop, a node goes, too.
            for node in sorted(calls, key=lambda node: node.op in WRITTEN_OUT):
                # What is inside a body goes with the node around it, or comes out of it first.
                if node.op in BODIES:
                    count += _expand(node, graph.opset())
                elif node.graph is graph:
                    count += recurrent.unroll(node) or control.unroll(node)
            if not count:
                break
            report.rewrote("body", count)
            Clean().run(graph, ctx)
        _believe(graph)
        lifts = (
            ("output-shape", lift_transposed, ("ConvTranspose",)),
            ("auto-pad", lift_auto_pad, POOLS),
            ("scatter", lift_scatter, ("ScatterElements",)),
            ("order", lift_order, ("TopK",)),
        )
        lifted = 0
        for rule, lift, ops in lifts:
            nodes = [node for node in graph if node.op in ops and node.domain == ""]
            if count := sum(map(lift, nodes)):
                report.rewrote(rule, count)
                lifted += count
        if lifted:
            infer(graph)
        return report


def _lift(graph: Graph) -> bool:
    """Bring old forms of operators to those of `_OLD`; whether onnx can. Where not, nodes that need it are refused."""
    from ....ir.onnx.opset import convert
    from ....ir.shapes.infer import infer

    if graph.opset() < 9 and any(node.op == "Scan" for node in graph.walk()):
        return False  # it took a batch at once, which onnx's adapter forgets
    infer(graph)
    for node in list(graph.walk()) if graph.opset() < 7 else ():
        if node.domain == "":
            lift_broadcast(node)
    try:
        convert(graph, _OLD)
    except ModelError:
        return False
    return True


def _believe(graph: Graph) -> None:
    """Give values the sizes that outputs declare, where inference has none: what makes them checks as it runs that they
    are right."""
    from ....ir.shapes.infer import infer

    infer(graph)
    for output in graph.outputs:
        value, kind = output.value, output.type
        sized = isinstance(kind, TensorType) and kind.static_shape is not None and value.dtype is kind.dtype
        if sized and value.static_shape is None and value.producer is not None:
            value.type = kind
    for node in reversed(graph):
        sizes = node.output.static_shape if node.domain == "" and node.op in _ALIKE else None
        open_ones = [v for v in node.inputs if v is not None and v.static_shape is None]
        single = all(
            math.prod(v.static_shape) == 1 for v in node.inputs if v is not None and v.static_shape is not None
        )
        if sizes is None or not single or len({v.shape for v in open_ones}) != 1:
            continue
        for source in open_ones:
            shaped = source.shape is not None and len(source.shape) == len(sizes)
            if shaped and source.producer is not None and source.dtype is not None:
                source.type = TensorType(source.dtype, sizes)


_ALIKE = frozenset({
    "Abs", "Add", "Cast", "Cos", "Div", "Exp", "Identity", "Log", "Mul", "Neg", "Not", "Relu", "Sigmoid", "Sin", "Sqrt",
    "Sub", "Tanh",
})  # fmt: skip
"""Operators whose result has the sizes of what they read, where all else they read is one number."""


def _expand(node: Node, opset: int) -> bool:
    """Put the body of an operator in its place; whether onnx has one for it."""
    if node.op == "CastLike":
        return _cast(node)
    if node.op == "AffineGrid":
        return lift_affine_grid(node)
    if node.op in LIFTED:
        return LIFTED[node.op](node)
    if node.op in FIXED and (size := node.input(FIXED[node.op])) is not None and size.constant is None:
        return False
    body = body_of(node, opset)
    graph = node.graph
    if body is None or graph is None:
        return False
    values: dict[Value, Value] = {}
    read = [value for value in node.inputs if value is not None]
    for value, source in zip(body.inputs, dict.fromkeys(read), strict=True):
        values[value] = source
    for index, inner in enumerate(inline(body, values, node)):
        # What is refused of them is told by the name of the node that the model has.
        inner.name = f"{node.op}_{node.name or node.outputs[0].name}_{index}_{inner.op}"
    for old, output in zip([value for value in node.outputs if value.name or value.uses], body.outputs, strict=True):
        new = values[output.value]
        if new.producer is not None and new.type is None:
            new.type = old.type
        old.replace_uses(new)
    graph.remove(node)
    return True


def _cast(node: Node) -> bool:
    """CastLike as the Cast that it is; whether the type is known."""
    like = node.inputs[1]
    if like is None or like.dtype is None:
        return False
    node.op = "Cast"
    node.set_inputs([node.inputs[0]])
    node.set_attribute("to", int(like.dtype))
    return True


def _defaults(op: str, opset: int) -> list[tuple[str, int | float | str | list[int]]]:
    """What attributes are that a node leaves out: bodies name them, and the inliner does not know."""
    import onnx

    schema = onnx.defs.get_schema(op, opset)
    protos = [one.default_value for one in schema.attributes.values() if one.default_value.name]
    values = [(proto.name, onnx.helper.get_attribute_value(proto)) for proto in protos]
    return [(name, value.decode() if isinstance(value, bytes) else value) for name, value in values]


def body_of(node: Node, opset: int) -> Graph | None:
    """The nodes that onnx defines an operator by, for the types of its inputs; none where it has none."""
    import onnx

    from ....ir.onnx.reader import from_proto
    from ....ir.onnx.writer import to_proto
    from ....passes.clean.inline import inline_functions

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
    for name, default in _defaults(node.op, opset):
        twin.set_attribute(name, default)
    for name, attribute in node.attributes.items():
        twin.set_attribute(name, attribute)
    if node.op == "Attention" and node.get_float("softcap") < 0:
        twin.set_attribute("softcap", 0.0)  # which caps nothing: the body takes its size, runtimes do not
    for index, value in enumerate(node.outputs):
        if value.name or value.uses:
            alone.add_output(twin.outputs[index], f"y{index}")
    proto = to_proto(alone)
    function = _function(proto, opset)
    if function is None:
        return None
    function.domain, function.name = _BODY, node.op
    # A body that depends on its call may leave out what the call does not ask for.
    del function.output[len(proto.graph.node[0].output) :]
    written = {name for inner in function.node for name in inner.output}
    for name in function.output:
        if name not in written:
            function.node.append(onnx.helper.make_node("Identity", [function.input[0]], [name]))
    del function.opset_import[:]
    function.opset_import.append(onnx.helper.make_opsetid("", opset))
    proto.graph.node[0].domain = _BODY
    proto.functions.append(function)
    proto.opset_import.append(onnx.helper.make_opsetid(_BODY, 1))
    body = from_proto(proto)
    inline_functions(body, Report())
    return None if any(inner.op == node.op for inner in body) else body


_BODY = "optc.body"


def _function(proto: onnx.ModelProto, opset: int) -> onnx.FunctionProto | None:
    """The body of the one node of a model."""
    import onnx

    node = proto.graph.node[0]
    # The bindings have these, and their stubs do not.
    schema: Any = onnx.defs.get_schema(node.op_type, opset)
    types = {value.name: value.type for value in proto.graph.input}
    types_of_inputs = [types.get(name, onnx.TypeProto()).SerializeToString() for name in node.input]
    versions = schema.function_opset_versions
    if version := max((v for v in versions if v <= opset), default=min(versions, default=0)):
        function = _parsed(schema.get_function_with_opset_version(version))
        return function if version <= opset or _alike(function, opset, version) else None
    if versions := [v for v in schema.context_dependent_function_opset_versions if v <= opset]:
        text = schema.get_context_dependent_function_with_opset_version(
            max(versions), node.SerializeToString(), types_of_inputs
        )
        return _parsed(text)
    return None


def _alike(function: onnx.FunctionProto, *versions: int) -> bool:
    """Whether a body means the same in two versions of ONNX's operators."""
    import onnx

    try:
        since = {
            (node.op_type, onnx.defs.get_schema(node.op_type, version).since_version)
            for node in function.node
            for version in versions
        }
    except onnx.defs.SchemaError:
        return False
    return len(since) == len({op for op, _ in since})


def _parsed(text: bytes) -> onnx.FunctionProto:
    import onnx

    function = onnx.FunctionProto()
    function.ParseFromString(text)
    return function
