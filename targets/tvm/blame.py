"""Which node a model fails to compile for, and how messages name it; where the compiler does not say which, it is the
one that fails alone, too."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ...errors import EmissionError, OptcError, TargetError
from ...ir.clone import copy_nodes
from ...ir.graph import Graph, Node, Value
from ...ir.types import Type
from .open_sizes import leaves_open

_LOG = logging.getLogger("optc")


def blamed(graph: Graph, compile: Callable[[Graph], object], target: str, why: str) -> OptcError:
    """What to say of a typed graph that `compile` fails for, with `why` as the last resort.

    Each node is compiled as a graph of its own, one of each kind; what the whole model fails for seldom needs more.
    """
    tried: set[tuple[object, ...]] = set()
    for node in graph:
        kind = _kind(node)
        if kind in tried:
            continue
        tried.add(kind)
        part = _alone(graph, node)
        try:
            compile(part)
        except TargetError as error:
            reason = str(error).removesuffix(f"; {_advice(part)}")
            return TargetError(f"{_named(node)} cannot be compiled for {target}: {reason}; {_advice(graph)}")
        except Exception:
            return TargetError(f"{_named(node)} cannot be compiled for {target}; {_advice(graph)}")
    return EmissionError(f"graph '{graph.name}' cannot be compiled for {target}, though each node can: {why}")


def where(node: Node) -> str:
    """A node as messages name it."""
    outputs = () if node.graph is None else node.graph.outputs
    names = (
        node.name,
        *(value.name for value in node.outputs),
        *(output.name for output in outputs if output.value in node.outputs),
    )
    return f"{node.op} node '{next((name for name in names if name), '')}'"


def without_kernel(node: Node, error: Exception) -> TargetError:
    """What to say where TVM fails for a node: what the node reads, as TVM's own words name nothing of the model."""
    _LOG.debug("%s: %s", where(node), " ".join(str(error).split()))
    operands = [value for value in node.inputs if value is not None]
    reads = " and ".join(f"{'unknown' if v.dtype is None else v.dtype.text}{list(v.shape or ())}" for v in operands)
    what = f"{where(node)}{f' that reads {reads}' if reads else ''}"
    return TargetError(f"TVM has no kernel for {what}; {_advice(node.graph)}")


def _advice(graph: Graph | None) -> str:
    shape = "fix the sizes of the inputs with --shape, " if leaves_open(graph) else ""
    return f"{shape}replace it by other operators, or build for onnx"


def _named(node: Node) -> str:
    return f"{node.op} node '{node.name or node.outputs[0].name}'"


def _kind(node: Node) -> tuple[object, ...]:
    """What a compiler looks at: the operator, its attributes, and the types of what it reads."""
    reads: list[Type | None] = [None if value is None else value.type for value in node.inputs]
    constants = [value is not None and value.constant is not None for value in node.inputs]
    attributes = sorted((name, repr(attribute.value)) for name, attribute in node.attributes.items())
    return node.domain, node.op, str(attributes), str(reads), str(constants)


def _alone(graph: Graph, node: Node) -> Graph:
    """A node as a graph of its own, with the constants that it reads."""
    part = Graph(graph.name, opsets=graph.opsets)
    twins: dict[Value, Value] = {}
    for value in node.inputs:
        if value is not None and value.constant is None and value not in twins:
            twins[value] = part.add_input(value.name, value.type)
    copy_nodes(graph, [node], part, twins)
    for value in node.outputs:
        part.add_output(twins[value], value.name, value.type)
    part.sweep()
    return part
