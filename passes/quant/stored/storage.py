"""Weights stored in int8 and computed with in float (`activations=none`).

    weight = Cast(codes) * scale

is an expression over constants, which runtimes fold when they load the model: the file shrinks to about a quarter,
speed and every kernel stay those of the float model. (DequantizeLinear in its place would run at every inference.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np

from ....ir.graph import Graph, Value
from ....ir.origin import Origin
from ...base import Context
from ...walk.linear import Linear
from ..calibrate import Calibration
from ..numbers.weights import weight_error
from ..qdq.packing import dequantized
from ..qdq.parameters import encode, importance
from ..scheme import Schemes
from .halves import cast_half


def store_weights(
    graph: Graph,
    layers: Sequence[Linear],
    seen: Calibration,
    ctx: Context,
    schemes: Schemes,
    wide: Collection[Value] = (),
) -> dict[Linear, float]:
    """Let every layer read its weight from int8 codes, those of `wide` from float16; layers that share a weight share
    the expression. Returns the error of each (`weight_error`)."""
    target = dataclasses.replace(ctx.target, saturating_int8=False)  # the products are float
    readers: dict[Value, list[Linear]] = {}
    for layer in layers:
        readers.setdefault(layer.weight, []).append(layer)
    errors: dict[Linear, float] = {}
    first = next(iter(graph))
    with ctx.progress.task("storing weights", len(readers)) as step:
        for weight, (layer, *others) in readers.items():
            least = np.zeros(layer.outputs)
            if weight in wide:
                half = np.asarray(weight.numpy(), np.float16)
                decoded = cast_half(graph, half, weight, layer.node.origin, first)
                for reader in (layer, *others):
                    rounded = reader.kernel_rows(half.astype(np.float32))
                    errors[reader] = weight_error(reader.kernel_rows(), rounded, importance(reader, seen.energy))
                    reader.node.set_input(1, decoded)
                step(1)
                continue
            h = importance(layer, seen.energy)
            codes, params, errors[layer] = encode(layer, h, target, least, per_channel=schemes[layer.node].per_channel)
            for other in others:
                numbers = other.kernel_rows(params.dequantize(codes))
                errors[other] = weight_error(other.kernel_rows(), numbers, importance(other, seen.energy))
            scale = graph.constant(np.ascontiguousarray(params.spread(codes.ndim)), "scale")
            origin = Origin.merge([layer.node.origin], "quant")
            decoded = dequantized(graph, codes, scale, weight, origin, first, name=weight.name, type=weight.type)
            for reader in (layer, *others):
                reader.node.set_input(1, decoded)
            if weight.constant is not None:
                weight.constant.release()
            step(1)
    return {layer: errors[layer] for layer in layers}
