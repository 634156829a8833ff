"""One layer as a chain of thinner ones: what a form costs, what it loses, and the nodes it becomes.

`Split` holds the factors of one form at one rank. All forms end in a node that gives the layer's old output (same name,
so that later passes still find the teacher's value) and carry the bias there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...ir.graph import Node, Value
from ...ir.origin import Origin
from ..walk.linear import Linear
from ..walk.target import Array, LayerTarget
from ..walk.walk import Step
from .channel import ChannelSplit, channel_split
from .products import replace_products
from .spatial import (
    Metric,
    Problem,
    best_order,
    factors,
    merged,
    of_factors,
    short_fit,
    spatial_curve,
    spatial_refit,
)
from .tucker import tucker_fit

FORMS = ("channel", "spatial", "tucker")


@dataclass(frozen=True, slots=True)
class SplitWork:
    """What a layer does: weights n x c x kernel, `positions` outputs a sample, `wide` positions after striding only the
    first kernel axis, `read` input positions; a `transposed` convolution applies its kernel at these."""

    n: int
    c: int
    kernel: tuple[int, ...]
    positions: int
    wide: int
    read: int
    transposed: bool = False

    @staticmethod
    def of(step: Step) -> SplitWork:
        layer, positions = step.layer, step.positions
        if layer.transposed:
            read = int(np.prod(step.input[2:]))
            return SplitWork(layer.shape[1], layer.channels, layer.kernel, positions, positions, read, transposed=True)
        strides = layer.strides if layer.is_conv else ()
        across = strides[-1] if len(strides) == 2 else 1
        _, n, _ = layer.shape
        return SplitWork(
            n, layer.channels, layer.kernel, positions, positions * across, positions * int(np.prod(strides))
        )

    @property
    def taps(self) -> int:
        return int(np.prod(self.kernel or (1,)))

    def macs(self, form: str, rank: int, inner: int = 0) -> int:
        """Multiply-accumulates a sample of `form` at `rank` (Tucker: r_out, with r_in = `inner`)."""
        n, c, taps = self.n, self.c, self.taps
        sites = self.read if self.transposed else self.positions
        if form == "keep":
            return n * c * taps * sites
        if form == "channel":
            return rank * (c * taps * sites + n * self.positions)
        if form == "spatial":
            return rank * (c * self.kernel[0] * self.wide + n * self.kernel[1] * self.positions)
        return inner * c * self.read + rank * (inner * taps + n) * self.positions

    def parameters(self, form: str, rank: int, inner: int = 0) -> int:
        n, c, taps = self.n, self.c, self.taps
        if form == "keep":
            return n * c * taps
        if form == "channel":
            return rank * (c * taps + n)
        if form == "spatial":
            return rank * (c * self.kernel[0] + n * self.kernel[1])
        return inner * c + rank * (inner * taps + n)


def forms_of(layer: Linear) -> tuple[str, ...]:
    """The forms that can split this layer."""
    if layer.transposed:
        return ("channel",)
    if layer.is_conv and len(layer.kernel) == 2 and min(layer.kernel) > 1:
        return FORMS
    if layer.is_conv and int(np.prod(layer.kernel)) > 1:
        return ("channel", "tucker")
    return ("channel",)


@dataclass(frozen=True, slots=True)
class Split:
    """The factors of one form; `loss` as `Target.loss` counts it."""

    kind: str
    factors: tuple[Array, ...]
    merged: Array
    loss: float

    def apply(self, layer: Linear, bias: Array | None) -> None:
        """Put the chain in the layer's place, with the `bias` of its last factor."""
        if not layer.is_conv:
            replace_products(layer, self.factors, bias)
            return
        name = layer.weight.name
        shift = None if bias is None else layer.constant(bias, f"{name}.bias")
        # A transposed convolution to the rank, then the 1 x 1 is a plain one.
        turned = [f.swapaxes(0, 1) if layer.transposed and f is not self.factors[-1] else f for f in self.factors]
        weights = [layer.constant(factor, f"{name}.{number}") for number, factor in enumerate(turned)]
        for reader in layer.readers:
            _replace_conv(reader, self.factors, weights, shift)


class BegunSplit:
    """What is found once for the layer at hand, whatever the rank: its channel split, and its spatial problems in each
    order that is worth trying. What the metric alone decides outlasts the target."""

    def __init__(self) -> None:
        self._target: LayerTarget | None = None
        self._channel: ChannelSplit | None = None
        self._metrics: dict[bool, Metric] = {}
        self._problems: dict[bool, Problem] = {}

    def _turn_to(self, target: LayerTarget) -> None:
        if self._target is None or self._target.hessian is not target.hessian:
            self._metrics.clear()
        if self._target is not target:
            self._problems.clear()
            self._channel = None
        self._target = target

    def channel(self, target: LayerTarget) -> ChannelSplit:
        self._turn_to(target)
        if self._channel is None:
            self._channel = channel_split(target.weight[0], target.hessian[0])
        return self._channel

    def problem(self, target: LayerTarget, layer: Linear, turned: bool) -> Problem:
        """The problem of one order; `turned` is 1 x k before k x 1."""
        self._turn_to(target)
        kernel = layer.channels, layer.kernel[0], layer.kernel[1]
        if turned not in self._metrics:
            self._metrics[turned] = Metric.of(target.hessian[0], kernel, turned=turned)
        if turned not in self._problems:
            self._problems[turned] = Problem.of(target.weight[0], self._metrics[turned], kernel, turned=turned)
        return self._problems[turned]

    def problems(self, target: LayerTarget, layer: Linear) -> list[Problem]:
        return [self.problem(target, layer, turned) for turned in turns(layer)]

    def losses(self, target: LayerTarget, layer: Linear) -> Array:
        """About the loss of every rank of the better order."""
        return spatial_curve(self.problems(target, layer))

    def loss(self, target: LayerTarget, layer: Linear, rank: int, allowed: float) -> float:
        """About the loss of one rank of the better order, by a short fit; an order that will lose more than `allowed`
        is not fitted to the end."""
        return short_fit(self.problems(target, layer), rank, allowed)

    def spatial(self, target: LayerTarget, layer: Linear, rank: int) -> Split:
        _, number, pair = best_order(self.problems(target, layer), rank)
        return _spatial(target, layer, pair, turns(layer)[number])

    def resplit(self, target: LayerTarget, layer: Linear, form: Split) -> Split:
        first, second = form.factors
        turned = first.shape[3] > 1
        problem = self.problem(target, layer, turned)
        return _spatial(target, layer, spatial_refit(problem, *of_factors(first, second)), turned)


