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
from collections.abc import Callable, Mapping, Sequence

from ....ir.graph import Graph
from ...base import Context, Skip
from ...walk.linear import Linear, linear_layer
from ...walk.walk import too_wide, walk
from ..layers import Layer
from ..numbers.encoding import encode_target
from .insertion import Insertion
from .packing import store_codes
from .parameters import Rounded, least_scale

ROWS = 8192
"""Least number of sampled rows a layer. Twice as many leave KL as it is with 8 bits (ResNet-20 .0011, a keyword spotter
.0007), and lower it by 4 % with 4 (SqueezeNet)."""
BATCH = 10
"""Samples that run at a time: fifty samples allow no more, and memory is to be the same with many."""


def walkable(layers: Sequence[Layer]) -> dict[Linear, Layer]:
    """The layers that can be reconstructed, seen as linear layers, in the order given."""
    found: dict[Linear, Layer] = {}
    for layer in layers:
        try:
            linear = linear_layer(layer.node)
        except Skip:
            continue
        if not (linear.twins or too_wide(linear)):  # weights that are shared are rounded once, by what all read
            found[linear] = layer
    return found


def reconstruct(
    insertion: Insertion,
    layers: Mapping[Linear, Layer],
    teacher: Graph,
    ctx: Context,
    bits: Callable[[Layer], int],
    per_channel: Callable[[Layer], bool],
    *,
    fit_biases: bool = True,
    codebook: Callable[[Layer], bool] = lambda layer: False,
) -> dict[Layer, Rounded]:
    """Round the weights of `layers` in the graph of `insertion`; biases stay float, and as they are unless they are to
    be fitted. `teacher` answers by value name."""
    graph, done = insertion.graph, dict[Layer, Rounded]()
    rows = ROWS if all(bits(layer) == 8 for layer in layers.values()) else 2 * ROWS
    for step in walk(graph, dataclasses.replace(ctx, teacher=teacher), list(layers), rows=rows, batch=BATCH):
        layer = layers[step.layer]
        node, width = layer.node, bits(layer)
        least = least_scale(insertion, [layer])
        found = encode_target(
            layer, step.layer.weights(), step.target, ctx.target, least, bits=width, per_channel=per_channel(layer),
            codebook=codebook(layer),
        )  # fmt: skip
        if fit_biases and step.layer.bias_place is not None:
            step.layer.write(found.weight, step.target.bias(found.weight))
        codes = store_codes(
            graph, found.codes, layer.weight.name, bits=width, before=node, book=found.book, multiples=found.multiples
        )
        made = insertion.dequantize(codes, found.grid, before=node, origin=node.origin, hint="weight")
        node.set_input(1, made)
        done[layer] = Rounded(found.grid, step.target.error(found.weight))
    return done
