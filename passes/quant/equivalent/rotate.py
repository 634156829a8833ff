"""The channels between two factors of a layer turned so that all are alike.

svd leaves a narrow value between two linear layers whose channels are principal components: the first is many times
larger than the last, so one grid over all of them, and one scale over the columns that read them, serve the large ones
alone. Between layers with nothing in between any orthogonal Q is free,

    W_2 (W_1 x + b_1)  =  (W_2 Q^T) (Q W_1 x + Q b_1)

and a random one makes of r components r mixtures of about the same size (Ashkboos et al. 2024, "QuaRot",
arXiv:2404.00456, section 3, uses it against outliers). Q is drawn from a fixed seed.

Fires on Conv -> Conv without groups and on MatMul or Gemm -> MatMul or Gemm, where the second alone reads the first and
the channels' powers spread by `SPREAD`: where all are of about one size, turning gains nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ....ir.graph import Node, Value
from ...walk.linear import Linear
from ..calibrate import Seen

SPREAD = 1.15
"""The mean square of the channels' powers over the square of their mean, 1 where all are alike. Factors that svd made
of ResNet-20 for CIFAR-10 have 1.2 to 2.5, what lies between two blocks of MobileNetV2 or of a face detector 1.03 to
1.08."""


def rotate(layers: Mapping[Node, Linear], seen: Seen, seed: int) -> int:
    """Turn the channels between the pairs of `layers`, in place; returns how many pairs that were."""
    pairs = [(first, second) for second in layers.values() if (first := _before(second, layers)) is not None]
    powers = [one.square for one in seen.channels(turned_values(layers))]
    unlike = [
        pair for pair, power in zip(pairs, powers, strict=True) if np.mean(power**2) > SPREAD * np.mean(power) ** 2
    ]
    for number, (first, second) in enumerate(unlike):
        drawn = np.random.default_rng((seed, number)).standard_normal((first.outputs, first.outputs))
        q = np.linalg.qr(drawn)[0]
        bias = first.bias()
        first.write((q @ first.weights()[0])[None], None if bias is None else q @ bias)
        blocks = second.weights().reshape(second.outputs, second.channels, -1)
        second.write(np.moveaxis(np.tensordot(q, blocks, axes=(1, 1)), 0, 1).reshape(second.shape), None)
    return len(unlike)


def turned_values(layers: Mapping[Node, Linear]) -> dict[Value, int]:
    """The values between two factors, with the axis of their channels."""
    pairs = ((first, second.source) for second in layers.values() if (first := _before(second, layers)) is not None)
    return {value: 1 if first.op == "Conv" else -1 for first, value in pairs}


def _before(second: Linear, layers: Mapping[Node, Linear]) -> Linear | None:
    value = second.source
    first = None if value.producer is None else layers.get(value.producer)
    if first is None or len(value.uses) != 1 or value.is_output or (first.op == "Conv") != (second.op == "Conv"):
        return None
    grouped = first.groups != 1 or second.groups != 1
    shared = not first.unshared or len(second.weight.uses) != 1
    return None if grouped or shared or first.outputs < 2 else first
