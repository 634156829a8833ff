"""The scheme of a node: the form that its weights and activations take. A plan (`plan.py`) has one for every node."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from ...ir.graph import Graph, Node
from ...ir.types import DType
from ..walk.linear import Linear


class Form(enum.Enum):
    """`INTEGER`: activations and weights quantized, with parameters that are fixed beforehand; `DYNAMIC`: ranges found
    as the model runs; `STORED`: weights stored small and computed with in float; `FLOAT`: left as it is."""

    INTEGER = "integer"
    DYNAMIC = "dynamic"
    STORED = "stored"
    FLOAT = "float"


@dataclass(frozen=True, slots=True)
class Scheme:
    """`bits` are those of a weight, `block` how many weights share a scale (0: all of a channel), `half` the float type
    of 16 bits that weights are stored in. `named` tells that options of the layer's own say the bits; `reason` why a
    node stays float."""

    form: Form = Form.FLOAT
    bits: int = 8
    per_channel: bool = True
    block: int = 0
    codebook: bool = False
    half: DType | None = None
    named: bool = False
    reason: str = ""


Schemes: TypeAlias = "Mapping[Node, Scheme]"
FREE = Scheme(Form.INTEGER)
"""What holds for nodes that are in no plan: they were added since, for the sake of one that is."""


def float_reason(schemes: Schemes, node: Node) -> str:
    """Why `node` is to stay float, or ""."""
    return schemes.get(node, FREE).reason


def left_float(schemes: Schemes, reasons: Mapping[Node, str]) -> dict[Node, Scheme]:
    """The schemes, with the nodes of `reasons` left float."""
    return {**schemes, **{node: Scheme(reason=reason) for node, reason in reasons.items()}}


def inherited(schemes: Schemes, steps_of: Mapping[Node, Sequence[Node]]) -> dict[Node, Scheme]:
    """The schemes, in which nodes that were written in the place of others have those of these."""
    return {**schemes, **{step: schemes[old] for old, steps in steps_of.items() if old in schemes for step in steps}}


def of_copy(schemes: Schemes, graph: Graph, copy: Graph) -> dict[Node, Scheme]:
    """The schemes of the nodes of `graph` for those of its `copy`."""
    return {twin: schemes[node] for node, twin in zip(graph.walk(), copy.walk(), strict=True) if node in schemes}


def alike(layers: Iterable[Linear], schemes: Schemes) -> dict[Scheme, list[Linear]]:
    """The layers of each scheme, in order."""
    groups: dict[Scheme, list[Linear]] = {}
    for layer in layers:
        groups.setdefault(replace(schemes[layer.node], named=False), []).append(layer)
    return groups
