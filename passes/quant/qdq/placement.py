"""Which values are held as integer codes, and which of them share one grid.

Layers (Conv, Gemm, MatMul with constant weights) read codes; a Conv also answers in codes, because no integer kernel
answers otherwise. Between layers an op goes on with codes where its neighbours do:

* *moves* only carry elements about (Reshape, Slice, Pad, MaxPool, Concat, ...). They run on the codes themselves, which
  needs no fusion by any runtime, moves a quarter of the bytes, and makes their inputs and outputs share a grid;
* *pointwise* ops compute on codes with a grid of their own for the answer (Add, Mul, pooling, Sigmoid, ...). They are
  written as DequantizeLinear -> op -> QuantizeLinear, which runtimes fuse into one integer kernel.

Everything else stays float, and so do pointwise ops with a float neighbour: residual streams, softmax and normalisation
of transformers, sums that only the output reads. This is the greatest fixed point of `_viable`.

An activation that only clamps (Relu, Clip) directly after its producer is absorbed: the grid's own ends clamp. Where
inputs of a Concat are clamped differently, no one grid could clamp them all; that Concat keeps a grid for each input.

A sum with a constant that dwarfs the other summand (`dwarfed`), as a mask of -1e9 does, is best kept float, too: on one
grid with the constant, little would be left of what the mask lets through.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from ....ir.graph import Graph, Node, Value
from ....ir.types import DType
from ...walk.linear import Linear
from ..layers import QUANTIZED
from ..numbers.histogram import Histogram
from ..scheme import Schemes, float_reason
from .affine import factor_of, offset_of, operand
from .ramps import ENDS, ends_of, is_ramp, is_ramp_on

CLAMPS = frozenset({"Relu", "Clip"})
MOVES = frozenset(
    {
        "Concat", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Reshape", "Resize", "Slice", "Split", "Squeeze",
        "Transpose", "Unsqueeze",
    }
)  # fmt: skip
POINTWISE = frozenset({"Add", "Mul", "AveragePool", "GlobalAveragePool", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid"})
FOLDED = (-math.inf, math.inf)
DWARFED = 16.0
"""So much wider than what it is added to, a constant leaves it fewer than four of eight bits."""


@dataclass(slots=True)
class Placement:
    """`layers`, `moves` and `pointwise` are the nodes that work on codes; `coded` the values held as codes;
    `reads` what each layer reads, before codes stand in its place.

    `clamp` maps a value to the clamping node whose output it is, where that node is absorbed. `separate` are the
    Concats that keep a grid for each input. `group` maps each coded value to the first of those it shares a grid with;
    `maker` a value to the node whose answer it is, through an absorbed clamp.
    """

    layers: Mapping[Node, Linear]
    reads: Mapping[Node, Value]
    answers: bool = True
    moves: set[Node] = field(default_factory=set)
    pointwise: set[Node] = field(default_factory=set)
    coded: dict[Value, None] = field(default_factory=dict)
    clamp: dict[Value, Node] = field(default_factory=dict)
    separate: set[Node] = field(default_factory=set)
    group: dict[Value, Value] = field(default_factory=dict)
    maker: dict[Value, Node] = field(default_factory=dict)

    def integer(self, node: Node) -> bool:
        return node in self.moves or node in self.pointwise or node in self.layers

    def sources(self) -> dict[Value, list[Value]]:
        """For each grid, the values whose distribution decides it: those in the group that no move made."""
        by_group: dict[Value, list[Value]] = {}
        for value in self.coded:
            maker = self.maker.get(value)
            if maker is None or maker not in self.moves:
                by_group.setdefault(self.group[value], []).append(value)
        return by_group

    def ends(self, group: Value) -> tuple[float, float] | None:
        """The range of a grid that does what its operators leave to it, whatever the values are."""
        return ENDS if any(is_ramp_on(value) for value, first in self.group.items() if first is group) else None

    def laid(self) -> dict[Value, tuple[float, ...]]:
        """For groups in which nothing is clamped, numbers that should be quantized values, so that nothing is rounded
        where one of theirs is read: the ends of a ramp, or what a sum with a number moves to 0 (which leaves a clamp
        at 0 where it is)."""
        clamped = {self.group[value] for value in self.clamp}
        above = {self.group[value] for value, node in self.clamp.items() if bounds(node) != (0.0, math.inf)}
        numbers: dict[Value, tuple[float, ...]] = {}
        for value, first in self.group.items():
            for user in value.users:
                if user in self.pointwise and is_ramp(user) and first not in clamped:
                    numbers.setdefault(first, ends_of(user))
        for value in self.group:
            maker = value.producer
            offset = offset_of(maker) if maker is not None and maker in self.pointwise else None
            source = None if offset is None or maker is None else operand(maker)
            while source is not None and (factor := self._factor(source)) is not None and source.producer is not None:
                source, offset = operand(source.producer), offset / factor if offset is not None else None
            first_read = None if source is None else self.group.get(source)
            if first_read is not None and offset and first_read not in above:
                numbers.setdefault(first_read, (-offset,))
        return numbers

    def _factor(self, value: Value) -> float | None:
        maker = value.producer
        return factor_of(maker) if maker is not None and maker in self.pointwise else None

    def float_products(self) -> dict[Value, list[Linear]]:
        """The inputs of MatMul and Gemm that float ops make, each with the layers that read it; none that others share
        a grid with."""
        readers: dict[Value, list[Linear]] = {}
        for layer in self.layers.values():
            readers.setdefault(layer.source, []).append(layer)
        shared = {v for v, first in self.group.items() if first is not v} | {
            first for v, first in self.group.items() if first is not v
        }
        return {
            source: layers
            for source, layers in readers.items()
            if all(layer.op != "Conv" for layer in layers)
            and source not in shared
            and not ((maker := self.maker.get(source)) is not None and self.integer(maker))
        }


def operands(node: Node) -> tuple[Value, ...]:
    """The activations that a move or pointwise node computes on, without shapes, indices, pads and constants."""
    count = {"Concat": None, "Add": 2, "Mul": 2}.get(node.op, 1)
    values = node.inputs if count is None else node.inputs[:count]
    return tuple(v for v in values if v is not None and v.constant is None)


def place(
    graph: Graph, layers: Mapping[Node, Linear], schemes: Schemes = MappingProxyType({}), *, answers: bool = True
) -> Placement:
    """Decide for `graph`, given its `layers`, which nodes are to stay float, and whether a Conv `answers` in codes."""
    plan = Placement(layers, {node: layer.source for node, layer in layers.items()}, answers=answers)
    _find_clamps(graph, plan)
    for node in graph:
        if node.domain or float_reason(schemes, node) or not _supported(node, graph.opset(), plan):
            continue
        (plan.moves if node.op in MOVES else plan.pointwise).add(node)
    for node in graph:
        if plan.clamp.get(node.output) is not node:
            plan.maker.update(dict.fromkeys(_answers(node, plan), node))
    while True:
        awaited = _awaited(graph, plan)
        dead = [n for n in (*plan.moves, *plan.pointwise) if not _viable(n, plan, awaited)]
        plan.moves.difference_update(dead)
        plan.pointwise.difference_update(dead)
        if not dead:
            break
    _collect(graph, plan)
    _share(graph, plan)
    return plan


def _find_clamps(graph: Graph, plan: Placement) -> None:
    for node in graph:
        if node.op not in CLAMPS or node.domain or bounds(node) is None:
            continue
        read = node.inputs[0]
        if read is None or read.producer is None or len(read.uses) != 1 or read.producer.graph is not graph:
            continue
        if read.producer in plan.layers or read.producer.op in ("Add", "Mul"):
            plan.clamp[node.output] = node


def bounds(node: Node) -> tuple[float, float] | None:
    """What a Relu or Clip clamps to; `None` where the bounds are computed or exclude 0, which every grid holds."""
    if node.op == "Relu":
        return 0.0, math.inf
    ends = [node.get_float("min", -math.inf), node.get_float("max", math.inf)]
    for i in (0, 1):
        value = node.input(i + 1)
        if value is not None:
            data = value.numpy()
            if data is None or data.size != 1:
                return None
            ends[i] = float(np.asarray(data, np.float64).reshape(()))
    return (ends[0], ends[1]) if ends[0] <= 0.0 <= ends[1] else None


def _supported(node: Node, opset: int, plan: Placement) -> bool:
    """Whether the op, as used here, works on codes in ONNX and in the runtimes' kernels."""
    if node.op not in MOVES and node.op not in POINTWISE:
        return False
    values = operands(node)
    if not values or any(v.dtype not in (DType.FLOAT, None) for v in values):
        return False
    if any(v.producer is not None and v.producer.op in QUANTIZED for v in values):
        return False
    match node.op:
        case "Relu":
            return node.output not in plan.clamp
        case "Add" | "Mul":
            return all(v is not None and (v.constant is None or _encodable(v)) for v in node.inputs)
        case "HardSigmoid":
            return is_ramp(node)
        case "MaxPool":
            return len(node.outputs) == 1 and opset >= 12
        case "Pad":
            fill = node.input(2)
            return (
                opset >= 13
                and node.get_string("mode", "constant") != "wrap"
                and (fill is None or fill.constant is not None)
            )
        case "Resize":
            # Only cropping reads the second input, which exporters write as an empty constant.
            crops = node.get_string("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
            return opset >= 11 and node.get_string("mode", "nearest") == "nearest" and not crops
        case "Concat":
            return all(v is not None and v.constant is None for v in node.inputs)
        case _:
            return True


def _encodable(value: Value) -> bool:
    """Whether a constant has a grid: it holds float32 numbers, and all of them are finite."""
    if value.constant is None or value.constant.dtype is not DType.FLOAT or not value.constant.size:
        return False
    return bool(np.isfinite(np.asarray(value.numpy(), np.float32)).all())


def dwarfed(plan: Placement, histograms: Mapping[Value, Histogram]) -> set[Node]:
    """The sums on codes whose constant is more than `DWARFED` times as wide as what it is added to."""
    sources = plan.sources()
    sums = set()
    for node in plan.pointwise:
        constants = [np.asarray(v.numpy(), np.float64) for v in node.inputs if v is not None and v.constant is not None]
        if node.op != "Add" or not constants:
            continue
        seen = [histograms[value] for value in sources[plan.group[operands(node)[0]]]]
        width = max(0.0, *(h.high for h in seen)) - min(0.0, *(h.low for h in seen))
        if max(0.0, constants[0].max()) - min(0.0, constants[0].min()) > DWARFED * width:
            sums.add(node)
    return sums


def _answers(node: Node, plan: Placement) -> tuple[Value, ...]:
    """The values a node answers with, after the clamp that it absorbs."""
    answers = []
    for value in node.outputs:
        users = value.users
        clamped = users[0].output if len(users) == 1 and users[0].outputs else None
        answers.append(clamped if clamped is not None and plan.clamp.get(clamped) is users[0] else value)
    return tuple(answers)


def _awaited(graph: Graph, plan: Placement) -> set[Node]:
    """The moves and pointwise nodes whose codes a layer reads in the end, through others of them."""
    awaited: set[Node] = set()
    for node in reversed(graph):
        if node in plan.moves or node in plan.pointwise:
            for value in _answers(node, plan):
                for user in value.users:
                    if user in awaited or (plan.reads.get(user) is value):
                        awaited.add(node)
    return awaited


def _viable(node: Node, plan: Placement, awaited: set[Node]) -> bool:
    """Whether a node can go on with codes: its operands are codes, and somebody waits for codes.

    Of the operands of a move or Concat one is enough: encoding the others first costs no more than decoding that one. A
    move that nobody waits for still goes on with codes that its producer made, and they are decoded after it. MaxPool
    only ever does that: on codes in NCHW order, which is what a float producer leaves, runtimes have no fast kernel.
    Before a Pad with zeros that layers alone read there is less to encode than behind it.
    """
    inputs = [_is_code(v, plan) for v in operands(node)]
    if node in plan.pointwise:
        return all(inputs) and node in awaited
    if node in awaited and node.op != "MaxPool":
        return any(inputs) or _adds_zeros(node, plan)
    return node.op != "Concat" and all(_made_as_code(v, plan) for v in operands(node))


def _adds_zeros(node: Node, plan: Placement) -> bool:
    """Whether a node is such a Pad."""
    if node.op != "Pad" or node.get_string("mode", "constant") != "constant":
        return False
    fill = node.input(2)
    zeros = fill is None or (fill.constant is not None and not np.asarray(fill.numpy()).any())
    return zeros and all(plan.reads.get(user) is node.output for user in node.output.users)


def _made_as_code(value: Value, plan: Placement) -> bool:
    maker = plan.maker.get(value)
    if maker is None:
        return False
    return (
        maker in plan.moves or maker in plan.pointwise or (maker in plan.layers and maker.op == "Conv" and plan.answers)
    )


def _is_code(value: Value, plan: Placement) -> bool:
    return _made_as_code(value, plan) or any(plan.reads.get(user) is value for user in value.users)


def _collect(graph: Graph, plan: Placement) -> None:
    for node in graph:
        if not plan.integer(node):
            continue
        if node in plan.layers:
            plan.coded[plan.reads[node]] = None
        else:
            plan.coded.update(dict.fromkeys(operands(node)))
        if (node.op == "Conv" and plan.answers) or node not in plan.layers:
            plan.coded.update(dict.fromkeys(_answers(node, plan)))
    # A clamp is absorbed only where its answer is held as codes.
    plan.clamp = {value: node for value, node in plan.clamp.items() if value in plan.coded}


def _share(graph: Graph, plan: Placement) -> None:
    """Union of the values that moves tie together, in graph order; the first value stands for its group."""
    group = {value: value for value in plan.coded}
    limits = {v: bounds(plan.clamp[v]) if v in plan.clamp else FOLDED for v in plan.coded}
    limits |= dict.fromkeys(filter(is_ramp_on, plan.coded), ENDS)

    def find(value: Value) -> Value:
        while group[value] is not value:
            group[value] = group[group[value]]
            value = group[value]
        return value

    for node in graph:
        if node not in plan.moves:
            continue
        tied = [find(v) for v in operands(node)]
        if len({limits[v] for v in tied}) > 1:
            plan.separate.add(node)
            continue
        for other in (*tied[1:], *(find(v) for v in _answers(node, plan))):
            group[find(other)] = tied[0]
    for node in plan.separate:
        plan.moves.discard(node)
        plan.pointwise.add(node)
    plan.group = {value: find(value) for value in plan.coded}
