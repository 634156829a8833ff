"""Channel groups as the walk sees them: which layers read a group, in which columns, and whether it may be pruned.

A group can be pruned where every weight that is summed over its channels belongs to a layer that the walk can refit
(`linear`): these layers make up for what is taken away. A group is a *residual stream* where an Add joins channels that
different layers make, and *inner* otherwise (the middle of a block, the neurons of a feed-forward layer, the heads of
an attention layer). Streams feed every block behind them and are the more fragile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...ir.channels.coupled import ChannelGroup
from ...ir.graph import Node, Value
from ..walk.linear import Linear
from ..walk.refit import refit_columns
from ..walk.target import Array, LayerTarget
from .structured import Consumer

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """A layer that reads a group. `channel` (inputs a group,): which channel an input of the layer is, or -1."""

    layer: Linear
    channel: NDArray[np.int64]

    def _columns(self) -> NDArray[np.int64]:
        """The channel of every column of the layer's weights, or -1."""
        return np.repeat(self.channel, self.layer.shape[2] // len(self.channel))

    def consumers(self, target: LayerTarget) -> list[Consumer]:
        """The layer as a consumer, once for each group of a grouped convolution."""
        columns = self._columns()
        size = int(columns.max()) + 1
        at = np.argsort(columns, kind="stable")[np.count_nonzero(columns < 0) :].reshape(size, -1)
        parts = zip(_heard(target), target.hessian, strict=True)
        return [Consumer(weight, hessian, target.energy, at) for weight, hessian in parts]

    def stays(self, keep: Mask) -> Mask:
        """The columns of the layer that stay when `keep` of the group's channels do."""
        columns = self._columns()
        return np.asarray((columns < 0) | keep[columns])


def _heard(target: LayerTarget) -> Array:
    """The target weights, zero where the input never varies: the bias stands in for such a channel."""
    if target.hessian.shape[1] == 1:
        return target.weight
    diagonal = np.einsum("gdd->gd", target.hessian)
    silent = np.count_nonzero(target.hessian, axis=2) <= (diagonal != 0.0)
    return np.where(silent[:, None, :], 0.0, target.weight)


def refit_without(target: LayerTarget, stays: Mask) -> Array:
    """The weights (groups, n, d) nearest to the target that are zero outside the columns `stays`."""
    columns = np.flatnonzero(stays)
    out = np.zeros_like(target.weight)
    for part, weight, hessian in zip(out, target.weight, target.hessian, strict=True):
        part[:, columns] = refit_columns(weight, hessian, columns)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class Coupled:
    """A channel group with the layers that read it. `reason` says why it stays whole; empty where it can be pruned.

    `unit` is the number of channels to remove at a time, so that every axis they lie in stays a multiple of what the
    target's kernels like.
    """

    group: ChannelGroup
    readers: tuple[Reader, ...]
    unit: int
    stream: bool
    reason: str

    @property
    def size(self) -> int:
        return self.group.size

    @property
    def node(self) -> Node:
        """The node that names the group: the first that makes its channels."""
        nodes = self.group.producers or self.group.members
        return nodes[0].uses[0][0]

    @property
    def name(self) -> str:
        return self.node.label

    def counts(self) -> range:
        """The numbers of channels that may be kept, all of them excepted."""
        return range(self.unit, self.size, self.unit)


def coupled_groups(
    groups: Sequence[ChannelGroup], layers: Sequence[Linear], refused: Sequence[tuple[Node, str]], align: int
) -> list[Coupled]:
    """`groups` in their order, as the walk over `layers` sees them; `refused` are the nodes that it cannot refit."""
    by_node = {reader.node: layer for layer in layers for reader in layer.readers}
    reasons = dict(refused)
    streams = _Streams()
    coupled = []
    for group in groups:
        readers: list[Reader] = []
        reason = group.reason
        for member in group.consumers:
            for node, index, _ in member.uses:
                layer = by_node.get(node)
                if layer is None or index != 1:
                    why = reasons.get(node, "it cannot be refitted")
                    reason = reason or f"{node.op} '{node.label}', which reads it: {why}"
                elif not any(reader.layer is layer and reader.channel is member.index for reader in readers):
                    readers.append(Reader(layer, member.index))
        if not reason and not readers:
            reason = "no weights that read it could make up for what is taken away"
        coupled.append(Coupled(group, tuple(readers), _unit(group, align), streams.joins(group), reason))
    return coupled


def _unit(group: ChannelGroup, align: int) -> int:
    """The fewest channels that lie in a multiple of `align` elements of every axis of a layer's weights (an axis of one
    each: `align`)."""
    unit = 1
    for member in [*group.producers, *group.consumers] or group.members:
        width = len(member.positions(0))
        unit = math.lcm(unit, align // math.gcd(align, width))
    return unit


class _Streams:
    """Finds groups whose channels an Add joins from different producers."""

    def __init__(self) -> None:
        self._sources: dict[Value, frozenset[Node]] = {}

    def joins(self, group: ChannelGroup) -> bool:
        producers = {node for member in group.producers for node, _, _ in member.uses}
        if len(producers) < 2:
            return False
        adds = {user for node in producers for user in self._adds_behind(node)}
        for add in adds:
            makers = [self._made_by(v) & producers for v in add.inputs if v is not None and v.constant is None]
            if len([one for one in makers if one]) > 1 and len(frozenset().union(*makers)) > 1:
                return True
        return False

    def _adds_behind(self, start: Node) -> set[Node]:
        """The additions that the values made by `start` reach before the next layer with weights."""
        adds: set[Node] = set()
        seen: set[Node] = set()
        stack = [start]
        while stack:
            for value in stack.pop().outputs:
                for user in value.users:
                    if not isinstance(user, Node) or user in seen:
                        continue
                    seen.add(user)
                    if user.op in ("Add", "Sum"):
                        adds.add(user)
                    if not _makes_channels(user):
                        stack.append(user)
        return adds

    def _made_by(self, value: Value) -> frozenset[Node]:
        """The layers with weights whose answers `value` is made of."""
        if value in self._sources:
            return self._sources[value]
        makers: set[Node] = set()
        seen: set[Node] = set()
        stack = [value.producer]
        while stack:
            node = stack.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if _makes_channels(node):
                makers.add(node)
            else:
                stack += [v.producer for v in node.inputs if v is not None]
        self._sources[value] = frozenset(makers)
        return self._sources[value]


def _makes_channels(node: Node) -> bool:
    """Whether `node` mixes channels by weights (a depthwise convolution does not)."""
    if node.op not in ("Conv", "ConvTranspose", "Gemm", "MatMul", "Gather"):
        return False
    if node.op == "Conv":
        weight = node.input(1)
        return (
            weight is None or weight.constant is None or node.get_int("group", 1) == 1 or weight.constant.shape[1] > 1
        )
    return any(v is not None and v.constant is not None for v in node.inputs)