def split(target: LayerTarget, layer: Linear, form: str, rank: int, inner: int = 0, *, begun: BegunSplit) -> Split:
    """Factor the target of `layer` (groups = 1) into `form` at `rank`."""
    w, h = target.weight[0], target.hessian[0]
    if form == "channel":
        return channel_form(layer, begun.channel(target), target, rank)
    if form == "spatial":
        return begun.spatial(target, layer, rank)
    basis, b, a = tucker_fit(w, h, layer.channels, inner, rank)
    taps = layer.kernel
    core = b.reshape(rank, inner, *taps)
    whole = a @ np.tensordot(b.reshape(rank, inner, -1), basis, axes=([1], [0])).transpose(0, 2, 1).reshape(rank, -1)
    ones = (1,) * len(taps)
    return Split(form, (basis.reshape(*basis.shape, *ones), core, a.reshape(*a.shape, *ones)), whole,
                 target.loss(whole[None]))  # fmt: skip


def resplit(layer: Linear, target: LayerTarget, form: Split, *, begun: BegunSplit) -> Split:
    """The form and the ranks of `form`, fitted to another target; alternating fits start from its factors."""
    if form.kind == "spatial":
        return begun.resplit(target, layer, form)
    inner = len(form.factors[0]) if form.kind == "tucker" else 0
    rank = len(form.factors[1 if inner else 0])
    return split(target, layer, form.kind, rank, inner, begun=begun)


def _spatial(target: LayerTarget, layer: Linear, pair: tuple[Array, Array], turned: bool) -> Split:
    whole = merged(*pair, layer.channels, turned=turned)
    return Split("spatial", factors(*pair, layer.channels, turned=turned), whole, target.loss(whole[None]))


def turns(layer: Linear) -> tuple[bool, ...]:
    """The orders of a spatial split: k x 1 before 1 x k and, where that costs the same, 1 x k first ("turned")."""
    same = len(set(layer.kernel)) == 1 and len(set(layer.strides)) == 1
    return (False, True) if same else (False,)


def channel_form(layer: Linear, factors: ChannelSplit, target: LayerTarget, rank: int) -> Split:
    a, b = factors.factors(rank)
    whole = a @ b
    if layer.is_conv:
        ones = (1,) * len(layer.kernel)
        return Split("channel", (b.reshape(rank, layer.channels, *layer.kernel), a.reshape(*a.shape, *ones)), whole,
                     target.loss(whole[None]))  # fmt: skip
    return Split("channel", (b, a), whole, target.loss(whole[None]))


def _replace_conv(layer: Linear, factors: tuple[Array, ...], weights: Sequence[Value], bias: Value | None) -> None:
    node = layer.node
    graph = node.graph
    assert graph is not None
    origin = Origin.merge([node.origin], by="svd")
    value = layer.source
    for number, factor in enumerate(factors):
        last = number == len(factors) - 1
        inputs = [value, weights[number]]
        if last and bias is not None:
            inputs.append(bias)
        spread = layer.transposed and not last
        first = graph.add(
            "ConvTranspose" if spread else "Conv",
            inputs,
            dict(node.attributes) if spread else _geometry(node, factor.shape[2:], layer.kernel, first=number == 0),
            outputs=[node.output.name if last else f"{node.output.name}.{number}"],
            types=[node.output.type] if last else (),
            name=f"{node.name}.{number}" if node.name else "",
            origin=origin,
            before=node,
        )
        value = first.output
    node.output.replace_uses(value)
    graph.remove(node)


def _geometry(node: Node, kernel: tuple[int, ...], full: tuple[int, ...], *, first: bool) -> dict[str, list[int] | str]:
    """Attributes of a factor: along the axes where it has the full kernel it strides, pads and dilates as the layer
    did.

    Along an axis of one tap every factor has the full kernel; the first one strides there.
    """
    rank = len(kernel)
    strides, dilations = node.get_ints("strides", (1,) * rank), node.get_ints("dilations", (1,) * rank)
    pads, auto = node.get_ints("pads", (0,) * (2 * rank)), node.get_string("auto_pad", "NOTSET")
    takes = [first if whole == 1 else size == whole for size, whole in zip(kernel, full, strict=True)]
    attributes: dict[str, list[int] | str] = {
        "kernel_shape": list(kernel),
        "strides": [s if t else 1 for s, t in zip(strides, takes, strict=True)],
        "dilations": [d if t else 1 for d, t in zip(dilations, takes, strict=True)],
    }
    if auto in ("", "NOTSET"):
        attributes["pads"] = [p if t else 0 for p, t in zip(pads, takes * 2, strict=True)]
    else:
        attributes["auto_pad"] = auto
    return attributes
