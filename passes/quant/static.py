"""Static quantization: activations and weights as codes on grids found beforehand.

inputs on a lattice are their own codes (`lattice.py`); channels are equalised (`equalise.py`); inputs of products
are smoothed (`smooth.py`); activations get their grids (`calibrate.py`, `ranges.py`, `insertion.py`); weights are
rounded one layer after the other against the float model (`reconstruct.py`), with their biases.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...ir.graph import Graph, Node, Value
from ...ir.shapes.infer import infer
from ..base import Context, Report
from ..walk.linear import Linear
from .activation_functions import activation_functions
from .calibrate import calibrate
from .deciding import deciding
from .equivalent.absorb import absorb
from .equivalent.equalise import equalise
from .equivalent.fusions import keep_apart
from .equivalent.pooling import pool_spatial_means
from .equivalent.rotate import rotate
from .equivalent.smooth import smooth
from .equivalent.uint8_inputs import encode_inputs
from .forms import own_bits, own_options
from .layers import Kept, find_layers
from .mixed import spare_smallest
from .numbers.histogram import Histogram
from .numbers.params import Grid, activation_grid, limits
from .numbers.ranges import Function, find_range
from .qdq.bias import SAMPLES, answer_means, correct, correctable
from .qdq.insertion import Insertion
from .qdq.parameters import encode_biases, encode_weights
from .qdq.placement import dwarfed, place
from .qdq.reconstruct import reconstruct, walkable
from .stored.floats import leave_float
from .trial import Trial

if TYPE_CHECKING:
    from .quant import Quant

WIDEST = 1e18
"""Width of a range beyond which the squares of what lies in it are more than float32 holds."""


def quantize_static(
    graph: Graph,
    found: dict[Node, Linear],
    one: Quant,
    ctx: Context,
    kept: Kept,
    per_channel: Callable[[Linear], bool],
    report: Report,
    bits: Callable[[Linear], int] | None = None,
) -> None:
    """Quantize the layers `found` of `graph` in place and say so in `report`; `bits` are those of each weight that
    does not say its own, by default what the options of the pass say."""
    assert ctx.fit is not None
    asked, given = own_bits(one, ctx), bits or spare_smallest(list(found.values()), one.bits)

    def width(layer: Linear) -> int:
        return asked(layer) or given(layer)

    if pooled := pool_spatial_means(graph):
        report.notes.append(f"wrote {pooled} mean(s) over all positions as GlobalAveragePool, which runs on codes")
        found, _ = find_layers(graph, kept)
    few = ctx.fit.take(SAMPLES, ctx.seed)
    exact = encode_inputs(graph, found, ctx.fit, ctx.target.activation_dtype)
    if exact:
        infer(graph)
        found, _ = find_layers(graph, kept)
    trial = Trial(graph, ctx, kept, per_channel, exact)
    if pairs := trial.keeps(found, lambda: rotate(found, ctx)):
        report.notes.append(f"turned the channels between the factors of {pairs} layer(s), so that all are alike")
        found, _ = find_layers(graph, kept)
    least = min(map(width, found.values()))
    if count := trial.keeps(found, lambda: equalise(graph, found, ctx, few, bits=least)):
        report.notes.append(f"scaled {count} channel(s) so that they fill the range of their tensor")
        found, _ = find_layers(graph, kept)
    if count := trial.keeps(found, lambda: absorb(graph, found, ctx, few)):
        report.notes.append(f"moved the means of {count} channel(s) into the biases of their readers")
        found, _ = find_layers(graph, kept)
    if wide := one.range == "mse" and trial.widest():
        report.notes.append("ranges cut nothing off: samples held out are answered better so")
    plan = place(graph, found, kept)
    rules: dict[Value, str] = {}
    if groups := plan.float_products():
        rules = smooth(graph, groups, ctx, few, how=_rules(one), bits=width)
        found, _ = find_layers(graph, kept)
        plan = place(graph, found, kept)
    seen = calibrate(graph, [v for values in plan.sources().values() for v in values], _unwalked(found), ctx)
    endless = [node for node, layer in found.items() if _endless(seen.histograms.get(layer.source))]
    for node in endless:
        report.skipped(found[node].name, node.op, "what it reads is not finite, or too large to tell anything of")
    unreached = [node for node, layer in found.items() if _unseen(seen.histograms.get(layer.source))]
    if unreached:
        reasons = dict.fromkeys((found[node] for node in unreached), "no sample reaches it, so it has no ranges")
        leave_float(graph, reasons, ctx, per_channel, report, "because no sample reaches them")
    if apart := {*endless, *unreached, *dwarfed(plan, seen.histograms)}:

        def left(node: Node) -> str:
            return "does not fit on a grid" if node in apart else kept(node)

        found, _ = find_layers(graph, left)
        if not found:
            return
        plan = place(graph, found, left)
        # What a move made on codes has no histogram yet where that move is left in float, too.
        new = [v for values in plan.sources().values() for v in values if v not in seen.histograms]
        seen.histograms.update(calibrate(graph, new, [], ctx).histograms if new else {})
    layers, sources, rest = list(found.values()), plan.sources(), _unwalked(found)
    walked = walkable(layers)
    rules = {**(dict.fromkeys(sources, "minmax") if wide else {}), **rules}
    if one.range == "mse":
        rules |= deciding(graph, plan, ctx)
    through = activation_functions(graph, plan) if one.range == "mse" else {}
    grids = _grids(one, sources, seen.histograms, rules, through, ctx) | exact
    _name_answers(graph)
    ctx.rewritten = teacher = graph.clone()
    fixable = [layer for layer in rest if one.bias_correction and correctable(layer)]
    means = answer_means(graph, fixable, ctx, few)
    if one.bias_correction:
        _give_biases(walked)
    insertion = Insertion(graph, plan, grids, ctx.target.activation_dtype)
    insertion.activations()
    insertion.constants()
    rounded = encode_weights(insertion, rest, seen.energy, ctx.target, per_channel, width)
    graph.sweep()
    rounded |= reconstruct(
        insertion, walkable(walked), teacher, ctx, width, per_channel, fit_biases=one.bias_correction,
        codebook=lambda layer: own_options(one, ctx, layer.node).weights == "codebook",
    )  # fmt: skip
    # What the walk could tell nothing of.
    untold = [layer for layer in walked if layer.node not in rounded]
    rounded |= encode_weights(insertion, untold, seen.energy, ctx.target, per_channel, width)
    graph.sweep()
    correct(graph, fixable, means, ctx, few)
    encode_biases(insertion, layers, {node: r.grid for node, r in rounded.items()})
    if ctx.target.contrib_ops:
        keep_apart(graph, layers)
    for layer in layers:
        report.done(layer.name, layer.op, bits=width(layer), error=round(rounded[layer.node].error, 6))


def _unwalked(found: Mapping[Node, Linear]) -> list[Linear]:
    """The layers that the walk does not round."""
    walked = {layer.node for layer in walkable(list(found.values()))}
    return [layer for node, layer in found.items() if node not in walked]


def _endless(histogram: Histogram | None) -> bool:
    """Whether no grid fits: there are numbers that are not finite, or whose squares are not."""
    return histogram is not None and not (histogram.finite and histogram.high - histogram.low < WIDEST)


def _unseen(histogram: Histogram | None) -> bool:
    """Whether no sample had a number there (regions that were never proposed, experts that were never asked)."""
    return histogram is not None and histogram.empty and histogram.finite


def _rules(one: Quant) -> tuple[str, ...]:
    return ("mse", "minmax") if one.range == "mse" else (one.range,)


def _grids(
    one: Quant,
    sources: Mapping[Value, Sequence[Value]],
    histograms: Mapping[Value, Histogram],
    rules: Mapping[Value, str],
    through: Mapping[Value, Function],
    ctx: Context,
) -> dict[Value, Grid]:
    dtype = ctx.target.activation_dtype
    low, high = limits(dtype)
    grids = {}
    for group, values in sources.items():
        merged = Histogram()
        for value in values:
            merged.merge(histograms[value])
        ends = find_range(merged, rules.get(group, one.range), high - low + 1, one.percentile, through.get(group))
        grids[group] = activation_grid(*ends, dtype, symmetric=one.symmetric)
    return grids


def _name_answers(graph: Graph) -> None:
    """Give every value a name of its own: the float model is asked by name."""
    taken: set[str] = set()
    for node in graph:
        for value in node.outputs:
            if not value.name or value.name in taken:
                value.name = next(n for i in itertools.count() if (n := f"{value.name or node.op}_{i}") not in taken)
            taken.add(value.name)


def _give_biases(layers: list[Linear]) -> None:
    """Convolutions and Gemms without a bias get one of zeros, so that there is something to correct means with."""
    for layer in layers:
        if layer.op != "MatMul" and layer.bias_place is None:
            layer.shift_bias(np.zeros(layer.outputs))
