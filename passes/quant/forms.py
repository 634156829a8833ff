"""Which of the forms each layer takes, by the options that it has of its own.

    integer    activations and weights as codes on grids found beforehand
    dynamic    ranges found as the model runs
    stored     weights stored small and computed with in float

A layer has its own `weights`, `activations`, `block` and `per-channel` (`Context.options`), so one pass may leave
layers of all three forms in one model. Each form is brought about on its own layers alone.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ...errors import SpecError
from ..base import Context, Skip
from ..walk.linear import Linear
from .layers import OPS, Kept

if TYPE_CHECKING:
    from ...ir.graph import Graph, Node
    from .quant import Quant


class Form(enum.Enum):
    INTEGER = "integer"
    DYNAMIC = "dynamic"
    STORED = "stored"


def form_of(one: Quant) -> Form:
    """The form that these options ask for."""
    if one.activations == "none" or one.block > 0 or one.weights.endswith("float16"):
        return Form.STORED
    return Form.DYNAMIC if one.activations == "dynamic" else Form.INTEGER


def own_options(one: Quant, ctx: Context, node: Node) -> Quant:
    """The pass as the layer `node` wants it; the pass itself for a layer that is to be kept."""
    try:
        return ctx.options(one, node)
    except Skip:
        return one


def only(form: Form, one: Quant, ctx: Context, kept: Kept) -> Kept:
    """`kept`, and every layer of another form is kept too."""

    def reason(node: Node) -> str:
        if node.op not in OPS:
            return kept(node)
        other = form_of(own_options(one, ctx, node))
        return kept(node) or ("" if other is form else f"its own options make it {other.value}")

    return reason


def own_bits(one: Quant, ctx: Context) -> Callable[[Linear], int | None]:
    """The bits of a layer's weight where an override says them, and `None` elsewhere."""

    def bits(layer: Linear) -> int | None:
        return own_options(one, ctx, layer.node).bits if "weights" in _wanted(one, ctx, layer.node) else None

    return bits


def by_options(layers: Iterable[Linear], one: Quant, ctx: Context) -> dict[Quant, list[Linear]]:
    """The layers of each set of options, in order."""
    found: dict[Quant, list[Linear]] = {}
    for layer in layers:
        found.setdefault(own_options(one, ctx, layer.node), []).append(layer)
    return found


def check_options(one: Quant, graph: Graph, ctx: Context) -> int:
    """The least bits that any layer's weights have. Raises `SpecError` for options that exclude each other."""
    own = {own_options(one, ctx, node): node for node in graph.walk() if node.op in OPS}
    for wanted, node in own.items():
        said = _wanted(one, ctx, node)
        if "weights" in said and wanted.weights == "auto":
            raise SpecError("weights=auto shares a budget between all layers, so no single layer can have it")
        if "activations" in said and wanted.activations in ("auto", "int16") and wanted.activations != one.activations:
            raise SpecError(f"activations={wanted.activations} holds for the whole model, not for a single layer")
    for wanted in (one, *own):
        form, few = form_of(wanted), wanted.weights
        if form is Form.STORED and few in ("auto", "codebook", "int3", "int2"):
            raise SpecError(f"weights={few} needs integer or dynamic activations; alone, quant stores int8 and int4")
        if form is Form.DYNAMIC and few == "auto":
            raise SpecError("weights=auto goes with activations=int8 alone; with dynamic ones name the bits")
    return min(wanted.bits for wanted in (one, *own))


def _wanted(one: Quant, ctx: Context, node: Node) -> dict[str, object]:
    try:
        return ctx.wanted(one, node)
    except Skip:
        return {}
