"""Static quantization: activations and weights with parameters that are fixed beforehand, as a table of stages.

The first stages change the graph and keep its function, so that it quantizes better (`equivalent/`); then activations
get their ranges (`calibrate.py`, `numbers/ranges.py`); then QuantizeLinear and DequantizeLinear are written (`qdq/`),
and weights are rounded one layer after the other against the float model, with their biases.

`STAGES` is all of it, in order. A stage reads and changes the `Work`; the first sentence of its docstring says what it
does, and is what `optc passes quant --stages` lists.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ...ir.graph import Graph, Node, Value
from ...ir.shapes.infer import infer
from ...runtime.samples import Samples
from ..base import Context, Report
from ..walk.linear import Linear
from .activation_functions import activation_functions
from .calibrate import Calibration, Seen, calibrate
from .deciding import deciding
from .equivalent.absorb import absorb, free_means
from .equivalent.equalise import equalise, scaled_values
from .equivalent.fusions import keep_apart, keep_weights
from .equivalent.gates import spell_gates
from .equivalent.input_lanes import fill_inputs
from .equivalent.lanes import fill_lanes
from .equivalent.pooling import pool_spatial_means
from .equivalent.rotate import rotate, turned_values
from .equivalent.smooth import smooth
from .equivalent.uint8_inputs import encode_inputs
from .layers import find_layers
from .numbers.histogram import Histogram
from .numbers.params import QuantParams, activation_params, limits
from .numbers.ranges import find_range
from .qdq.bias import SAMPLES, Means, answer_means, correct, correctable
from .qdq.insertion import Insertion
from .qdq.parameters import Rounded, encode_biases, encode_weights
from .qdq.placement import Placement, dwarfed, place
from .qdq.ramps import laid_through
from .qdq.reconstruct import ENOUGH, reconstruct, walkable
from .scheme import Form, Schemes, inherited, left_float
from .stored.floats import leave_float
from .trial import Trial

WIDEST = 1e18
"""Width of a range beyond which the squares of what lies in it are more than float32 holds."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """How the ranges of activations are chosen: the `rule` (`find_range`), its `percentile` in percent, and whether
    they are `symmetric` around 0."""

    rule: str = "mse"
    percentile: float = 99.99
    symmetric: bool = False


@dataclass(slots=True)
class Work:
    """A graph on its way through the stages. `simulated` are the bits that activations are rounded to, where fewer than
    their codes have; then layers alone read codes, and answer in floats. `layers` are those whose scheme is integer;
    `exact` the parameters of values that are integers already, `rules` the range rules of single values, `few` samples
    for statistics that settle early.
    """

    graph: Graph
    schemes: Schemes
    ctx: Context
    report: Report
    ranges: Ranges = field(default_factory=Ranges)
    fit_biases: bool = True
    simulated: int = 0
    layers: dict[Node, Linear] = field(default_factory=dict)
    exact: dict[Value, QuantParams] = field(default_factory=dict)
    rules: dict[Value, str] = field(default_factory=dict)
    widest: bool = False
    params_of: dict[Value, QuantParams] = field(default_factory=dict)
    rounded: dict[Node, Rounded] = field(default_factory=dict)
    few: Samples = field(init=False)
    plan: Placement = field(init=False)
    seen: Calibration = field(init=False)
    teacher: Graph = field(init=False)
    insertion: Insertion = field(init=False)
    fixable: list[Linear] = field(default_factory=list)
    means: list[Means] = field(default_factory=list)
    _trial: Trial | None = None
    _channels: Seen = field(init=False)

    def __post_init__(self) -> None:
        assert self.ctx.fit is not None
        self.few = self.ctx.fit.take(SAMPLES, self.ctx.seed)
        self._channels = Seen(self.graph, self.ctx, self.few, self._measured)
        self.look()

    def look(self) -> None:
        """Find the layers anew, after the graph was changed."""
        self.layers = find_layers(self.graph, self.schemes, Form.INTEGER)[0]

    def take_place(self, steps_of: Mapping[Node, Sequence[Node]]) -> None:
        """Let nodes that were written in the place of others have the schemes of these."""
        self.schemes = inherited(self.schemes, steps_of)
        self.look()

    @property
    def trial(self) -> Trial:
        """What judges changes that keep the function, on samples held out."""
        if self._trial is None:
            self._trial = Trial(self.graph, self.ctx, self.schemes, self.exact)
        return self._trial

    def keeps(self, change: Callable[[Mapping[Node, Linear], Seen], int]) -> int:
        """What `change` returns, how much it changed by what was seen of channels; 0 where a trial gains nothing."""
        count = self.trial.keeps(self.layers, lambda: change(self.layers, self._channels))
        if count:
            self._channels.forget()
        return count

    def _measured(self) -> dict[Value, int]:
        """The axes of channels that changes which keep the function want to know of."""
        values = [*scaled_values(self.graph, self.layers), *free_means(self.layers)]
        return {**turned_values(self.layers), **dict.fromkeys(values, 1)}

    def placed(self) -> Placement:
        return place(self.graph, self.layers, self.schemes, answers=not self.simulated)

    def watched(self, values: Sequence[Value], layers: Sequence[Linear] = ()) -> Calibration:
        """What is seen of `values` and of what `layers` read: of `ENOUGH` samples, where errors alone choose the
        ranges; of all where rare numbers do, or where nothing reached a value in those."""
        fit, seed = self.ctx.fit, self.ctx.seed
        assert fit is not None
        rare = self.widest or self.ranges.rule != "mse" or self.rules or deciding(self.graph, self.plan, self.ctx)
        if not rare:
            ctx = dataclasses.replace(self.ctx, fit=fit.take(ENOUGH, seed))
            seen = calibrate(self.graph, values, layers, ctx)
            if fit.count <= ENOUGH or not any(histogram.empty for histogram in seen.histograms.values()):
                return seen
        return calibrate(self.graph, values, layers, self.ctx)

    def unwalked(self) -> list[Linear]:
        """The layers that the walk does not round."""
        walked = {layer.node for layer in walkable(list(self.layers.values()))}
        return [layer for node, layer in self.layers.items() if node not in walked]


def quantize_static(work: Work) -> None:
    """Run all stages, until no layer is left."""
    for stage in STAGES.values():
        if work.layers:
            stage(work)
    for node, layer in work.layers.items():
        work.report.done(layer.name, layer.op, bits=work.schemes[node].bits, **work.rounded[node].figures)


def pool(work: Work) -> None:
    """Write means over all positions as GlobalAveragePool, which has an integer kernel."""
    if pooled := pool_spatial_means(work.graph):
        work.take_place(pooled)
        work.report.notes.append(
            f"wrote {len(pooled)} mean(s) over all positions as GlobalAveragePool, which runs on codes"
        )


def spell(work: Work) -> None:
    """Write HardSwish and Swish as products with gates, which have integer kernels."""
    work.take_place(spell_gates(work.graph))


def encode_images(work: Work) -> None:
    """Take inputs that are bytes, shifted and scaled, as the quantized values that they are."""
    ctx = work.ctx
    assert ctx.fit is not None
    work.exact = encode_inputs(work.graph, work.layers, ctx.fit, ctx.target.activation_dtype)
    if work.exact:
        infer(work.graph)
        work.look()


def turn(work: Work) -> None:
    """Turn the channels between the two factors of a layer, where a trial gains by it."""
    if pairs := work.keeps(lambda layers, seen: rotate(layers, seen, work.ctx.seed)):
        work.report.notes.append(f"turned the channels between the factors of {pairs} layer(s), so that all are alike")


def scale_channels(work: Work) -> None:
    """Scale channels so that each fills the range of its tensor, where a trial gains by it."""
    least = min(work.schemes[node].bits for node in work.layers)
    if count := work.keeps(lambda layers, seen: equalise(work.graph, layers, seen, bits=least)):
        work.report.notes.append(f"scaled {count} channel(s) so that they fill the range of their tensor")


def absorb_means(work: Work) -> None:
    """Move means of channels into the biases of those who read them, where a trial gains by it."""
    if count := work.keeps(lambda layers, seen: absorb(work.graph, layers, seen)):
        work.report.notes.append(f"moved the means of {count} channel(s) into the biases of their readers")


def fill(work: Work) -> None:
    """Fill up channels of depthwise layers, and of images, to as many as their kernels take at a time."""
    target, notes = work.ctx.target, work.report.notes
    if depthwise := fill_lanes(work.graph, work.layers, target.depthwise_lanes):
        notes.append(f"filled up {depthwise} depthwise layer(s) with zeros to whole vectors of their kernel")
    # A Pad moves codes of 8 bits; with fewer levels, what moves stays float.
    lanes = 1 if work.simulated or target.activation_dtype.bits != 8 else target.input_lanes
    if first := fill_inputs(work.graph, work.layers, lanes):
        notes.append(f"filled up what {first} layer(s) read with channels of zeros, as many as their kernel takes")
    if depthwise or first:
        work.look()


def widen(work: Work) -> None:
    """Try whether ranges that cut nothing off answer clearly better."""
    work.widest = work.ranges.rule == "mse" and work.trial.widest()
    if work.widest:
        work.report.notes.append("ranges cut nothing off: samples held out are answered better so")


def smooth_products(work: Work) -> None:
    """Place the quantized values, and scale what float operators hand to MatMul and Gemm, channel by channel."""
    work.plan = work.placed()
    if groups := work.plan.float_products():
        how = ("mse", "minmax") if work.ranges.rule == "mse" else (work.ranges.rule,)
        work.rules = smooth(work.graph, groups, work.ctx, work.few, how=how, schemes=work.schemes)
        work.look()
        work.plan = work.placed()


def watch(work: Work) -> None:
    """Run the samples and record the distribution of every value that is to be quantized."""
    work.seen = work.watched(_ranged(work.plan), work.unwalked())


def set_apart(work: Work) -> None:
    """Leave float what no range fits, and what no sample reaches."""
    graph, report, histograms = work.graph, work.report, work.seen.histograms
    watched = {node: histograms.get(layer.source) for node, layer in work.layers.items()}
    endless = [node for node, histogram in watched.items() if histogram is not None and _endless(histogram)]
    for node in endless:
        name = work.layers[node].name
        report.skipped(name, node.op, "what it reads is not finite, or too large to tell anything of")
    unreached = [node for node, histogram in watched.items() if histogram is not None and _unseen(histogram)]
    if unreached:
        reasons = dict.fromkeys((work.layers[n] for n in unreached), "no sample reaches it, so it has no ranges")
        leave_float(graph, reasons, work.schemes, work.ctx, report, "because no sample reaches them")
    if apart := {*endless, *unreached, *dwarfed(work.plan, histograms)}:
        work.schemes = left_float(work.schemes, dict.fromkeys(apart, "does not fit on a grid"))
        work.look()
        work.plan = work.placed()
        # What a move made on codes has no histogram yet where that move is left in float, too.
        new = [value for value in _ranged(work.plan) if value not in histograms]
        histograms.update(work.watched(new).histograms if new and work.layers else {})


def choose_ranges(work: Work) -> None:
    """Choose the range of every activation from its distribution."""
    plan, ranges, sources = work.plan, work.ranges, work.plan.sources()
    rules = {**(dict.fromkeys(sources, "minmax") if work.widest else {}), **work.rules}
    least_squares = ranges.rule == "mse"
    if least_squares:
        rules |= deciding(work.graph, plan, work.ctx)
    through = activation_functions(work.graph, plan) if least_squares else {}
    dtype = work.ctx.target.activation_dtype
    ends, laid = _ends(work), plan.laid()
    for group, values in sources.items():
        low, high = limits(dtype)
        if work.simulated and not ends.intersection(values):
            low, high = max(low, -(1 << (work.simulated - 1))), min(high, (1 << (work.simulated - (low < 0))) - 1)
        merged = Histogram()
        for value in values:
            merged.merge(work.seen.histograms[value])
        rule, function = rules.get(group, ranges.rule), through.get(group)
        width = plan.ends(group) or find_range(merged, rule, high - low + 1, ranges.percentile, through=function)
        params = activation_params(*width, dtype, symmetric=ranges.symmetric, codes=(low, high))
        work.params_of[group] = params if ranges.symmetric else laid_through(params, laid.get(group, ()))
    work.params_of |= work.exact


def _ends(work: Work) -> set[Value]:
    """What the model reads, and what its last layer does: with fewer than 8 bits these lose most of all."""
    last = next((work.plan.reads[node] for node in reversed(tuple(work.graph)) if node in work.layers), None)
    return {*work.graph.inputs, *([] if last is None else [last])}


def remember(work: Work) -> None:
    """Keep the float graph as it is now, which answers for every layer, and the means of what the walk leaves out."""
    _name_answers(work.graph)
    work.ctx.rewritten = work.teacher = work.graph.clone()
    if work.fit_biases and work.ctx.repairs:
        work.fixable = [layer for layer in work.unwalked() if correctable(layer)]
    work.means = answer_means(work.graph, work.fixable, work.ctx, work.few)


def write(work: Work) -> None:
    """Write QuantizeLinear and DequantizeLinear around activations, and those of weights that the walk leaves out."""
    rest = work.unwalked()
    walked = walkable(list(work.layers.values()))
    if work.fit_biases:
        _give_biases(walked)
    work.insertion = Insertion(work.graph, work.plan, work.params_of, work.ctx.target.activation_dtype)
    work.insertion.activations()
    work.insertion.constants()
    _encode(work, rest)
    if work.ctx.target.contrib_ops:
        # Before weights are rounded: layers behind are fitted to what these really answer.
        keep_weights(work.graph, but=work.layers)


def round_weights(work: Work) -> None:
    """Round weights one layer after the other, each so that the layer answers as the float model does."""
    rest = [layer for node, layer in work.layers.items() if node not in work.rounded]
    walked = walkable(rest)
    work.rounded |= reconstruct(
        work.insertion, walked, work.teacher, work.ctx, work.schemes, fit_biases=work.fit_biases
    )
    # What the walk could tell nothing of.
    _encode(work, [layer for layer in rest if layer.node not in work.rounded])


def correct_means(work: Work) -> None:
    """Correct the biases that the walk did not fit by the float model's means, and write all biases as integers."""
    layers = list(work.layers.values())
    correct(work.graph, work.fixable, work.means, work.ctx, work.few)
    encode_biases(work.insertion, layers, {node: rounded.params for node, rounded in work.rounded.items()})


