"""The local rules, in the order in which they are tried on a node."""

from __future__ import annotations

import functools

from . import (
    activation,
    affine,
    batchnorm,
    branch,
    cast,
    chain,
    compress,
    concat,
    expand,
    gemm,
    hard,
    identity,
    neutral,
    pad,
    pool,
    reduce,
    sandwich,
    slice,
    transpose,
    view,
)  # fmt: skip
from .rewriter import Rule

RULES: tuple[Rule, ...] = (
    identity.RULE,
    neutral.RULE,
    branch.RULE,
    *cast.RULES,
    transpose.RULE,
    *view.RULES,
    *slice.RULES,
    *concat.RULES,
    *expand.RULES,
    compress.RULE,
    *pad.RULES,
    pool.RULE,
    *reduce.RULES,
    sandwich.RULE,
    *activation.RULES,
    *hard.RULES,
    *batchnorm.RULES,
    *affine.RULES,
    chain.RULE,
    *gemm.RULES,
)


@functools.cache
def by_op() -> dict[str, tuple[Rule, ...]]:
    """The rules that look at each operator."""
    table: dict[str, list[Rule]] = {}
    for rule in RULES:
        for op in rule.ops:
            table.setdefault(op, []).append(rule)
    return {op: tuple(rules) for op, rules in table.items()}
