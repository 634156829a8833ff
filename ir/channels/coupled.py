"""Coupled channels: what must be removed together, and its removal.

A *channel* is a class of elements that live and die together (`channel_flow`); a *group* is a set of channels alike:
they lie in the same axes of the same values, equally often. The inner channels of a residual block are one group, a
residual stream is one, the heads of an attention layer are one, the neurons of a feed-forward layer are one. Groups
follow from the graph alone: residual sums, Concat, depthwise convolutions need no case of their own.

Constants that are nodes are not seen as weights: clean the graph first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..graph import Graph, Node, Value
from ..shapes.infer import infer
from ..tensor import ArrayTensor
from ..types import TensorType
from .flow import Flow, Labels, Role
from .rules import RULES

__all__ = ["ChannelGroup", "CoupledChannels", "Member", "Role", "channel_groups"]


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One axis of one constant that holds channels of a group.

    `index` (length of the axis) is the channel that each element belongs to, or -1. `uses` are the nodes that read the
    constant, with the input it is and the part it plays there.
    """

    value: Value
    axis: int
    index: npt.NDArray[np.int64]
    uses: tuple[tuple[Node, int, Role], ...]

    @property
    def role(self) -> Role:
        return self.uses[0][2]

    def positions(self, channel: int) -> npt.NDArray[np.intp]:
        """The elements along the axis that belong to `channel`."""
        return np.flatnonzero(self.index == channel)


@dataclass(frozen=True, slots=True, eq=False)
class ChannelGroup:
    """`size` channels alike. `reason` says why they must stay; it is empty where they may go, all but one."""

    size: int
    members: tuple[Member, ...]
    reason: str = ""

    @property
    def prunable(self) -> bool:
        return not self.reason

    @property
    def producers(self) -> tuple[Member, ...]:
        """The weights whose axis makes the channels."""
        return tuple(m for m in self.members if m.role is Role.PRODUCER)

    @property
    def consumers(self) -> tuple[Member, ...]:
        """The weights that are summed over the channels."""
        return tuple(m for m in self.members if m.role is Role.CONSUMER)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes that read the members, each once."""
        return tuple(dict.fromkeys(node for m in self.members for node, _, _ in m.uses))

    def __repr__(self) -> str:
        names = ", ".join(m.uses[0][0].name or m.value.name for m in self.producers or self.members[:1])
        return f"ChannelGroup({self.size} of {names}{': ' + self.reason if self.reason else ''})"


class CoupledChannels:
    """The channel groups of `graph` as it is now; any edit but `prune` makes them void, and so does `prune`."""

    __slots__ = ("graph", "groups", "_flow", "_classes", "_members")

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._flow = Flow(graph, RULES)
        self._classes, reasons = self._flow.classes()
        self._members: dict[ChannelGroup, Labels] = {}
        self.groups = tuple(self._group(reasons))

    def _group(self, reasons: dict[int, str]) -> list[ChannelGroup]:
        classes, flow = self._classes, self._flow
        arrays = {id(a): classes[a] for axes in flow.arrays.values() for a in axes if a is not None}
        seen: dict[int, list[tuple[int, int]]] = {}
        for key, array in enumerate(arrays.values()):
            for one, times in zip(*np.unique(array, return_counts=True), strict=True):
                seen.setdefault(int(one), []).append((key, int(times)))
        alike: dict[tuple[object, ...], list[int]] = {}
        for one in sorted(seen):
            alike.setdefault((reasons.get(one, ""), *seen[one]), []).append(one)
        place = np.full(len(classes), -1, np.int64)
        of_group = np.full(len(classes), -1, np.int64)
        members: list[list[Member]] = [[] for _ in alike]
        for number, same in enumerate(alike.values()):
            place[same] = np.arange(len(same))
            of_group[same] = number
        for (value, axis), readers in flow.ties.items():
            labels = flow.arrays[value][axis]
            assert labels is not None
            uses = tuple((node, index, role) for (node, index), role in readers.items())
            owners = of_group[classes[labels]]
            for number in np.unique(owners):
                index = np.where(owners == number, place[classes[labels]], -1)
                members[int(number)].append(Member(value, axis, index, uses))
        groups = []
        for (first, *_), same, coupled in zip(alike, alike.values(), members, strict=True):
            if coupled:
                reason = str(first) or ("its channels only go all together" if len(same) == 1 else "")
                group = ChannelGroup(len(same), tuple(coupled), reason)
                self._members[group] = np.asarray(same, np.int64)
                groups.append(group)
        return groups

    def prune(self, keeps: Mapping[ChannelGroup, npt.NDArray[np.bool_]]) -> None:
        """Remove the channels that `keeps` (a mask for each group) does not keep, from every tensor and stored size.

        Raises `ValueError` for a group that may not lose channels, or would lose all.
        """
        stays = np.ones(len(self._classes), bool)
        for group, keep in keeps.items():
            if keep.shape != (group.size,) or not keep.any():
                raise ValueError(f"{group} needs a mask of {group.size} that keeps at least one")
            if group.reason and not keep.all():
                raise ValueError(f"{group} must stay: {group.reason}")
            stays[self._members[group][~keep]] = False

        def mask(labels: Labels) -> npt.NDArray[np.bool_]:
            return np.asarray(stays[self._classes[labels]])

        for value in dict.fromkeys(value for value, _ in self._flow.ties):
            _shrink(value, [None if a is None else mask(a) for a in self._flow.arrays[value]])
        for fix in self._flow.fixes:
            fix(mask)
        self.graph.sweep()
        infer(self.graph, fresh=True)


def _shrink(value: Value, masks: list[npt.NDArray[np.bool_] | None]) -> None:
    if value.constant is None or all(m is None or m.all() for m in masks):
        return
    array = value.constant.numpy()
    for axis, keep in enumerate(masks):
        if keep is not None and not keep.all():
            array = np.compress(keep, array, axis=axis)
    value.constant = ArrayTensor(np.ascontiguousarray(array), value.constant.dtype)
    value.type = TensorType(value.constant.dtype, value.constant.shape)


def channel_groups(graph: Graph) -> tuple[ChannelGroup, ...]:
    """The channel groups of `graph`, in the order in which their first channels are made."""
    return CoupledChannels(graph).groups
