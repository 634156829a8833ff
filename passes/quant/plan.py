"""The plan: which form every node takes, decided before anything is changed.

A layer has its own `weights`, `activations`, `block` and `per-channel` (`Context.options`), so one pass may leave
layers of all forms in one model. Each form is brought about on its own layers alone. Nothing below the pass itself
knows its options: what they say of a node is in its scheme.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ...errors import SpecError
from ...ir.types import DType
from ..base import Context
from .layers import OPS, WEIGHTED
from .scheme import Form, Scheme, Schemes

if TYPE_CHECKING:
    from ...ir.graph import Graph, Node, Value
    from ..walk.linear import Linear
    from .quant import Quant

SPARED = 0.16
"""Share of all weights that may keep 8 bits where the others have fewer."""
SPARED_PRODUCTS = 0.1
"""The same where all layers are products of a transformer: none minds as a first convolution or a depthwise one does,
and the tables that stand beside them keep 8 bits, too."""
CHANNEL = 6
"""Weights whose spared half bytes are what the scale and the bias of a channel take."""


def plan(graph: Graph, options: Quant, ctx: Context) -> dict[Node, Scheme]:
    """What becomes of every node of `graph` and its bodies, as far as options and overrides say."""
    return {node: _scheme(node, options, ctx) for node in graph.walk()}


def _scheme(node: Node, options: Quant, ctx: Context) -> Scheme:
    if reason := "kept by name" if is_kept(node, options.keep) else ctx.kept(options, node):
        return Scheme(reason=reason)
    if node.op in WEIGHTED and not node.domain and any(not _finite(value) for value in node.inputs):
        return Scheme(reason="its weight is not finite")
    own = ctx.options(options, node)
    return Scheme(
        form_of(own),
        own.bits,
        own.per_channel,
        own.block,
        own.weights == "codebook",
        DType[own.weights.upper()] if own.weights.endswith("float16") else None,
        "weights" in ctx.wanted(options, node),
    )


def _finite(value: Value | None) -> bool:
    """Whether no element of a constant of floats is infinite or not a number: no grid holds these."""
    constant = None if value is None else value.constant
    if constant is None or not constant.dtype.is_float or not constant.size:
        return True
    numbers = constant.numpy()
    finite = bool(np.isfinite(numbers.min()) and np.isfinite(numbers.max()))
    constant.release()
    return finite


def is_kept(node: Node, pattern: str) -> bool:
    """Whether the user's shell-like pattern (several with `|`) names the node, or a node that it was made from."""
    return bool(pattern) and any(
        fnmatch.fnmatchcase(name, part)
        for part in pattern.split("|")
        if part
        for name in (node.label, *node.origin.nodes)
    )


def form_of(options: Quant) -> Form:
    """The form that these options ask for."""
    if options.activations == "none" or options.block > 0 or options.weights.endswith("float16"):
        return Form.STORED
    return Form.DYNAMIC if options.activations == "dynamic" else Form.INTEGER


def with_smallest_kept(
    schemes: Schemes, layers: Iterable[Linear], bits: int, share: float = SPARED
) -> dict[Node, Scheme]:
    """The schemes, in which the smallest of `layers` keep 8 bits where they would have fewer: the first, the last and
    depthwise ones mind most. Layers whose own options say the bits have these."""
    small = smallest(layers, share) if bits != 8 else set()
    return {**schemes, **{n: replace(s, bits=8) for n in small if not (s := schemes[n]).named}}


def smallest(layers: Iterable[Linear], share: float) -> set[Node]:
    """The smallest layers that together have at most `share` of all weights, less where scales and biases are many:
    these cost bytes too."""
    layers = list(layers)
    sizes = {layer.node: math.prod(layer.shape) for layer in layers}
    left = share * sum(sizes.values()) - CHANNEL * sum(layer.outputs for layer in layers)
    small: set[Node] = set()
    for node in sorted(sizes, key=sizes.__getitem__):
        left -= sizes[node]
        if left < 0:
            break
        small.add(node)
    return small


def check_options(options: Quant, graph: Graph, ctx: Context) -> int:
    """The least bits that any layer's weights have. Raises `SpecError` for options that exclude each other."""
    own = {options: dict[str, object]()}
    for node in graph.walk():
        if node.op in OPS and not ctx.kept(options, node):
            own[ctx.options(options, node)] = ctx.wanted(options, node)
    for wanted, said in own.items():
        if "weights" in said and wanted.weights == "auto":
            raise SpecError("weights=auto shares a budget between all layers, so no single layer can have it")
        if (
            "activations" in said
            and wanted.activations in ("auto", "int16", "int4")
            and wanted.activations != options.activations
        ):
            raise SpecError(f"activations={wanted.activations} holds for the whole model, not for a single layer")
    for wanted in own:
        form, few = form_of(wanted), wanted.weights
        if form is Form.STORED and few in ("auto", "codebook", "int3", "int2"):
            raise SpecError(f"weights={few} needs integer or dynamic activations; alone, quant stores int8 and int4")
        if form is Form.DYNAMIC and few == "auto":
            raise SpecError("weights=auto goes with activations=int8 alone; with dynamic ones name the bits")
    return min(wanted.bits for wanted in own)
