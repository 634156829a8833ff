"""Gradient rules: for each operator, the nodes that compute the gradients of its inputs.

A rule takes a `GradientCall` and a `Builder` and returns one value an input, or `None` where no gradient flows
(indices, shapes, masks). It raises `CannotDifferentiate` where this node has no derivative that it knows.
"""

from __future__ import annotations

from ..builder import CannotDifferentiate
from . import (
    activations,
    arithmetic,
    contrib,
    convolution,
    normalisations,
    pooling,
    products,
    quantized,
    reductions,
    resizing,
    selection,
    structure,
)
from .call import GradientCall, Rule

__all__ = ["RULES", "ZERO", "CannotDifferentiate", "GradientCall", "Rule"]

_MODULES = (
    activations, arithmetic, convolution, normalisations, pooling, products, quantized, reductions, resizing, selection,
    structure,
)  # fmt: skip

RULES: dict[tuple[str, str], Rule] = {("", op): rule for module in _MODULES for op, rule in module.RULES.items()} | {
    ("com.microsoft", op): rule for op, rule in contrib.RULES.items()
}
"""(domain, op) -> rule."""

ZERO: frozenset[tuple[str, str]] = frozenset(
    ("", op)
    for op in (
        "Shape", "Size", "Sign", "Floor", "Ceil", "ConstantOfShape", "EyeLike", "RandomNormalLike", "RandomUniformLike",
        "Bernoulli", "Multinomial", "ArgMax", "ArgMin", "NonZero", "NonMaxSuppression", "IsNaN", "IsInf", "Not", "And",
        "Or", "Xor", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "OneHot", "Range", "Unique",
    )
)  # fmt: skip
"""Operators whose derivative is zero wherever there is one, or whose results are no floats."""
