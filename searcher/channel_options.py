"""The options of a group of channels: how many it keeps, with what the model's answers lose by that alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ..ir.graph import Node
from ..passes.prune.channels import least
from ..passes.prune.coupled import Coupled
from .layer_options import LEAST
from .space import Option

KEPT = (0.875, 0.75, 0.625, 0.5, 0.375, 0.25)
"""Shares of its channels that a group is offered to keep."""


def channel_options(one: Coupled, loss: Callable[[int], float]) -> tuple[Option, ...]:
    """Numbers of channels to keep, most first; `loss` tells what a number loses."""
    counts = [count for count in one.counts() if count >= least(one)]
    nearest = [min(counts, key=lambda k: (abs(k - share * one.size), k)) for share in KEPT]
    return tuple(
        Option(
            f"channels {count}",
            "channels",
            {"prune": {"ratio": 1.0 - count / one.size}},
            max(loss(count), LEAST),
            kept=count / one.size,
            measured=False,
        )
        for count in dict.fromkeys(nearest)
    )


def reach(one: Coupled, names: Mapping[Node, str]) -> dict[str, tuple[float, ...]]:
    """Layer -> the share of each of its weights' axes that the group is."""
    shares: dict[str, dict[int, float]] = {}
    for member in one.group.members:
        share = float(np.count_nonzero(member.index >= 0)) / max(len(member.index), 1)
        for node, index, _ in member.uses:
            if node in names and (index == 1 or (node.op == "MatMul" and index == 0)):
                shares.setdefault(names[node], {})[member.axis] = share
    return {name: tuple(by_axis.values()) for name, by_axis in shares.items()}
