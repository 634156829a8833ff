"""Weights rounded one layer after the other, each so that the layer answers as the float model does.

The walk (`walk.py`) runs over the graph whose activations are codes already. What reaches a layer is what the
rounded layers before it really produce; its target weights W* and bias are those that would best repair that. W*, not
W, is rounded, in the metric of the inputs' second moments (`encoding.py`, `rounding.py`), and the bias is fitted to the
rounded weights. This is the layer-wise reconstruction of AdaRound (Nagel et al. 2020, arXiv:2004.10568, section 4.2,
"asymmetric reconstruction") as least squares in closed form: no gradients, no samples in the loop.

Weights that an earlier pass made zero stay zero. Layers that the walk cannot take (a shared weight, a width whose
moments do not fit) are left to `parameters.py`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ....ir.graph import Graph, Node
from ...base import Context, Skip, TargetFacts
from ...walk.linear import Linear, linear_layer
from ...walk.walk import Step, too_wide, walk
from ..numbers.encoding import Encoded, encode_target
from ..scheme import Scheme, Schemes
from .insertion import Insertion
from .packing import store_codes
from .parameters import Rounded, least_scale

ROWS = 8192
"""Least number of sampled rows a layer. Twice as many leave KL as it is with 8 bits (ResNet-20 .0011, a keyword spotter
.0007), and lower it by 4 % with 4 (SqueezeNet)."""
BATCH = 10
"""Samples that run at a time: fifty samples allow no more, and memory is to be the same with many."""


def walkable(layers: Sequence[Linear]) -> list[Linear]:
    """The layers that can be reconstructed, as they are now, in the order given."""
    walked = []
    for layer in layers:
        try:
            fresh = linear_layer(layer.node)
        except Skip:
            continue
        if not (fresh.twins or too_wide(fresh)):  # weights that are shared are rounded once, by what all read
            walked.append(replace(fresh, twins=()))
    return walked


def reconstruct(
    insertion: Insertion,
    layers: Sequence[Linear],
    teacher: Graph,
    ctx: Context,
    schemes: Schemes,
    *,
    fit_biases: bool = True,
) -> dict[Node, Rounded]:
    """Round the weights of `layers` in the graph of `insertion`; biases stay float, and as they are unless they are to
    be fitted. `teacher` answers by value name."""
    graph, done = insertion.graph, dict[Node, Rounded]()
    rows = ROWS if all(schemes[layer.node].bits == 8 for layer in layers) else 2 * ROWS
    for step in walk(graph, dataclasses.replace(ctx, teacher=teacher), layers, rows=rows, batch=BATCH):
        layer, node = step.layer, step.layer.node
        rounded = encode_layer(step, ctx.target, least_scale(insertion, [layer]), schemes[node])
        if fit_biases and layer.bias_place is not None:
            layer.write(rounded.weight, step.target.bias(rounded.weight))
        blocks = rounded.multiples
        if blocks is not None:
            blocks = layer.of_kernel_rows(blocks.reshape(layer.outputs, -1))
        codes = store_codes(
            graph, layer.laid_out(rounded.codes), layer.weight.name, bits=schemes[node].bits, before=node,
            book=rounded.book, multiples=blocks,
        )  # fmt: skip
        node.set_input(1, insertion.dequantize(codes, rounded.params, before=node, origin=node.origin, hint="weight"))
        done[node] = Rounded(rounded.params, step.target.error(rounded.weight))
    return done


def encode_layer(step: Step, facts: TargetFacts, least: NDArray[np.float64], scheme: Scheme) -> Encoded:
    """`encode_target` of a layer on the walk."""
    layer = step.layer
    return encode_target(
        layer.weights(), step.target, facts, least, positions=math.prod(layer.kernel), depthwise=layer.depthwise,
        axis=layer.axis, bits=scheme.bits, per_channel=scheme.per_channel, codebook=scheme.codebook,
    )  # fmt: skip
