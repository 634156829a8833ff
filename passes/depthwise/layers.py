"""Making convolutions depthwise-separable on the walk.

Only dense convolutions with a kernel of more than one tap have anything to separate; the layer that reads the graph's
input is left alone. Without a fixed rank, the lowest one is taken whose loss stays within `error` of the answer's
variance; the highest that saves MACs and parameters is tried first, because mostly not even that does. What is found
must not run longer than the layer, as measured (`layer_time`). Pointwise first is only offered where the layer does
not stride (its 1 x 1 runs at the input's resolution), and where its one factorisation an output is affordable. What a
rival does better is left for it (`rivals`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ...ir.graph import Value
from ...ir.origin import Origin
from ..base import Context, Report, Skip
from ..walk.choice import Choice
from ..walk.layer_time import slower, time_ratio
from ..walk.linear import Linear, too_small
from ..walk.rivals import made_by_rivals, outdo
from ..walk.saturation import eased
from ..walk.target import Array, Target
from ..walk.walk import Step, thin_note, walk, walkable
from . import dw_pw, pw_dw

if TYPE_CHECKING:
    from ...ir.attributes import Attribute
    from ...ir.graph import Graph, Node
    from .depthwise import Depthwise

Attributes: TypeAlias = "Attribute | list[int] | int"

DEAREST = 256
"""Channels times rank above which pointwise-first, with a factorisation of that size an output, is not tried."""


@dataclass(frozen=True, slots=True)
class Separated:
    """One separable form of a layer: weights of its two convolutions in ONNX layout, and the dense weights they
    mean."""

    form: str
    rank: int
    first: Array
    second: Array
    merged: Array
    loss: float


def separate(options: Depthwise, graph: Graph, ctx: Context) -> Report:
    """Run the pass `depthwise`."""
    report = Report()
    layers = walkable(graph, report)
    reasons = _kept_dense(layers) | made_by_rivals(layers, ctx)
    kept = {layer: reason for layer in layers if (reason := ctx.kept(options, layer.node))}
    reasons |= kept
    for layer, reason in reasons.items():
        report.skipped(layer.name, layer.op, reason)
    thin = 0
    for step in walk(graph, ctx, layers, report=report, changing=[layer for layer in layers if layer not in reasons]):
        thin += step.thin
        layer = step.layer
        if layer in reasons:
            if layer not in kept:
                step.settle()
            continue
        try:
            mine = ctx.options(options, layer.node)
            made, times = _choose(step, mine, ctx)
            over = outdo(step, ctx, _choice(step, made), None if mine.rank else mine.error)
            made, target = eased(step.saturation, step.target, made, _merged, partial(refit, layer))
        except Skip as skip:
            step.settle()
            report.skipped(layer.name, layer.op, skip.reason)
            continue
        error = round(step.target.error(made.merged[None]), 6)
        _replace(layer, made, None if layer.bias_place is None else target.bias(made.merged[None]))
        told = {} if times is None else {"time": times}
        report.done(layer.name, layer.op, form=made.form, rank=made.rank, error=error, **told, **layer.shared, **over)
    if thin:
        report.notes.append(thin_note(thin))
    return report


def _kept_dense(layers: list[Linear]) -> dict[Linear, str]:
    reasons = too_small(layers)
    for layer in layers:
        if layer.transposed:
            reasons[layer] = "transposed convolution: only plain ones are separated"
        elif not _spatial(layer):
            reasons[layer] = "it has no spatial kernel to separate"
        elif layer.groups > 1:
            reasons[layer] = "grouped convolution: separable already"
        elif layer.source.is_input:
            reasons[layer] = "it reads the model's input: few weights, and every one of them matters"
    return reasons


def _spatial(layer: Linear) -> bool:
    return layer.is_conv and not layer.transposed and int(np.prod(layer.kernel)) > 1


def _choose(step: Step, options: Depthwise, ctx: Context) -> tuple[Separated, float | None]:
    """The separable form that the options ask for, with how many times as long it takes where that was asked.

    Raises `Skip` where staying dense is best.
    """
    layer, target = step.layer, step.target
    taps = int(np.prod(layer.kernel))
    forms = _forms(layer, options.form)
    if options.rank:
        if options.rank > taps:
            raise Skip(f"rank {options.rank} is more than its {taps} kernel taps")
        made = [fit(target, layer, form, options.rank) for form in forms]
        return min(made, key=lambda one: one.loss), None
    error = options.error or 0.0

    def fitting(rank: int) -> list[Separated]:
        tried = [form for form in forms if form == "dw-pw" or len(forms) == 1 or layer.channels * rank <= DEAREST]
        made = (fit(target, layer, form, rank) for form in tried)
        return sorted((one for one in made if one.loss <= error * target.energy), key=lambda one: one.loss)

    ranks = [rank for rank in range(1, taps) if _saves(layer, rank)]
    found = fitting(ranks[-1]) if ranks else []
    if not found:
        raise Skip(f"no rank saves MACs and parameters within an error of {error:g}")
    low, high = 0, len(ranks) - 1
    while low < high:  # the loss falls with the rank
        middle = (low + high) // 2
        if fewer := fitting(ranks[middle]):
            found, high = fewer, middle
        else:
            low = middle + 1
    slow = []
    for one in found:
        ratio = _time(step, ctx, one)
        if not slower(ratio):
            return one, ratio
        slow.append(f"{ratio:.2f} times as long as {one.form}(rank={one.rank})")
    raise Skip(f"within an error of {error:g} it would run {' and '.join(slow)}")


def _time(step: Step, ctx: Context, made: Separated) -> float | None:
    def apply(layer: Linear) -> None:
        _replace(layer, made, None if layer.bias_place is None else step.target.bias(made.merged[None]))

    return time_ratio(step, ctx, f"depthwise {made.form} {made.rank}", apply)


def _saves(layer: Linear, rank: int) -> bool:
    _, n, d = layer.shape
    return rank * (d + n * layer.channels) < n * d and rank * (n * (d // layer.channels) + n * layer.channels) < n * d


def _choice(step: Step, made: Separated) -> Choice:
    """A separable form as it is, its cost a share of the layer's MACs."""
    cost = _share(step.layer, made.form, made.rank)
    return Choice(cost, step.target.error(made.merged[None]), made.form, {"rank": made.rank})


