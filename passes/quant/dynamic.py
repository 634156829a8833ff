"""Activations quantized as the model runs: each tensor on the range that it has just then (`activations=dynamic`).

    x -> DynamicQuantizeLinear -> codes, scale, zero
    codes, int8 weight -> MatMulInteger -> Cast -> * (scale * weight scale) -> + bias

which runtimes fuse into one kernel. Nothing is clipped that calibration did not foresee, at the price of finding the
range each time; layers that read one tensor share its codes. Made for MatMul-heavy models: the ranges of transformers
differ from input to input, and their answers stay float anyway.

In front, channels are scaled where that pays (`smooth.py`). Not for Conv: runtimes have no fast kernel that finds its
own range, so its weight is stored in int8 and computed with in float (`storage.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...ir.graph import Graph, Node, Value
from ...ir.origin import Origin
from ...ir.types import DType, TensorType
from .calibrate import calibrate
from .equivalent.smooth import smooth
from .layers import find_layers
from .narrow import Narrow, round_narrow
from .numbers.weights import weight_error
from .qdq.bias import SAMPLES
from .qdq.packing import store_codes
from .qdq.parameters import Energy, encode, importance
from .scheme import Form, Schemes
from .stored.storage import store_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..base import Context, Report
    from ..walk.linear import Linear
    from .numbers.params import QuantParams

BY = "quant"


def by_source(layers: Sequence[Linear]) -> dict[Value, list[Linear]]:
    """The layers of each activation, in graph order."""
    readers: dict[Value, list[Linear]] = {}
    for layer in layers:
        readers.setdefault(layer.source, []).append(layer)
    return readers


def quantize_dynamic(
    graph: Graph, layers: Iterable[Linear], schemes: Schemes, ctx: Context, report: Report, *, fit_biases: bool
) -> None:
    """Quantize `layers`, those of `graph` whose scheme is dynamic; `report` is told of each."""
    assert ctx.fit is not None
    if products := [layer for layer in layers if layer.op != "Conv"]:
        few = ctx.fit.take(SAMPLES, ctx.seed)
        smooth(graph, by_source(products), ctx, few, how=("minmax",), schemes=schemes)
    layers = list(find_layers(graph, schemes, Form.DYNAMIC)[0].values())
    seen = calibrate(graph, [], layers, ctx)
    stored = [layer for layer in layers if layer.op == "Conv"]
    products = [layer for layer in layers if layer.op != "Conv"]
    errors = store_weights(graph, stored, seen, ctx, schemes) if stored else {}
    narrow = round_narrow(graph, products, ctx, schemes, fit_biases=fit_biases) if products else {}
    named = {layer: (layer.name, layer.op) for layer in layers}
    errors |= quantize_products(graph, products, seen.energy, ctx, schemes, narrow)
    for layer in layers:
        form = "stored" if layer.op == "Conv" else "dynamic"
        if rounded := narrow.get(layer.node):
            report.done(*named[layer], bits=rounded.bits, activations=form, error=round(rounded.error, 6))
        else:
            report.done(*named[layer], bits=8, activations=form, weight_error=round(errors[layer], 6))


def quantize_products(
    graph: Graph,
    layers: Sequence[Linear],
    energy: Energy,
    ctx: Context,
    schemes: Schemes,
    narrow: Mapping[Node, Narrow],
) -> dict[Linear, float]:
    """Let `layers`, MatMul and Gemm, find the ranges of what they read; returns the `weight_error` of each but the
    `narrow` ones, which are codes already."""
    weights: dict[Value, tuple[Value, QuantParams, NDArray[np.float32]]] = {}
    errors: dict[Linear, float] = {}
    for source, readers in by_source(layers).items():
        origin = Origin.merge([layer.node.origin for layer in readers], BY)
        first = next(node for node in graph if any(node is layer.node for layer in readers))
        read = readers[0].node.inputs[0]  # what was made of `source`, if it is the answer of a layer itself
        coder = graph.add(
            "DynamicQuantizeLinear",
            [read],
            outputs=[f"{source.name}_codes", f"{source.name}_scale", f"{source.name}_zero"],
            types=[TensorType(DType.UINT8, source.shape), TensorType(DType.FLOAT, ()), TensorType(DType.UINT8, ())],
            origin=origin,
            before=first,
        )
        for layer in readers:
            weight = layer.weight
            if few := narrow.get(layer.node):
                _multiply(graph, layer, coder.outputs, _narrowed(graph, layer, few, first), few.coded.params)
                continue
            if weight not in weights:
                h = importance(layer, energy)
                least, wide = np.zeros(layer.outputs), schemes[layer.node].per_channel
                codes, params, _ = encode(layer, h, ctx.target, least, per_channel=wide)
                decoded = layer.kernel_rows(params.dequantize(codes))
                stored = np.ascontiguousarray(codes.T) if layer.axis == 0 else codes
                weights[weight] = graph.constant(stored, weight.name), params, decoded
            constant, params, decoded = weights[weight]
            errors[layer] = weight_error(layer.kernel_rows(), decoded, importance(layer, energy))
            _multiply(graph, layer, coder.outputs, constant, params)
    return errors


def _narrowed(graph: Graph, layer: Linear, few: Narrow, before: Node) -> Value:
    """The codes of a layer's weight as (reduction, outputs), which MatMulInteger reads."""
    blocks = few.coded.multipliers
    return store_codes(
        graph, np.ascontiguousarray(few.coded.codes[0].T), layer.weight.name, bits=few.bits, before=before,
        book=few.coded.book, multipliers=None if blocks is None else np.ascontiguousarray(blocks[0].T),
    )  # fmt: skip


def _multiply(graph: Graph, layer: Linear, x: Sequence[Value], weight: Value, params: QuantParams) -> None:
    """The layer's answer out of the codes, scale and zero point `x` of its input."""
    node, origin = layer.node, Origin.merge([layer.node.origin], BY)
    zero = graph.constant(np.full(params.scale.shape, params.zero_point, params.dtype.numpy), "zero")
    product = graph.add(
        "MatMulInteger",
        [x[0], weight, x[2], zero],
        types=[TensorType(DType.INT32, node.output.shape)],
        name=node.name,
        origin=origin,
        before=node,
    ).output
    wide = graph.add("Cast", [product], {"to": int(DType.FLOAT)}, origin=origin, before=node).output
    scale = graph.add("Mul", [x[1], graph.constant(params.scale, "scale")], origin=origin, before=node).output
    answer = graph.add("Mul", [wide, scale], origin=origin, before=node).output
    bias = node.input(2) if layer.op == "Gemm" else None
    if bias is not None:
        row = graph.constant(np.asarray(bias.numpy(), np.float32).reshape(-1), bias.name)
        answer = graph.add("Add", [answer, row], origin=origin, before=node).output
    answer.name, answer.type = node.output.name, node.output.type
    node.output.replace_uses(answer)
    graph.remove(node)
