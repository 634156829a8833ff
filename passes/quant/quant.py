"""Static int8 quantization in QDQ form.

Weights get a symmetric grid, one scale a channel; activations an asymmetric grid, one a tensor, found on the
calibration samples. What is written is plain ONNX, laid so that runtimes turn it into integer kernels with no float in
between (`placement.py`, `insertion.py`, `parameters.py`). Inputs of MatMul and Gemm are scaled channel by channel where
that pays (`smooth.py`), embedding tables are stored as codes (`tables.py`), and in the end biases are corrected against
the float model (`bias.py`).

Skipped, each with its reason: layers that are already quantized, weights that are computed or not float32, layers in
bodies of control flow, ops without an integer kernel, and layers that are to be kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ...errors import DataError
from ..base import Context, Pass, Report, option

if TYPE_CHECKING:
    from ...ir.graph import Graph, Node, Value
    from .grid import Grid
    from .histogram import Histogram

LEAST_OPSET = 13
"""Per-channel DequantizeLinear came with it."""


@dataclass(frozen=True, slots=True)
class Quant(Pass):
    """Quantize weights and activations to int8."""

    name: ClassVar[str] = "quant"
    lossy: ClassVar[bool] = True

    activations: Literal["int8", "none"] = option("int8", "int8 kernels, or none: weights stored in int8, run in float")
    range: Literal["mse", "minmax", "percentile"] = option("mse", "how the range of an activation is chosen")
    percentile: float = option(99.99, "percent of values inside the range (range=percentile)", low=50, high=100)
    per_channel: bool = option(True, "one weight scale a channel rather than one a tensor", layer=True)
    symmetric: bool = option(False, "activation grids symmetric around 0")
    bias_correction: bool = option(True, "correct biases towards the float model's means")
    keep: str = option("", "layers to leave float: shell-like patterns of node names, several with |")

    def requires(self, graph: Graph, ctx: Context) -> None:
        """Raises `DataError` without samples. An older model is brought to opset 13, or `ModelError` says why not."""
        if ctx.fit is None or not ctx.fit.count:
            raise DataError("quant needs calibration samples; give some with --data")
        if 0 < graph.opset() < LEAST_OPSET:
            from ...ir.opset import convert

            convert(graph, LEAST_OPSET)

    def run(self, graph: Graph, ctx: Context) -> Report:
        from .bias import SAMPLES, answer_means, correct, correctable
        from .calibrate import calibrate
        from .insertion import Insertion
        from .layers import Layer, find_layers, is_kept, name_of
        from .parameters import encode_biases, encode_weights
        from .placement import place
        from .pooling import pool_spatial_means
        from .smooth import smooth
        from .storage import store_weights
        from .tables import encode_tables

        def kept(node: Node) -> str:
            return "kept by name" if is_kept(node, self.keep) else ctx.kept(self, node)

        def per_channel(layer: Layer) -> bool:
            return ctx.options(self, layer.node).per_channel

        report = Report()
        found, skipped = find_layers(graph, kept)
        for node, reason in skipped.items():
            report.skipped(name_of(node), node.op, reason)
        if not found or ctx.fit is None:
            if encode_tables(graph, kept, report):
                graph.sweep()
                return report
            report.notes.append("there is no layer that could be quantized")
            return report
        if self.activations == "none":
            layers = list(found.values())
            seen = calibrate(graph, [], layers, ctx)
            store_weights(graph, layers, seen, ctx, per_channel)
            for layer in layers:
                report.done(layer.name, layer.op, bits=8)
            encode_tables(graph, kept, report)
            graph.sweep()
            return report
        if pooled := pool_spatial_means(graph):
            report.notes.append(f"wrote {pooled} mean(s) over all positions as GlobalAveragePool, which runs on codes")
            found, _ = find_layers(graph, kept)
        layers = list(found.values())
        plan = place(graph, found, kept)
        few = ctx.fit.take(SAMPLES, ctx.seed)
        rules: dict[Value, str] = {}
        if groups := plan.float_products():
            rules = smooth(graph, groups, ctx, few, how=self._rules)
            found, _ = find_layers(graph, kept)
            layers = list(found.values())
            plan = place(graph, found, kept)
        sources = plan.sources()
        seen = calibrate(graph, [v for values in sources.values() for v in values], layers, ctx)
        grids = self._grids(sources, seen.histograms, rules, ctx)
        fixable = [layer for layer in layers if self.bias_correction and correctable(layer)]
        means = answer_means(graph, fixable, ctx, few)
        insertion = Insertion(graph, plan, grids, ctx.target.activation_dtype)
        insertion.activations()
        insertion.constants()
        weights = encode_weights(insertion, layers, seen.energy, ctx.target, per_channel)
        graph.sweep()
        shifts = dict(zip(fixable, correct(graph, fixable, means, ctx, few)))
        encode_biases(insertion, layers, weights)
        encode_tables(graph, kept, report)
        graph.sweep()
        for layer in layers:
            if layer in shifts:
                report.done(layer.name, layer.op, bits=8, bias_shift=round(shifts[layer], 6))
            else:
                report.done(layer.name, layer.op, bits=8)
        return report

    @property
    def _rules(self) -> tuple[str, ...]:
        return ("mse", "minmax") if self.range == "mse" else (self.range,)

    def _grids(
        self,
        sources: Mapping[Value, Sequence[Value]],
        histograms: Mapping[Value, Histogram],
        rules: Mapping[Value, str],
        ctx: Context,
    ) -> dict[Value, Grid]:
        from .grid import activation_grid, limits
        from .histogram import Histogram
        from .ranges import find_range

        dtype = ctx.target.activation_dtype
        low, high = limits(dtype)
        grids = {}
        for group, values in sources.items():
            merged = Histogram()
            for value in values:
                merged.merge(histograms[value])
            ends = find_range(merged, rules.get(group, self.range), high - low + 1, self.percentile)
            grids[group] = activation_grid(*ends, dtype, symmetric=self.symmetric)
        return grids