def _share(layer: Linear, form: str, rank: int) -> float:
    """The MACs of a form as a share of the layer's, where it reads as many positions as it answers."""
    _, n, d = layer.shape
    each = d if form == "dw-pw" else n * (d // layer.channels)
    return rank * (each + n * layer.channels) / (n * d)


def offer(options: Depthwise, step: Step, ctx: Context, most: float, tolerance: float) -> Choice | None:
    """See `Pass.offer`. The loss falls with the rank, so only the highest rank that costs no more is fitted."""
    layer, taps = step.layer, int(np.prod(step.layer.kernel))
    if not _spatial(layer) or layer.groups > 1:
        return None
    try:
        forms = _forms(layer, options.form)
    except Skip:
        return None
    ranks = [options.rank] if options.rank else [rank for rank in range(taps - 1, 0, -1) if _saves(layer, rank)]
    rank = next((r for r in ranks if r <= taps and min(_share(layer, form, r) for form in forms) <= most), None)
    if rank is None:
        return None
    fitting = [form for form in forms if _share(layer, form, rank) <= most]
    made = min((fit(step.target, layer, form, rank) for form in fitting), key=lambda one: one.loss)
    allowed = tolerance if options.error is None else options.error
    if not options.rank and (made.loss > allowed * step.target.energy or slower(_time(step, ctx, made))):
        return None
    return _choice(step, made)


def _forms(layer: Linear, wanted: str) -> tuple[str, ...]:
    pointwise_first = max(layer.strides) == 1
    if wanted == "pw-dw":
        if not pointwise_first:
            raise Skip("it strides, and pointwise first would run at the input's resolution")
        return ("pw-dw",)
    if wanted == "auto" and pointwise_first and layer.channels <= DEAREST // 4:
        return ("dw-pw", "pw-dw")
    return ("dw-pw",)


def fit(target: Target, layer: Linear, form: str, rank: int) -> Separated:
    """The separable form of `layer` (groups = 1) nearest to its target."""
    w, h = target.weight[0], target.hessian[0]
    if form == "dw-pw":
        return _separated(target, layer, form, *dw_pw.dw_pw(w, h, layer.channels, rank))
    return _separated(target, layer, form, *pw_dw.pw_dw(w, h, layer.channels, rank))


def _merged(made: Separated) -> Array:
    return made.merged


def refit(layer: Linear, target: Target, made: Separated) -> Separated:
    """The form and rank of `made`, fitted to another target from its factors on."""
    w, h, c, n = target.weight[0], target.hessian[0], layer.channels, layer.shape[1]
    if made.form == "dw-pw":
        pair = made.second.reshape(n, c, made.rank), made.first.reshape(c, made.rank, -1)
        return _separated(target, layer, made.form, *dw_pw.refit(w, h, *pair))
    return _separated(target, layer, made.form, *pw_dw.refit(w, h, made.second.reshape(n, made.rank, -1)))


def _separated(target: Target, layer: Linear, form: str, p: Array, d: Array) -> Separated:
    c, rank, kernel = layer.channels, d.shape[1], layer.kernel
    ones = (1,) * len(kernel)
    if form == "dw-pw":
        whole = dw_pw.merged(p, d)
        first, second = d.reshape(c * rank, 1, *kernel), p.reshape(len(p), c * rank, *ones)
    else:
        whole = pw_dw.merged(p, d)
        first, second = p.reshape(len(p) * rank, c, *ones), d.reshape(len(p), rank, *kernel)
    return Separated(form, rank, first, second, whole, target.loss(whole[None]))


def _replace(layer: Linear, made: Separated, bias: Array | None) -> None:
    """Convolutions in the layer's place; those with the kernel stride, pad and dilate as the layer did.

    Depthwise first, each term has a depthwise convolution of its own, and one pointwise reads them side by side: ONNX
    Runtime is slow on several filters a channel (64 channels of 28 x 28 at rank 2: 0.62 of the dense time against
    0.42).
    """
    weights: dict[str, Value] = {}
    for reader in layer.readers:
        _replace_one(reader, made, bias, weights)


def _replace_one(layer: Linear, made: Separated, bias: Array | None, weights: dict[str, Value]) -> None:
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

    if made.form == "dw-pw":
        c, k = layer.channels, made.rank
        terms = made.first.reshape(c, k, 1, *layer.kernel).swapaxes(0, 1)
        words = ["0"] if k == 1 else [f"0.{t}" for t in range(k)]
        read = [conv(layer.source, one, c, None, False, True, w).output for one, w in zip(terms, words, strict=True)]
        if k > 1:
            name = f"{node.name}.concat" if node.name else ""
            beside = graph.add(
                "Concat", read, {"axis": 1}, outputs=[f"{node.output.name}.0"], name=name, origin=origin, before=node
            )
            read = [beside.output]
        second = made.second.reshape(-1, c, k).swapaxes(1, 2).reshape(made.second.shape)
        end = conv(read[0], second, 1, bias, True, False)
    else:
        middle = conv(layer.source, made.first, 1, None, False, False)
        end = conv(middle.output, made.second, len(made.second), bias, True, True)
    node.output.replace_uses(end.output)
    graph.remove(node)
