"""What a model is made of, and where its size and work are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table

from ..ir.cost import cost
from ..ir.graph import Graph
from ..ir.shapes.infer import size_names
from ..ir.stored import parameters, stored_values, tensor_of
from ..ir.tensor import Tensor
from ..ir.types import DType
from .amount import amount
from .layers import ListedLayer, costliest, layer_costs, type_text
from .shown import shown
from .tables import table
from .weights import Weight, look, pieces, prepares, rank, stored_weights


@dataclass(frozen=True, slots=True)
class InterfaceValue:
    """One input or output: its name and its type as text (`float[N, 3, 32, 32]`)."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """The parameters stored in one element type; `zeros` is the share of them that are exactly zero."""

    dtype: str
    params: int
    bytes: int
    zeros: float


@dataclass(frozen=True, slots=True)
class LayerWeight:
    """A weight of one of the costliest layers. `rank` keeps 99 % of its energy, `full_rank` all; `None` where it is no
    float matrix."""

    layer: str
    weight: Weight
    rank: int | None
    full_rank: int | None


@dataclass(frozen=True, slots=True)
class Summary:
    """One model. Sizes named in `dims` are symbolic and count as 1 in `macs` and `activations` (bytes). `layers` are
    the costliest by MACs, `largest` by stored bytes, `tensors` the weights of both."""

    name: str
    ir_version: int
    producer: str
    opsets: dict[str, int]
    inputs: tuple[InterfaceValue, ...]
    outputs: tuple[InterfaceValue, ...]
    dims: tuple[str, ...]
    nodes: int
    functions: int
    params: int
    bytes: int
    macs: int
    integer_macs: int
    activations: int
    weights: tuple[StoredWeights, ...]
    ops: dict[str, int]
    layers: tuple[ListedLayer, ...]
    largest: tuple[ListedLayer, ...]
    tensors: tuple[LayerWeight, ...]


def summary(graph: Graph, *, top: int = 10, dims: Mapping[str, int] | None = None) -> Summary:
    """Look at `graph` without changing it; `top` is how many of the costliest layers to keep, `dims` fixes symbolic
    sizes by name.

    Reads every weight, to count zeros. Raises `ModelError` where shape inference does, and for a name in `dims` that
    no input has.
    """
    dims = dims or {}
    named = size_names(graph, dims)
    whole = cost(graph, dims)
    costs = layer_costs(graph, dims, whole)
    layers, largest = costliest(costs, "macs", top), costliest(costs, "bytes", top)
    ops = Counter(f"{node.domain}.{node.op}" if node.domain else node.op for node in graph.walk())
    producer = " ".join(word for word in (graph.header.producer_name, graph.header.producer_version) if word)
    return Summary(
        name=graph.name,
        ir_version=graph.header.ir_version,
        producer=producer,
        opsets={domain or "ai.onnx": version for domain, version in sorted(graph.opsets.items())},
        inputs=tuple(InterfaceValue(value.name, type_text(value.type)) for value in graph.inputs),
        outputs=tuple(InterfaceValue(output.name, type_text(output.type)) for output in graph.outputs),
        dims=tuple(name for name in named if name not in dims),
        nodes=sum(ops.values()),
        functions=len(graph.functions),
        params=whole.params,
        bytes=whole.bytes,
        macs=whole.macs,
        integer_macs=whole.integer_macs,
        activations=whole.activations,
        weights=_weights(graph),
        ops=dict(sorted(ops.items(), key=lambda item: (-item[1], item[0]))),
        layers=layers,
        largest=largest,
        tensors=_tensors(graph, {layer.name for layer in (*layers, *largest)}),
    )


def _weights(graph: Graph) -> tuple[StoredWeights, ...]:
    kinds: dict[DType, list[int]] = {}
    for value in stored_values(graph):
        tensor = tensor_of(value)
        count = 0 if tensor is None else parameters(value, tensor)
        if tensor is not None and count:
            sums = kinds.setdefault(tensor.dtype, [0, 0, 0])
            for index, part in enumerate((count, tensor.nbytes, _zeros(tensor))):
                sums[index] += part
    order = sorted(kinds.items(), key=lambda item: -item[1][1])
    return tuple(StoredWeights(dtype.text, count, size, zeros / count) for dtype, (count, size, zeros) in order)


def _zeros(tensor: Tensor) -> int:
    return tensor.size - sum(int(np.count_nonzero(array)) for array in pieces(tensor))


def _tensors(graph: Graph, names: set[str]) -> tuple[LayerWeight, ...]:
    tensors = []
    for node in graph:
        name = node.label
        for value, tensor in stored_weights(node) if name in names and not prepares(node) else ():
            kept, full = rank(node, tensor) or (None, None)
            tensors.append(LayerWeight(name, look(value, tensor), kept, full))
    return tuple(tensors)


def as_dict(summary: Summary) -> dict[str, Any]:
    """The summary as plain dicts, lists and numbers, for JSON."""
    return asdict(summary)


def render(summary: Summary, *, title: str = "") -> RenderableType:
    """The summary for a terminal: the facts, the operators, the costliest layers and their weights."""
    parts: list[RenderableType] = [_facts(summary, title or summary.name), _operators(summary)]
    if summary.layers:
        parts.append(_layers("most work", summary.layers))
    if summary.largest:
        parts.append(_layers("most bytes", summary.largest))
    if summary.tensors:
        parts.append(_ranges(summary.tensors))
    return Group(*parts)


def _facts(summary: Summary, title: str) -> Table:
    facts = Table(title=shown(title), title_justify="left", box=None, pad_edge=False, show_header=False)
    facts.add_column(style="dim")
    facts.add_column()
    opsets = ", ".join(f"{domain} {version}" for domain, version in summary.opsets.items())
    by = f" by {summary.producer}" if summary.producer else ""
    facts.add_row("format", shown(f"IR {summary.ir_version}, {opsets}{by}"))
    for word, ports in (("input", summary.inputs), ("output", summary.outputs)):
        for port in ports:
            facts.add_row(word, f"{shown(port.name)}  [dim]{shown(port.type)}[/]")
    facts.add_row("nodes", f"{summary.nodes}" + (f", {summary.functions} functions" if summary.functions else ""))
    for index, kind in enumerate(summary.weights):
        zeros = f", {100 * kind.zeros:.1f} % zeros" if kind.zeros else ""
        text = f"{amount(kind.params)} {kind.dtype}, {amount(kind.bytes, 'B')}{zeros}"
        facts.add_row("" if index else "parameters", text)
    facts.add_row("stored", amount(summary.bytes, "B"))
    note = f"  [dim]with {shown(' = '.join((*summary.dims, '1')))}[/]" if summary.dims else ""
    integer = f" ({100 * summary.integer_macs / summary.macs:.0f} % integer)" if summary.integer_macs else ""
    facts.add_row("MACs", amount(summary.macs) + integer + note)
    facts.add_row("activations", amount(summary.activations, "B") + note)
    return facts


def _operators(summary: Summary) -> Table:
    listed = Table(title="\noperators", title_justify="left", box=None, pad_edge=False, show_header=False)
    listed.add_column()
    listed.add_row(shown("  ".join(f"{op}\u00a0{count}" for op, count in summary.ops.items())))
    return listed


def _layers(title: str, layers: tuple[ListedLayer, ...]) -> Table:
    heads = ("layer", "op", "output", ">MACs", ">share", ">parameters", ">stored", ">share")
    costs = table(*heads, title=f"\n{title}")
    for one in layers:
        cells = (shown(one.name), shown(one.op), shown(one.output), amount(one.macs), f"{100 * one.share:.1f} %")
        costs.add_row(*cells, amount(one.params), amount(one.bytes, "B"), f"{100 * one.stored:.1f} %")
    return costs


def _ranges(tensors: tuple[LayerWeight, ...]) -> Table:
    ranges = table("layer", "weight", ">zeros", ">range", ">rank at 99 %", title="\ntheir weights")
    for one in tensors:
        bounds = one.weight
        limits = "-" if bounds.low is None or bounds.high is None else f"{bounds.low:.3g}..{bounds.high:.3g}"
        broken = f" [red]{bounds.broken} not finite[/]" if bounds.broken else ""
        kept = "" if one.rank is None else f"{one.rank} of {one.full_rank}"
        form = f"{bounds.dtype}[{', '.join(map(str, bounds.shape))}]"
        ranges.add_row(shown(one.layer), shown(form), f"{100 * bounds.zeros:.1f} %", limits + broken, kept)
    return ranges
