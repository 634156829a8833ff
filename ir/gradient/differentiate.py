"""Reverse-mode differentiation of a graph: nodes that compute derivatives are appended to it.

The nodes are walked backwards from where derivatives arrive. Each is handed to the gradient rule of its operator, which
appends what computes the gradients of its inputs from those of its outputs; it may read what the forward pass reads
and makes, and computes none of it again. Gradients that meet in one value are summed once, in the order of the walk.
Only what lies between a parameter and a seed is visited, and what turns out to feed no gradient is removed again.

A node that has no rule (other people's operators, control flow) ends the walk. Everything before it is *frozen*: a
derivative that leaves out one of the ways from a parameter to the loss would be wrong, so there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...errors import ModelError
from ..graph import Graph, Node, Value
from ..order import sort
from ..shapes.infer import analyse, infer
from .builder import Builder, CannotDifferentiate
from .prepare import prepare
from .rules import RULES, ZERO, GradientCall

OLDEST = 11
"""The oldest opset whose operators the rules append."""


@dataclass(frozen=True, slots=True)
class Frozen:
    """A node that cannot be differentiated, and what lies before it."""

    node: Node
    reason: str
    values: tuple[Value, ...]
    """The values asked for whose way to the loss leads through the node, each named with one node only."""

    @property
    def parameters(self) -> int:
        """Elements of `values` whose shapes are known."""
        sizes = [value.static_shape for value in self.values]
        return sum(_product(size) for size in sizes if size is not None)

    def __str__(self) -> str:
        return f"{self.node.op} '{self.node.label}' {self.reason}: {self.parameters} parameters before it are frozen"


@dataclass(frozen=True, slots=True)
class Gradients:
    """What `differentiate` appended.

    `of` maps each value asked for to its gradient, of the same shape; one that no seed depends on, or that is frozen,
    is absent. The gradient of an integer that DequantizeLinear reads is of floats, per unit of the integer.
    """

    of: dict[Value, Value]
    frozen: tuple[Frozen, ...]

    def __getitem__(self, value: Value) -> Value:
        return self.of[value]


def differentiate(
    graph: Graph, seeds: Mapping[Value, Value | None], wrt: Sequence[Value], *, by_sample: bool = False
) -> Gradients:
    """Append to `graph` what computes the derivative of a scalar loss with respect to each value of `wrt`.

    `seeds` maps values of the graph to the values (of the same shapes, in the same graph) that hold the derivative of
    the loss with respect to them; `None` stands for ones, so that `{loss: None}` differentiates a scalar `loss` itself.
    Values of `wrt` are inputs, constants or computed ones. The forward pass answers as before; recurrent and fused
    nodes that are differentiated are written out in it, and nodes may get further outputs.

    Where a derivative does not exist: Relu gives 0 at 0, Clip passes inside and at its bounds, MaxPool and Max send to
    the first maximum, ReduceMax shares among equals, Round and QuantizeLinear pass straight through inside the range
    (Bengio et al. 2013), scales and zero points get the gradients of learned step sizes (Esser et al. 2020, eq. 3).

    `by_sample` writes the gradients of depthwise kernels as a convolution for each sample, whose kernel is as large as
    the map: what is fastest where a runtime keeps channels in blocks, and slow elsewhere.

    Raises `ModelError` where no gradient reaches any value of `wrt`, and for a graph older than opset 11.
    """
    if graph.opset() < OLDEST:
        raise ModelError(f"graph '{graph.name}' is of opset {graph.opset()}; convert it to {OLDEST} or newer")
    _own(graph, (*seeds, *(v for v in seeds.values() if v is not None), *wrt))
    sort(graph)
    kept = frozenset((*seeds, *wrt))
    if prepare(graph, _between(graph, seeds, wrt), kept):
        prepare(graph, _between(graph, seeds, wrt), kept)  # what was written out may want more of the forward pass
    walk = _Walk(graph, seeds, wrt, by_sample)
    walk.run()
    gradients = walk.result()
    infer(graph)
    return gradients


def _own(graph: Graph, values: Iterable[Value]) -> None:
    for value in values:
        if value.graph is not graph:
            raise ModelError(f"value '{value.name}' is not one of graph '{graph.name}' itself")


def _between(graph: Graph, seeds: Iterable[Value], wrt: Iterable[Value]) -> list[Node]:
    """The nodes that lie on a way from `wrt` to `seeds`, in order."""
    after = set(wrt)
    reached = []
    for node in graph:
        reads = (*node.inputs, *node.captures) if node.bodies else node.inputs
        if any(value in after for value in reads):
            after.update(node.outputs)
            reached.append(node)
    before = set(seeds)
    kept = []
    for node in reversed(reached):
        if any(value in before for value in node.outputs):
            before.update(v for v in (*node.inputs, *node.captures) if v is not None)
            kept.append(node)
    return kept[::-1]


class _Walk:
    def __init__(
        self, graph: Graph, seeds: Mapping[Value, Value | None], wrt: Sequence[Value], by_sample: bool
    ) -> None:
        self.graph = graph
        self.wrt = tuple(dict.fromkeys(wrt))
        self.nodes = _between(graph, seeds, wrt)
        self.build = Builder(graph, analyse(graph), by_sample=by_sample)
        self.wanted = {*self.wrt, *(value for node in self.nodes for value in node.outputs)}
        self.parts: dict[Value, list[Value]] = {}
        """The gradients that arrived at each value so far; one once they are summed."""
        self.blocked: dict[Value, tuple[Node, str]] = {}
        """Values before a node without a derivative, with the first such node met."""
        for value, seed in seeds.items():
            self.parts[value] = [self._ones(value) if seed is None else seed]

    def _ones(self, value: Value) -> Value:
        one = self.build.scalar(1.0, value)
        return one if self.build.shape(value) == () else self.build("Expand", one, self.build.shape_of(value))

    def run(self) -> None:
        for node in reversed(self.nodes):
            block = next((self.blocked[v] for v in node.outputs if v in self.blocked), None)
            if block is None and not any(value in self.parts for value in node.outputs):
                continue
            places = [i for i, v in enumerate(node.inputs) if v is not None and v in self.wanted and self._flows(v)]
            self.build.source = node
            if block is None:
                try:
                    self._visit(node, frozenset(places))
                    continue
                except CannotDifferentiate as cannot:
                    block = node, str(cannot)
            captures = node.captures if node.bodies else ()
            for value in (*(node.inputs[i] for i in places), *captures):
                if value is not None and value in self.wanted and self._flows(value):
                    self.blocked.setdefault(value, block)

    def _flows(self, value: Value) -> bool:
        """Whether a derivative can pass through: floats, and the integers of quantization."""
        try:
            dtype = self.build.dtype(value)
        except CannotDifferentiate:
            return True
        quantized = dtype.is_integer and (dtype.bits <= 16 or any(u.op == "DequantizeLinear" for u in value.users))
        return dtype.is_float or quantized

    def _visit(self, node: Node, places: frozenset[int]) -> None:
        if (node.domain, node.op) in ZERO:
            return
        rule = RULES.get((node.domain, node.op))
        if rule is None:
            domain = f" of {node.domain}" if node.domain else ""
            raise CannotDifferentiate(f"is an operator{domain} without a gradient")
        arrived = tuple(self._sum(value) for value in node.outputs)
        if all(gradient is None for gradient in arrived):
            return
        results = rule(GradientCall(node, arrived, places), self.build)
        for index, gradient in enumerate(results):
            value = node.input(index)
            if gradient is not None and value is not None and index in places:
                self.parts.setdefault(value, []).append(gradient)

    def _sum(self, value: Value) -> Value | None:
        parts = self.parts.get(value)
        if parts is None:
            return None
        if len(parts) > 1:
            total = parts[0]
            for part in parts[1:]:
                total = self.build("Add", total, part)
            self.parts[value] = parts = [total]
        return parts[0]

    def result(self) -> Gradients:
        self.build.source = None
        of: dict[Value, Value] = {}
        for value in self.wrt:
            gradient = None if value in self.blocked else self._sum(value)
            if gradient is not None:
                of[value] = gradient
                gradient.name = gradient.name or f"gradient of {value.name}"
        frozen: dict[Node, tuple[str, list[Value]]] = {}
        for value in self.wrt:
            if value in self.blocked:
                node, reason = self.blocked[value]
                frozen.setdefault(node, (reason, []))[1].append(value)
        report = tuple(Frozen(node, reason, tuple(values)) for node, (reason, values) in frozen.items())
        self.build.sweep(of.values())
        if self.wrt and not of:
            because = "; ".join(str(one) for one in report) or "the seeds depend on none of them"
            raise ModelError(f"graph '{self.graph.name}': no gradient reaches what was asked for: {because}")
        return Gradients(of, report)


def _product(sizes: Sequence[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total
