"""What a layer computes in where the others compute in integers: their form, or another one that loses less.

The loss of integers is that of the input of one layer rounded to 256 levels: of one grid for a batch, as static ranges
are, or of one for each sample, as ranges found while the model runs are. Weights are rounded apart (`layer_options`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from ..ir.graph import Graph, Node, Value
from ..passes.base import Context
from ..passes.prune.damage import Damage
from ..passes.quant import Quant
from ..passes.quant.layers import OPS
from ..passes.walk.walk import Step
from .layer_options import LEAST
from .space import FORMS, Option

LEVELS = 255.0
OTHERS = ("none", "dynamic")
"""The forms that a layer may have among integer ones."""
_AXES_ARE_INPUTS = 18
"""The opset from which on reductions read their axes as an input."""


def activation_options(step: Step, damage: Damage, ctx: Context) -> tuple[Option, ...]:
    """The forms of a layer where the model's is int8, that first; none for a layer that stays float anyway."""
    layer = step.layer
    if layer.op not in OPS or ctx.kept(Quant(), layer.node):
        return ()
    losses = {"none": LEAST}
    for form, each in (("int8", False), ("dynamic", True)):
        losses[form] = max(damage.of_edit(partial(_rounded, layer.node, each=each)), LEAST)
    return tuple(
        Option(
            f"{form} activations",
            "activations",
            {} if form == "int8" else {"quant": {"activations": form}},
            losses[form],
            time=FORMS[form],
        )
        for form in ("int8", *OTHERS)
    )


def _rounded(node: Node, twins: Mapping[Value, Value], *, each: bool) -> None:
    """Round what the twin of `node` reads; the grid is one for `each` sample, or one for all."""
    twin = twins[node.output].producer
    assert twin is not None
    graph, source = twin.graph, twin.inputs[0]
    assert graph is not None
    assert source is not None

    def add(op: str, *inputs: Value, **attributes: int) -> Value:
        return graph.add(op, inputs, attributes, before=twin).output

    def of(number: float) -> Value:
        return graph.constant(np.float32(number))

    top, bottom = (_extreme(graph, twin, op, source, node, each=each) for op in ("ReduceMax", "ReduceMin"))
    spread = add("Sub", add("Max", top, of(0.0)), add("Min", bottom, of(0.0)))
    scale = add("Add", add("Mul", spread, of(1.0 / LEVELS)), of(1e-12))
    twin.set_input(0, add("Mul", add("Round", add("Div", source, scale)), scale))


def _extreme(graph: Graph, twin: Node, op: str, source: Value, node: Node, *, each: bool) -> Value:
    rank = len(node.inputs[0].shape or ()) if node.inputs[0] is not None else 0
    axes = list(range(1, rank)) if each else []
    if not axes:
        return graph.add(op, [source], {"keepdims": 0}, before=twin).output
    if graph.opset() >= _AXES_ARE_INPUTS:
        constant = graph.constant(np.array(axes, np.int64))
        return graph.add(op, [source, constant], {"keepdims": 1}, before=twin).output
    return graph.add(op, [source], {"keepdims": 1, "axes": axes}, before=twin).output
