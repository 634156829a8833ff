"""Weights rounded one layer after the other, each so that the layer answers as the float model does.

The walk (`walk/layerwise.py`) runs over the graph whose activations are codes already. What reaches a layer is what the
rounded layers before it really produce; its target weights W* and bias are those that would best repair that. W*, not
W, is rounded, in the metric of the inputs' second moments (`encoding.py`, `rounding.py`), and the bias is fitted to the
rounded weights. This is the layer-wise reconstruction of AdaRound (Nagel et al. 2020, arXiv:2004.10568, section 4.2,
"asymmetric reconstruction") as least squares in closed form: no gradients, no samples in the loop.

Weights that an earlier pass made zero stay zero. Layers that the walk cannot take (a shared weight, a width whose
moments do not fit) are left to `parameters.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ....ir.graph import Graph, Node
from ...base import Context, Report, Skip
from ...walk.choice import Choice
from ...walk.layerwise import Layerwise, rewrite
from ...walk.linear import Linear
from ...walk.readers import linear_layer
from ...walk.walk import Step, too_wide
from ..numbers.encoding import Encoded, encode_target
from ..scheme import Scheme, Schemes
from .insertion import Insertion
from .packing import store_codes
from .parameters import Rounded, least_scale

ROWS = 8192
"""Least number of sampled rows a layer. Twice as many leave KL as it is with 8 bits (ResNet-20 .0011, a keyword spotter
.0007), and lower it by 4 % with 4 (SqueezeNet)."""
ENOUGH = 128
"""Samples that are enough with 8 bits, where there is little to make up for."""
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
        if fresh.alone and not too_wide(fresh):  # weights that are shared are rounded once, by what all read
            walked.append(replace(fresh, twins=()))
    return walked


class Rounding(Layerwise[Scheme, Encoded]):
    """Rounds the target weights of each layer by its scheme; they stay floats."""

    begins_late = False
    looks_again = False

    def __init__(self, ctx: Context, *, fit_biases: bool) -> None:
        super().__init__(Scheme(), ctx)
        self.fit_biases = fit_biases

    @property
    def eases(self) -> bool:
        return False

    def least_scale(self, layer: Linear) -> NDArray[np.float64]:
        """The least scale of each output channel."""
        return np.zeros(layer.outputs)

    def choose(self, step: Step, options: Scheme, allotted: Choice[Encoded] | None) -> Choice[Encoded]:
        layer = step.layer
        form = encode_target(
            layer.weights(), step.target, self.ctx.target, self.least_scale(layer),
            positions=math.prod(layer.kernel), depthwise=layer.depthwise, axis=layer.axis, bits=options.bits,
            per_channel=options.per_channel, codebook=options.codebook,
        )  # fmt: skip
        return Choice(0.0, 0.0, options.form.value, form=form)

    def dense(self, form: Encoded) -> NDArray[np.float64]:
        return form.weight

    def write(self, layer: Linear, form: Encoded, bias: NDArray[np.float64] | None) -> None:
        layer.write(form.weight, bias if self.fit_biases else None)


class Reconstruction(Rounding):
    """Writes the rounded weights as quantized values, where activations are quantized already."""

    batch = BATCH

    def __init__(self, insertion: Insertion, ctx: Context, schemes: Schemes, *, fit_biases: bool) -> None:
        super().__init__(ctx, fit_biases=fit_biases)
        self.insertion = insertion
        self.schemes = schemes

    def least_scale(self, layer: Linear) -> NDArray[np.float64]:
        return least_scale(self.insertion, [layer])

    def write(self, layer: Linear, form: Encoded, bias: NDArray[np.float64] | None) -> None:
        node, blocks = layer.node, form.multipliers
        if bias is not None and self.fit_biases:
            layer.write_bias(bias)
        if blocks is not None:
            blocks = layer.of_kernel_rows(blocks.reshape(layer.outputs, -1))
        values = store_codes(
            self.insertion.graph, layer.laid_out(form.codes), layer.weight.name, bits=self.schemes[node].bits,
            before=node, book=form.book, multipliers=blocks,
        )  # fmt: skip
        weight = self.insertion.dequantize(values, form.params, before=node, origin=node.origin, hint="weight")
        node.set_input(1, weight)


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
    own = {layer: schemes[layer.node] for layer in layers}
    plain = all(scheme.bits == 8 for scheme in own.values())
    fit = ctx.fit.take(ENOUGH, ctx.seed) if ctx.fit is not None and plain else ctx.fit
    hooks = Reconstruction(insertion, replace(ctx, teacher=teacher, fit=fit), schemes, fit_biases=fit_biases)
    hooks.rows = ROWS if plain else 2 * ROWS
    return {
        one.step.layer.node: Rounded(one.form.params, one.error)
        for one in rewrite(hooks, insertion.graph, layers, own, Report())
    }