def part_fusions(work: Work) -> None:
    """Keep the runtime from fusing integer layers with what follows before it looks for integer kernels."""
    if work.ctx.target.contrib_ops:
        keep_apart(work.graph, work.layers.values())


STAGES: dict[str, Callable[[Work], None]] = {
    "pool": pool,
    "spell": spell,
    "encode inputs": encode_images,
    "rotate": turn,
    "equalise": scale_channels,
    "absorb": absorb_means,
    "fill": fill,
    "widen": widen,
    "smooth": smooth_products,
    "calibrate": watch,
    "set apart": set_apart,
    "ranges": choose_ranges,
    "remember": remember,
    "write": write,
    "reconstruct": round_weights,
    "correct": correct_means,
    "fusions": part_fusions,
}
"""The stages by name, in order."""


def _ranged(plan: Placement) -> list[Value]:
    """The values whose distribution decides a range."""
    return [value for values in plan.sources().values() for value in values]


def _endless(histogram: Histogram) -> bool:
    """Whether no grid fits: there are numbers that are not finite, or whose squares are not."""
    return not (histogram.finite and histogram.high - histogram.low < WIDEST)


def _unseen(histogram: Histogram) -> bool:
    """Whether no sample had a number there (regions that were never proposed, experts that were never asked)."""
    return histogram.empty and histogram.finite


def _encode(work: Work, layers: list[Linear]) -> None:
    """Write the weights of `layers` as they are best rounded alone."""
    facts = work.ctx.target
    work.rounded |= encode_weights(work.insertion, layers, work.seen.energy, facts, work.schemes)
    work.graph.sweep()


def _name_answers(graph: Graph) -> None:
    """Give every value a name of its own: the float model is asked by name."""
    taken: set[str] = set()
    for node in graph:
        for value in node.outputs:
            if not value.name or value.name in taken:
                value.name = next(n for i in itertools.count() if (n := f"{value.name or node.op}_{i}") not in taken)
            taken.add(value.name)


def _give_biases(layers: Iterable[Linear]) -> None:
    """Convolutions and Gemms without a bias get one of zeros, so that there is something to correct means with."""
    import numpy as np

    for layer in layers:
        if layer.op != "MatMul" and layer.bias_place is None:
            layer.shift_bias(np.zeros(layer.outputs))
