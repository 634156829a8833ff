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

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from ...errors import DataError, ModelError
from ...ir.types import DType
from ..base import Context, Pass, Report, option

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from ...ir.graph import Graph, Node, Value
    from ..walk.linear import Linear
    from .scheme import Schemes

LEAST_OPSET = 13
"""Per-channel DequantizeLinear came with it."""
INT4_OPSET = 21
"""So did 4-bit and 16-bit codes with this."""
NARROW = ("int16", "int4")
"""Codes of activations that only layers read: what lies between these stays float."""


@dataclass(frozen=True, slots=True)
class Quant(Pass):
    """Quantize weights and activations to int8."""

    name: ClassVar[str] = "quant"
    lossy: ClassVar[bool] = True

    activations: Literal["int8", "int16", "int4", "dynamic", "none", "auto"] = option(
        "int8",
        "int8, int16, int4 codes (int4: simulated, no kernel takes them); dynamic: ranges found as the model "
        "runs; none: only weights stored; auto: measured",
        layer=True,
    )
    weights: Literal["int8", "int4", "int3", "int2", "codebook", "auto", "float16", "bfloat16"] = option(
        "int8",
        "how weights are stored; codebook: 16 levels a layer; auto: int4 or int8 by layer; float types, and blocks, "
        "leave activations float",
        layer=True,
    )
    min_agreement: float = option(0.99, "share of decisions that weights=auto keeps", low=0, high=1)
    size: float | None = option(None, "share of the float weights' bytes that weights=auto keeps to", low=0, high=1)
    block: int = option(0, "weights that share a scale along the reduction; 0: all of a channel", low=0, layer=True)
    range: Literal["mse", "minmax", "percentile", "entropy"] = option("mse", "how the range of an activation is chosen")
    percentile: float = option(99.99, "percent of values inside the range (range=percentile)", low=50, high=100)
    per_channel: bool = option(True, "one weight scale a channel rather than one a tensor", layer=True)
    symmetric: bool = option(False, "activation grids symmetric around 0")
    bias_correction: bool = option(
        True, "fit biases to the float model's means, where activations are codes or weights have few bits"
    )
    slower: Literal["float", "int8"] = option("float", "what layers run in whose integer kernel is slower here")
    requantize: Literal["keep", "refuse", "redo"] = option(
        "keep", "what is quantized already: kept as it is, refused, or turned back into float and done anew"
    )
    keep: str = option("", "layers to leave float: shell-like patterns of node names, several with |")

    @property
    def needs_samples(self) -> bool:
        """Weights are rounded to eight bits, or to a float type, without them too, as if all inputs were alike."""
        return not (self.weights.endswith("float16") or (self.activations == "none" and self.weights == "int8"))

    def requires(self, graph: Graph, ctx: Context) -> None:
        """Raises `DataError` without samples, `SpecError` for options that exclude each other, `ModelError` for a
        quantized model that is to be refused. An older model is brought to the opset that its codes came with, or
        `ModelError` says why not.
        """
        from ..opset import raise_opset
        from .plan import check_options

        bits = check_options(self, graph, ctx)
        if self.needs_samples and (ctx.fit is None or not ctx.fit.count):
            raise DataError("quant needs calibration samples; give some with --data")
        if self.requantize == "refuse":
            from .layers import is_quantized

            done = [node for node in graph.walk() if is_quantized(node)]
            if done:
                raise ModelError(
                    f"graph '{graph.name}' is quantized already: {len(done)} node(s), the first {done[0].op} "
                    f"'{done[0].label}'; start from the float model, or allow it with quant:requantize=redo"
                )
        least = INT4_OPSET if bits < 8 or self.activations == "int16" else LEAST_OPSET
        raise_opset(graph, least, ctx)

    @classmethod
    def stages(cls) -> dict[str, str]:
        from .static import STAGES

        return {name: (stage.__doc__ or "").partition("\n")[0] for name, stage in STAGES.items()}

    def run(self, graph: Graph, ctx: Context) -> Report:
        """Plan what becomes of every node, then bring each form about on its own layers."""
        from ..half import computes_in_half, restore, widen
        from .choose import run_best

        report = Report()
        if computes_in_half(graph):
            halves = widen(graph)
            report.notes.append("what stays float is stored in half precision and computed with in float")
            inner = self.run(graph, ctx)
            restore(graph, halves)
            inner.notes = report.notes + inner.notes
            return inner
        if self.requantize == "redo":
            self._read_back(graph, report)
        if self.activations == "auto":
            one = replace(self, requantize="keep")
            best = run_best(lambda form, copy: replace(one, activations=form).run(copy, ctx), graph, ctx)
            best.notes = report.notes + best.notes
            return best
        self._quantize(graph, ctx, report)
        return report

    def _read_back(self, graph: Graph, report: Report) -> None:
        from ...ir.shapes.infer import infer
        from .read.decode import decode

        if count := decode(graph):
            infer(graph, fresh=True)
            report.notes.append(f"turned {count} quantized operator(s) back into float first")

    def _quantize(self, graph: Graph, ctx: Context, report: Report) -> None:
        from .dynamic import quantize_dynamic
        from .layers import find_layers
        from .plan import SPARED_PRODUCTS, plan, with_smallest_kept
        from .qdq.tables import encode_tables
        from .scheme import Form, alike
        from .stored.floats import report_islands
        from .stored.other_weights import store_others
        from .stored.recurrent import store_kernelless
        from .stored.weight_only import store_only
        from .wide import stored_bytes, wide_weights

        schemes = plan(graph, self, ctx)
        layers, skipped = find_layers(graph, schemes)
        handled = store_kernelless(graph, schemes, ctx, report)
        whole = not self.weights.endswith("float16")
        if whole:
            refused = [node for node in skipped if node not in handled or node.graph is not graph]
            handled |= store_others(graph, refused, schemes, report)
        for node, reason in skipped.items():
            if node not in handled:
                report.skipped(node.label, node.op, reason)
        stored, dynamic, integer = (
            {node: layer for node, layer in layers.items() if schemes[node].form is form}
            for form in (Form.STORED, Form.DYNAMIC, Form.INTEGER)
        )
        wide = partial(wide_weights, graph, total=stored_bytes(layers.values()), schemes=schemes, ctx=ctx)
        for some in alike(stored.values(), schemes).values():
            store_only(graph, some, schemes, ctx, report, fit_biases=self.bias_correction, wide=wide)
        if dynamic:
            products = [layer for layer in dynamic.values() if layer.op != "Conv"]
            own = with_smallest_kept(schemes, products, self.bits, SPARED_PRODUCTS)
            quantize_dynamic(graph, dynamic.values(), own, ctx, report, fit_biases=self.bias_correction)
        if integer:
            self._quantize_integers(graph, integer, schemes, ctx, report, wide)
        if whole:
            encode_tables(graph, schemes, report)
        graph.sweep()
        if not report.changed and not any("weight_bits" in layer.detail for layer in report.layers):
            report.notes.append("there is no layer that could be quantized")
        # Which kernels the runtime takes elsewhere, its optimiser here does not tell.
        if ctx.target.integer_qdq and ctx.target.measurable and (dynamic or integer):
            report_islands(graph, report)

    def _quantize_integers(
        self,
        graph: Graph,
        layers: dict[Node, Linear],
        schemes: Schemes,
        ctx: Context,
        report: Report,
        wide: Callable[[Sequence[Linear]], Collection[Value]],
    ) -> None:
        from .layers import OPS
        from .masks import first_layers
        from .mixed import quantize_mixed
        from .plan import with_smallest_kept
        from .profit import slower_layers
        from .scheme import float_reason, left_float
        from .static import Ranges, Work, quantize_static
        from .stored.floats import leave_float

        if self.activations in NARROW:
            # Runtimes' kernels for what lies between layers take 8 bits.
            others = (node for node in graph.walk() if node.op not in OPS and not float_reason(schemes, node))
            bits = self.activations.removeprefix("int")
            schemes = left_float(schemes, dict.fromkeys(others, f"no kernel takes {bits}-bit codes"))
        if self.activations == "int16":
            ctx = replace(ctx, target=replace(ctx.target, activation_dtype=DType.INT16, saturating_int8=False))
        if self.activations == "int4":
            report.notes.append(
                "activations of 4 bits are simulated: no kernel takes them, so layers read 16 levels in codes of 8 bits"
            )
        # For another CPU nothing can be measured here; with fewer bits than 8 size comes before speed.
        measured = self.slower == "float" and self.bits == 8 and self.activations == "int8" and ctx.target.measurable
        slow = slower_layers(graph, layers, schemes, ctx) if measured else {}
        floats = {n: why for n, why in slow.items() if not schemes[n].named or schemes[n].bits == 8}
        whys = ["where they are faster here"] if floats else []
        if self.weights == self.activations == "int8":
            spared = first_layers(graph, layers, schemes, ctx, floats)
            whys += ["where a mask needs what they read exact"] if spared else []
            floats |= spared
        if floats:
            left = {layers.pop(node): why for node, why in floats.items()}
            leave_float(graph, left, schemes, ctx, report, " and ".join(whys), wide(list(left)))
            schemes = left_float(schemes, floats)
        if not layers:
            return

        simulated = 4 if self.activations == "int4" else 0

        def quantize(trial: Graph, own: Schemes, record: Report) -> None:
            ranges = Ranges(self.range, self.percentile, self.symmetric)
            quantize_static(Work(trial, own, ctx, record, ranges, self.bias_correction, simulated=simulated))

        if self.weights == "auto":
            quantize_mixed(
                graph, list(layers.values()), schemes, ctx, quantize, report, size=self.size,
                min_agreement=self.min_agreement,
            )  # fmt: skip
        else:
            quantize(graph, with_smallest_kept(schemes, layers.values(), self.bits), report)

    @property
    def may_be_slower(self) -> bool:
        """Weights of fewer than four bits, or of mixed ones, have no form in float: who wants them wants their size.
        Activations of four bits are a simulation, whose time tells nothing."""
        return (
            self.slower == "int8" or self.activations == "int4" or self.weights in ("auto", "codebook", "int3", "int2")
        )

    @property
    def in_float(self) -> Quant | None:
        """Weights stored as they are, and computed with in float."""
        if self.may_be_slower or self.activations == "none" or self.block or self.weights.endswith("float16"):
            return None
        return replace(self, activations="none")

    @property
    def bits(self) -> int:
        """Bits of a weight; the least where layers may differ."""
        return 4 if self.weights in ("auto", "codebook") else int(self.weights.lstrip("bfloatin"))
