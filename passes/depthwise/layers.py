"""What `depthwise` makes of one layer.

Only dense convolutions with a kernel of more than one tap have anything to separate. Without a fixed rank, the lowest
one is taken whose loss stays within `error` of the answer's variance, among those that save MACs and parameters and do
not run longer than the layer, as measured (`layer_time`); the highest of these is tried first, because mostly not even
that does. Pointwise first is only offered where the layer does not stride (its 1 x 1 runs at the input's resolution),
and where its one factorisation an output is affordable. What a rival does better is left for it (`rivals`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ...ir.graph import Value
from ...ir.origin import Origin
from ..base import Detail, Skip
from ..walk.choice import Choice
from ..walk.layer_time import slower
from ..walk.layerwise import Layerwise, Rewritten, first_in_time
from ..walk.linear import Linear
from ..walk.target import Array, LayerTarget
from ..walk.walk import Step
from . import dw_pw, pw_dw

if TYPE_CHECKING:
    from ...ir.attributes import Attribute
    from ...ir.graph import Node
    from .depthwise import Depthwise

Attributes: TypeAlias = "Attribute | list[int] | int"

DEAREST = 256
"""Channels times rank above which pointwise-first, with a factorisation of that size an output, is not tried."""


@dataclass(frozen=True, slots=True)
class Separated:
    """One separable form of a layer: weights of its two convolutions in ONNX layout, and the dense weights they
    mean."""

    kind: str
    rank: int
    first: Array
    second: Array
    merged: Array
    loss: float


SeparatedChoice: TypeAlias = Choice[Separated]


class Separate(Layerwise["Depthwise", Separated]):
    glances = True

    def stays(self, layer: Linear) -> str:
        if layer.transposed:
            return "transposed convolution: only plain ones are separated"
        if not _spatial(layer):
            return "it has no spatial kernel to separate"
        return "grouped convolution: separable already" if layer.groups > 1 else layer.otherwise

    def tolerance(self, options: Depthwise) -> float | None:
        return None if options.rank else options.error

    def choose(self, step: Step, options: Depthwise, allotted: SeparatedChoice | None) -> SeparatedChoice:
        layer, taps = step.layer, int(np.prod(step.layer.kernel))
        kinds = _kinds(layer, options.form)
        if options.rank:
            if options.rank > taps:
                raise Skip(f"rank {options.rank} is more than its {taps} kernel taps")
            return min((_fitted(step, kind, options.rank) for kind in kinds), key=_loss)
        error = options.error or 0.0
        if not error:
            raise Skip("it may lose nothing")
        allowed = error * step.target.energy
        ranks = [rank for rank in range(1, taps) if _saves(layer, rank)]
        slow: list[str] = []
        best: list[SeparatedChoice] = []
        for kind in kinds:
            own = [rank for rank in ranks if kind == "dw-pw" or len(kinds) == 1 or layer.channels * rank <= DEAREST]
            most = self._ranks_in_time(step, kind, own, slow)
            choice = _fitted(step, kind, own[most - 1], allowed) if most else None
            low, high = 0, most - 1
            while choice is not None and _loss(choice) <= allowed and low < high:  # the loss falls with the rank
                middle = (low + high) // 2
                if _loss(fewer := _fitted(step, kind, own[middle], allowed)) <= allowed:
                    choice, high = fewer, middle
                else:
                    low = middle + 1
            if choice is not None and _loss(choice) <= allowed:
                best.append(choice)
        if slow and not best:
            raise Skip(f"within an error of {error:g} it would take longer: it runs {' and '.join(slow)}")
        best.sort(key=lambda one: (one.settings["rank"], _loss(one)))
        return first_in_time(self, step, best, lambda choice: choice, error)

    def _ranks_in_time(self, step: Step, kind: str, ranks: Sequence[int], slow: list[str]) -> int:
        """How many of `ranks`, from the lowest, take no longer than the layer in this form. That is asked before
        anything is fitted: it is a matter of sizes, and known for all layers of the same."""
        low, high = 0, len(ranks)
        last = ""
        while low < high:
            middle = (low + high + 1) // 2
            form = _blank(step.layer, kind, ranks[middle - 1])
            choice = Choice(0.0, 0.0, kind, {"rank": form.rank}, form)
            ratio = self.timed(step, choice)
            if ratio is None:
                return len(ranks)
            if slower(ratio):
                high, last = middle - 1, f"{ratio:.2f} times as long as {choice}"
            else:
                low = middle
        slow += [last] if last else []
        return low

    def within(self, step: Step, options: Depthwise, most: float, tolerance: float) -> SeparatedChoice | None:
        """The loss falls with the rank, so only the highest rank that costs no more is fitted."""
        layer, taps = step.layer, int(np.prod(step.layer.kernel))
        if self.stays(layer):
            return None
        kinds = _kinds(layer, options.form)
        ranks = [options.rank] if options.rank else [rank for rank in range(taps - 1, 0, -1) if _saves(layer, rank)]
        rank = next((r for r in ranks if r <= taps and min(_share(layer, kind, r) for kind in kinds) <= most), None)
        if rank is None:
            return None
        allowed = (tolerance if options.error is None else options.error) * step.target.energy
        if options.rank:
            allowed = math.inf
        fitting = [kind for kind in kinds if _share(layer, kind, rank) <= most]
        best = min((_fitted(step, kind, rank, allowed) for kind in fitting), key=_loss)
        if not options.rank and (_loss(best) > allowed or slower(self.timed(step, best))):
            return None
        return best

    def dense(self, form: Separated) -> Array:
        return form.merged

    def refit(self, layer: Linear, target: LayerTarget, form: Separated) -> Separated:
        return refit(layer, target, form)

    def write(self, layer: Linear, form: Separated, bias: Array | None) -> None:
        """Convolutions in the layer's place; those with the kernel stride, pad and dilate as the layer did.

        Depthwise first, each term has a depthwise convolution of its own, and one pointwise reads them side by side:
        ONNX Runtime is slow on several filters a channel (64 channels of 28 x 28 at rank 2: 0.62 of the dense time
        against 0.42).
        """
        weights: dict[str, Value] = {}
        for reader in layer.readers:
            _replace(reader, form, bias, weights)

    def figures(self, done: Rewritten[Separated]) -> dict[str, Detail]:
        return {"form": done.form.kind, "rank": done.form.rank}


def _loss(choice: SeparatedChoice) -> float:
    assert choice.form is not None
    return choice.form.loss


def _fitted(step: Step, kind: str, rank: int, allowed: float = math.inf) -> SeparatedChoice:
    """A separable form, its cost a share of the layer's MACs; one that loses more than `allowed` is not fitted to the
    end."""
    form = fit(step.target, step.layer, kind, rank, allowed)
    return Choice(_share(step.layer, kind, form.rank), step.target.error(form.merged), kind, {"rank": form.rank}, form)


def _spatial(layer: Linear) -> bool:
    return layer.is_conv and not layer.transposed and int(np.prod(layer.kernel)) > 1


def _saves(layer: Linear, rank: int) -> bool:
    _, n, d = layer.shape
    return rank * (d + n * layer.channels) < n * d and rank * (n * (d // layer.channels) + n * layer.channels) < n * d


def _share(layer: Linear, kind: str, rank: int) -> float:
    """The MACs of a form as a share of the layer's, where it reads as many positions as it answers."""
    _, n, d = layer.shape
    each = d if kind == "dw-pw" else n * (d // layer.channels)
    return rank * (each + n * layer.channels) / (n * d)


def _kinds(layer: Linear, wanted: str) -> tuple[str, ...]:
    pointwise_first = max(layer.strides) == 1
    if wanted == "pw-dw":
        if not pointwise_first:
            raise Skip("it strides, and pointwise first would run at the input's resolution")
        return ("pw-dw",)
    if wanted == "auto" and pointwise_first and layer.channels <= DEAREST // 4:
        return ("dw-pw", "pw-dw")
    return ("dw-pw",)


def fit(target: LayerTarget, layer: Linear, kind: str, rank: int, allowed: float = math.inf) -> Separated:
    """The separable form of `layer` (groups = 1) nearest to its target, or one that loses more than `allowed`."""
    w, h = target.weight[0], target.hessian[0]
    if kind == "dw-pw":
        return _separated(target, layer, kind, *dw_pw.dw_pw(w, h, layer.channels, rank, allowed=allowed))
    return _separated(target, layer, kind, *pw_dw.pw_dw(w, h, layer.channels, rank, allowed=allowed))


def _blank(layer: Linear, kind: str, rank: int) -> Separated:
    """A form of zeros, of the sizes that `fit` gives it."""
    (_, n, d), channels, kernel = layer.shape, layer.channels, layer.kernel
    ones = (1,) * len(kernel)
    if kind == "dw-pw":
        first, second = np.zeros((channels * rank, 1, *kernel)), np.zeros((n, channels * rank, *ones))
    else:
        first, second = np.zeros((n * rank, channels, *ones)), np.zeros((n, rank, *kernel))
    return Separated(kind, rank, first, second, np.zeros((n, d)), 0.0)


def refit(layer: Linear, target: LayerTarget, form: Separated) -> Separated:
    """The kind and rank of `form`, fitted to another target from its factors on."""
    w, h, c, n = target.weight[0], target.hessian[0], layer.channels, layer.shape[1]
    if form.kind == "dw-pw":
        pair = form.second.reshape(n, c, form.rank), form.first.reshape(c, form.rank, -1)
        return _separated(target, layer, form.kind, *dw_pw.refit(w, h, *pair))
    return _separated(target, layer, form.kind, *pw_dw.refit(w, h, form.second.reshape(n, form.rank, -1)))


def _separated(target: LayerTarget, layer: Linear, kind: str, p: Array, d: Array) -> Separated:
    c, rank, kernel = layer.channels, d.shape[1], layer.kernel
    ones = (1,) * len(kernel)
    if kind == "dw-pw":
        whole = dw_pw.merged(p, d)
        first, second = d.reshape(c * rank, 1, *kernel), p.reshape(len(p), c * rank, *ones)
    else:
        whole = pw_dw.merged(p, d)
        first, second = p.reshape(len(p) * rank, c, *ones), d.reshape(len(p), rank, *kernel)
    return Separated(kind, rank, first, second, whole, target.loss(whole[None]))


def _replace(layer: Linear, form: Separated, bias: Array | None, weights: dict[str, Value]) -> None:
    """`weights` are the constants made so far, by name: twins share them."""
    node = layer.node
    graph = node.graph
    assert graph is not None
    plain: dict[str, Attributes] = {"kernel_shape": [1] * len(layer.kernel)}
    spatial: dict[str, Attributes] = {"kernel_shape": list(layer.kernel)}
    spatial |= {k: v for k, v in node.attributes.items() if k not in ("group", "kernel_shape")}
    weight = layer.weight.name

    def constant(data: Array, name: str) -> Value:
        if name not in weights:
            weights[name] = layer.constant(data, name)
        return weights[name]

    origin = Origin.merge([node.origin], by="depthwise")

    def conv(
        value: Value, data: Array, groups: int, shift: Array | None, last: bool, kernel: bool, word: str = ""
    ) -> Node:
        word = word or str(int(last))
        inputs = [value, constant(data, f"{weight}.{word}")]
        if shift is not None:
            inputs.append(constant(shift, f"{weight}.bias"))
        name = node.output.name if last else f"{node.output.name}.{word}"
        return graph.add(
            "Conv",
            inputs,
            {**(spatial if kernel else plain), "group": groups},
            outputs=[name],
            types=[node.output.type] if last else (),
            name=f"{node.name}.{word}" if node.name else "",
            origin=origin,
            before=node,
        )

    if form.kind == "dw-pw":
        c, k = layer.channels, form.rank
        terms = form.first.reshape(c, k, 1, *layer.kernel).swapaxes(0, 1)
        words = ["0"] if k == 1 else [f"0.{t}" for t in range(k)]
        read = [conv(layer.source, one, c, None, False, True, w).output for one, w in zip(terms, words, strict=True)]
        if k > 1:
            name = f"{node.name}.concat" if node.name else ""
            beside = graph.add(
                "Concat", read, {"axis": 1}, outputs=[f"{node.output.name}.0"], name=name, origin=origin, before=node
            )
            read = [beside.output]
        second = form.second.reshape(-1, c, k).swapaxes(1, 2).reshape(form.second.shape)
        end = conv(read[0], second, 1, bias, True, False)
    else:
        middle = conv(layer.source, form.first, 1, None, False, False)
        end = conv(middle.output, form.second, len(form.second), bias, True, True)
    node.output.replace_uses(end.output)
    graph.remove(node)
