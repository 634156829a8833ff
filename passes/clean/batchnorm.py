"""BatchNormalization into its neighbours.

In inference it is an affine map per channel, with s = gamma / sqrt(var + eps):

    y = s x + (beta - s mean)

    1. BatchNormalization(layer(x))             ->  layer(x)                 see `layer.after`
    2. layer(BatchNormalization(x))             ->  layer(x)                 see `layer.before`
    3. BatchNormalization(MatMul(x, W))         ->  Gemm(x, W', b)           for x of rank 2
    4. Mul or Add of a constant per channel, after BatchNormalization   ->  BatchNormalization

Exact up to one rounding of the weights. Does not fire in training mode, where statistics are not constant, where
other outputs are read, where the layer's or the normalisation's result is read by others, where numbers overflow,
and for 2 with a shift into a padded convolution: zeros at the border are not shifted.
"""

from __future__ import annotations

import numpy as np

from ...ir.node import Node
from ...ir.ops import LAYERS
from .affine import operand
from .broadcast import channel_axis
from .fill import Array, elementwise, reshape
from .layer import Affine, after, before, output_channels, rounded, sound, weight
from .rewriter import Rewriter, Rule


def affine(node: Node, rewriter: Rewriter) -> Affine | None:
    """The map of a BatchNormalization in inference; `None` where it is not constant."""
    if node.get_int("training_mode") or any(v.uses for v in node.outputs[1:]) or not node.get_int("spatial", 1):
        return None
    arrays = [rewriter.array(v) for v in node.inputs[1:5]]
    gamma, beta, mean, variance = arrays if len(arrays) == 4 else [None] * 4
    if gamma is None or beta is None or mean is None or variance is None:
        return None
    if any(a.dtype.kind != "f" for a in (gamma, beta, mean, variance)):
        return None
    epsilon = node.get_float("epsilon", 1e-5)
    scale = elementwise(lambda g, v: g.astype(np.float64) / np.sqrt(v.astype(np.float64) + epsilon), gamma, variance)
    shift = elementwise(lambda b, s, m: b.astype(np.float64) - s * m.astype(np.float64), beta, scale, mean)
    return Affine(scale, shift)


def _after_layer(node: Node, rewriter: Rewriter) -> bool:
    layer = rewriter.made_only_for(node, 0, *LAYERS)
    weights = None if layer is None else weight(layer)
    normalisation = affine(node, rewriter)
    if layer is None or weights is None or normalisation is None or normalisation.scale is None:
        return False
    if normalisation.scale.size != output_channels(layer, weights):
        return False
    if layer.op == "MatMul":
        return _into_gemm(node, layer, weights, normalisation, rewriter)
    if not after(layer, normalisation, node, rewriter):
        return False
    rewriter.replace(node, layer.output)
    return True


def _into_gemm(node: Node, product: Node, weights: Array, normalisation: Affine, rewriter: Rewriter) -> bool:
    """A MatMul has no bias: of rank 2 it becomes a Gemm, with the scale in its weights and the shift as its bias."""
    shape = product.inputs[0].shape if product.inputs[0] is not None else None
    if shape is None or len(shape) != 2 or weights.ndim != 2 or normalisation.shift is None:
        return False
    shift = elementwise(lambda t: rounded(t, weights.dtype), normalisation.shift)
    if not sound(shift) or not after(product, Affine(normalisation.scale), node, rewriter):
        return False
    bias = rewriter.constant(node, shift, f"{node.output.name}.bias")
    rewriter.replace(node, rewriter.make(node, "Gemm", [*product.inputs, bias], merged=[product]))
    return True


def _before_layer(node: Node, rewriter: Rewriter) -> bool:
    normalise = rewriter.made_only_for(node, 0, "BatchNormalization")
    normalisation = None if normalise is None else affine(normalise, rewriter)
    if normalise is None or normalisation is None or normalisation.shift is None or normalise.inputs[0] is None:
        return False
    if node.op == "Gemm" and node.get_int("transA"):
        return False
    shape = normalise.inputs[0].shape
    if node.op == "Gemm" and (shape is None or len(shape) != 2):
        return False
    shift = None if not normalisation.shift.any() else normalisation.shift
    if not before(node, Affine(normalisation.scale, shift), normalise, rewriter):
        return False
    rewriter.set_input(node, 0, normalise.inputs[0])
    return True


def _absorbs(node: Node, rewriter: Rewriter) -> bool:
    inner = operand(node, rewriter, "BatchNormalization")
    if inner is None:
        return False
    normalise, step, constant = inner
    shape = normalise.output.shape
    if shape is None or affine(normalise, rewriter) is None:
        return False
    gamma, beta = rewriter.array(normalise.inputs[1]), rewriter.array(normalise.inputs[2])
    if gamma is None or beta is None or channel_axis(constant, len(shape), 1) not in (1, gamma.size):
        return False
    new_gamma, new_beta = gamma, beta
    if step.scale is not None:
        scale = reshape(step.scale, (step.scale.size,))
        new_gamma = elementwise(lambda g, s: rounded(g * s, gamma.dtype), gamma, scale)
        new_beta = elementwise(np.multiply, beta, scale)
    if step.shift is not None:
        new_beta = elementwise(np.add, new_beta, reshape(step.shift, (step.shift.size,)))
    new_beta = elementwise(lambda b: rounded(b, beta.dtype), new_beta)
    constants = {1: np.broadcast_to(new_gamma, gamma.shape), 2: np.broadcast_to(new_beta, beta.shape)}
    if step.scale is None:
        del constants[1]
    if not all(map(sound, constants.values())) or not rewriter.pays(list(constants.values()), node, normalise):
        return False
    for index, array in constants.items():
        value = normalise.inputs[index]
        rewriter.set_input(
            normalise, index, rewriter.constant(normalise, array, value.name if value is not None else "")
        )
    rewriter.touch(normalise, node)
    rewriter.replace(node, normalise.output)
    return True


RULES = (
    Rule("batchnorm-after", ("BatchNormalization",), _after_layer),
    Rule("batchnorm-before", ("Conv", "ConvTranspose", "Gemm"), _before_layer),
    Rule("batchnorm-absorbs", ("Mul", "Div", "Add", "Sub"), _absorbs),
)
