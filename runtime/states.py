"""Which inputs of a model are its state: what it hands from one call to the next, nothing at the first.

An input is state where another one carries data, an output of its shape may be its next value, and either its name says
so (`past_key`, `state`, `h0`) or its batch stands behind a fixed axis (layers, directions), as in `[2, N, 128]`. All
three, for a name tells little: `encoder_hidden_states` are what another model answered, `past_values` a series.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..ir.graph import Graph, Value
from ..ir.types import DType
from .axes import fed_inputs

_WORD = re.compile(r"(?<![a-z])(past|state|cache|hidden(?!_?states)|[hc]_?0|(?<!hidden_)states)(?![a-z])")


def state_inputs(graph: Graph, axes: Mapping[str, int | None]) -> frozenset[str]:
    """The names of the inputs that are state; `axes` are those of `batch_axes`."""
    inputs = fed_inputs(graph)
    # A scalar (a sampling rate) is not what a model works on.
    arrays = {value.name for value in inputs if value.shape != ()}
    returning = [value for value in inputs if _returns(value, graph)]
    named = frozenset(value.name for value in returning if _WORD.search(value.name.lower()))
    placed = frozenset(value.name for value in returning if _is_behind(value, axes[value.name]))
    return next((states for states in (named | placed, named) if arrays - states), frozenset())


def _is_behind(value: Value, axis: int | None) -> bool:
    """Whether the batch stands behind a fixed axis."""
    return bool(axis and value.shape and isinstance(value.shape[0], int))


def _returns(value: Value, graph: Graph) -> bool:
    """Whether an output may hold the next value: no size that both fix differs."""
    return (value.dtype or DType.FLOAT).is_float and any(
        output.value.dtype in (None, value.dtype) and _may_equal(value, output.value) for output in graph.outputs
    )


def _may_equal(one: Value, other: Value) -> bool:
    if one.shape is None or other.shape is None:
        return True
    return len(one.shape) == len(other.shape) and all(
        a == b or not isinstance(a, int) or not isinstance(b, int) for a, b in zip(one.shape, other.shape, strict=True)
    )
