"""What the forward pass has to say besides its answer, and operators whose gradient is that of simpler ones.

MaxPool names its maxima, LayerNormalization returns its statistics; both cost the runtime nothing. Recurrent and fused
operators are written out in simple ones, whose rules do the rest; one that cannot be stays and has no gradient.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..graph import Graph, Node, Value
from ..shapes.infer import analyse
from .builder import Builder, CannotDifferentiate
from .fused import FUSED, Expansion
from .unroll import RECURRENT, unroll

_OUTPUTS = {"MaxPool": 2, "LayerNormalization": 3}
"""Operator -> outputs that it needs for its gradient."""

_EXPANSIONS: Mapping[tuple[str, str], Expansion] = {("", op): unroll for op in RECURRENT} | dict(FUSED)


def prepare(graph: Graph, nodes: Iterable[Node], kept: frozenset[Value]) -> bool:
    """Rewrite `nodes` of `graph`, all to be differentiated; returns whether any was written out.

    Values in `kept` stay the same objects.
    """
    build: Builder | None = None
    replaced = False
    for node in nodes:
        expansion = _EXPANSIONS.get((node.domain, node.op))
        if expansion is None:
            _complete(node)
            continue
        if build is None:
            build = Builder(graph, analyse(graph))
        build.source = node
        try:
            _replace(node, expansion(node, build), build, kept)
        except CannotDifferentiate:
            continue
        replaced = True
    if build is not None:
        build.sweep(())
        graph.sort()
    return replaced


def _replace(node: Node, results: Sequence[Value | None], build: Builder, kept: frozenset[Value]) -> None:
    """Let all read `results` in place of the outputs of `node`, and remove it. Outputs in `kept` live on."""
    for old, new in zip(node.outputs, results):
        if new is None:
            continue
        if old in kept:
            build.graph.add("Identity", [new], origin=node.origin).adopt(old)
        else:
            new.name = new.name or old.name
            old.replace_uses(new)
    build.graph.remove(node)


def _complete(node: Node) -> None:
    count = _OUTPUTS.get(node.op, 0) if not node.domain else 0
    if len(node.outputs) < count:
        node.add_outputs(count - len(node.outputs))
        # Even where nothing reads it, the answer itself is no optional output.
        node.output.name = node.output.name or "answer"
