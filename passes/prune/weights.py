"""Unstructured and n:m pruning on the walk: masks on the target weights, then a least-squares refit of what stays.

Three masks are tried (SparseGPT, magnitude, magnitude scaled by the inputs) and the one whose refit answers the teacher
best is kept, then weights are exchanged for dropped ones as long as that helps. n:m groups run along the reduction
axis: over the input channels at a fixed kernel tap, as kernels that use them read the weights.

Left dense: layers that read the graph's input and depthwise layers (a few percent of the weights, and the most
fragile), but their remaining weights are refitted too. With `scope=global` a first walk over the unchanged student
records each layer's error at several sparsities, and the knapsack spreads the ratio. Without a ratio each layer loses
what `error` allows. Layers that the user keeps are not even refitted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...errors import SpecError
from ..base import Context, Outcome, Report, Skip
from ..walk.allocate import knapsack
from ..walk.choice import Choice
from ..walk.linear import Linear, too_small
from ..walk.refit import fit_masked
from ..walk.saturation import eased
from ..walk.target import Array, Target, inverse_factor
from ..walk.walk import Step, thin_note, walk, walkable
from .exchange import GAIN, exchange, single
from .masks import Grouped, Pattern, Unstructured, keep_largest, sparsegpt_mask
from .storage import store_sparse

if TYPE_CHECKING:
    from ...ir.graph import Graph
    from .prune import Prune

ADAPTIVE = Unstructured(0.0)
"""Stands for the sparsity that the error allows, found when the layer is reached."""

LEVELS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97)


def prune_weights(options: Prune, graph: Graph, ctx: Context) -> Report:
    """Run `prune:kind=unstructured` or `kind=nm`."""
    if options.kind == "nm" and options.n >= options.m:
        raise SpecError(f"n={options.n} of m={options.m} keeps everything; n must be less than m")
    report = Report()
    layers = walkable(graph, report)
    dense = _kept_dense(layers)
    kept = {layer: reason for layer in layers if (reason := ctx.kept(options, layer.node))}
    dense |= kept
    own = {layer: ctx.options(options, layer.node) for layer in layers if layer not in dense}
    patterns = _patterns(options, graph, ctx, own)
    thin = 0
    for step in walk(graph, ctx, layers, report=report):
        thin += step.thin
        layer = step.layer
        if layer in kept:
            report.skipped(layer.name, layer.op, kept[layer])
            continue
        reason = dense.get(layer, "pruning it is not worth its error")
        _visit(step, patterns.get(layer), reason, own[layer].error or 0.0 if layer in own else 0.0, report)
    if thin:
        report.notes.append(thin_note(thin))
    if options.store == "sparse":
        done = {one.name for one in report.layers if one.outcome is Outcome.DONE}
        report.notes.append(_stored(ctx, [layer for layer in layers if layer.name in done]))
    return report


def _stored(ctx: Context, layers: list[Linear]) -> str:
    """Store what was pruned sparse, where the target reads that; returns what to tell of it."""
    if not ctx.target.sparse_initializers:
        return "stored dense: the target reads no sparse initializers"
    stored, left = store_sparse(layers)
    rest = f"; {left} dense, because more than a third of their weights stays" if left else ""
    return f"weights stored sparse: {stored}{rest}"


def _visit(step: Step, pattern: Pattern | None, reason: str, error: float, report: Report) -> None:
    layer = step.layer
    try:
        if pattern is None:
            raise Skip(reason)
        if pattern == ADAPTIVE:
            pattern = _sparsest(step.target, error)
        # n:m groups gain from easing nothing that can be told from noise
        saturation = None if isinstance(pattern, Grouped) else step.saturation
        weight, target = eased(saturation, step.target, prune_layer(step.target, pattern, layer), lambda w: w,
                               lambda target, w: prune_layer(target, pattern, layer, w))  # fmt: skip
    except Skip as skip:
        step.settle()
        report.skipped(layer.name, layer.op, skip.reason)
        return
    step.settle(weight, target)
    report.done(
        layer.name,
        layer.op,
        sparsity=round(float(np.mean(weight == 0.0)), 4),
        error=round(step.target.error(weight), 6),
        ridge=step.target.ridge,
        **layer.shared,
    )


def prune_layer(target: Target, pattern: Pattern, layer: Linear, start: Array | None = None) -> Array:
    """The pruned weights (groups, n, d) nearest to the target under `pattern`, found from those of `start` on."""
    if isinstance(pattern, Grouped) and layer.channels < pattern.m:
        raise Skip(f"{layer.channels} input channels are fewer than m={pattern.m}")
    order = _reduction_order(layer, pattern)
    out = np.empty_like(target.weight)
    for group in range(len(out)):
        w, h = target.weight[group][:, order], target.hessian[group][np.ix_(order, order)]
        found = _first_mask(w, h, pattern) if start is None else start[group][:, order]
        out[group][:, order] = exchange(w, h, pattern, found)
    return out


def _first_mask(w: Array, h: Array, pattern: Pattern) -> Array:
    """The best of three masks, with the weights on it fitted."""
    magnitude = w**2
    masks = (
        sparsegpt_mask(w, inverse_factor(h), pattern),
        keep_largest(magnitude, pattern),
        keep_largest(magnitude * np.diagonal(h), pattern),
    )
    tried = [fit_masked(single(w), single(h), mask, steps=12, gain=GAIN) for mask in masks]
    return min(tried, key=lambda one: float(one.loss.sum())).weight


def _reduction_order(layer: Linear, pattern: Pattern) -> NDArray[np.intp]:
    """Columns as (kernel, channel) for n:m groups, so that a group runs over input channels; unchanged otherwise."""
    d = layer.shape[2]
    if isinstance(pattern, Unstructured):
        return np.arange(d)
    return np.arange(d).reshape(layer.channels, -1).T.reshape(-1)


def _kept_dense(layers: list[Linear]) -> dict[Linear, str]:
    """The layers that stay dense, with the reason."""
    reasons = too_small(layers)
    for layer in layers:
        if layer.depthwise:
            reasons[layer] = "depthwise: few weights, and every one of them matters"
        elif layer.source.is_input:
            reasons[layer] = "it reads the model's input: few weights, and every one of them matters"
    return reasons


def _patterns(options: Prune, graph: Graph, ctx: Context, own: dict[Linear, Prune]) -> dict[Linear, Pattern | None]:
    """What every layer loses; `own` are the options of each."""
    layers = [layer for layer, mine in own.items() if mine.ratio == options.ratio]
    patterns: dict[Linear, Pattern | None] = {
        layer: ADAPTIVE if mine.ratio is None else Unstructured(mine.ratio)
        for layer, mine in own.items()
        if mine.ratio != options.ratio and options.kind != "nm"
    }
    if options.kind == "nm":
        patterns.update((layer, Grouped(options.n, options.m)) for layer in layers)
    elif options.ratio is None:
        patterns.update(dict.fromkeys(layers, ADAPTIVE))
    elif options.scope != "global":
        patterns.update((layer, Unstructured(options.ratio)) for layer in layers)
    elif layers:
        curves: dict[Linear, list[Choice]] = {}
        for step in walk(graph, ctx, layers):
            curves[step.layer] = _curve(step)
        budget = (1.0 - options.ratio) * sum(float(np.prod(layer.shape)) for layer in layers)
        for layer, choice in zip(curves, knapsack(list(curves.values()), budget), strict=True):
            sparsity = choice.settings.get("sparsity", 0.0)
            patterns[layer] = Unstructured(sparsity) if sparsity else None
    return patterns


def _curve(step: Step) -> list[Choice]:
    """Weights kept against relative error, at every level of `LEVELS`; cheap masks, refitted."""
    weights = float(step.target.weight.size)
    return [Choice((1.0 - s) * weights, _error_at(step.target, s), "prune", {"sparsity": s}) for s in LEVELS]


def _error_at(target: Target, sparsity: float) -> float:
    """The loss at a sparsity as a share of the answer's variance, from a cheap mask and a short refit."""
    lost = 0.0
    for w, h in zip(target.weight, target.hessian, strict=True):
        mask = keep_largest(w**2 * np.diagonal(h), Unstructured(sparsity))
        lost += float(fit_masked(w, h, mask, steps=6).loss.sum())
    return lost / max(target.energy, 1e-30)


def _sparsest(target: Target, error: float) -> Unstructured:
    """The highest of `LEVELS` whose loss stays within `error`. Raises `Skip` where none does."""
    low, high = 0, len(LEVELS)
    while high - low > 1:
        middle = (low + high) // 2
        if _error_at(target, LEVELS[middle]) <= error:
            low = middle
        else:
            high = middle
    if low == 0:
        raise Skip(f"no share of its weights can go within an error of {error:g}")
    return Unstructured(LEVELS[low])
