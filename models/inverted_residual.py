"""The block that the mobile families share: widen, filter each channel apart, gate, narrow, and add the input.

Sandler et al., "MobileNetV2", 2018 (arXiv:1801.04381), section 3.3; with the gate between filtering and narrowing as in
Tan et al., "MnasNet", 2019 (arXiv:1807.11626), Figure 7.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.node import Value
from .builder import Activation, NetworkBuilder, sizes


@dataclass(frozen=True, slots=True)
class InvertedResidual:
    """One inverted residual.

    `expanded` channels stand between widening and narrowing; where they are as many as come in there is no widening.
    `squeezed` is the width within the gate, none where it is 0, and `opening` the function that ends the gate.
    """

    expanded: int
    channels: int
    kernel: int = 3
    stride: int = 1
    activation: Activation = "relu6"
    squeezed: int = 0
    opening: Activation = "sigmoid"
    residual: bool = True
    gate_activation: Activation = ""
    """What stands within the gate; the block's own activation unless given."""


def inverted_residual(build: NetworkBuilder, x: Value, name: str, block: InvertedResidual) -> Value:
    """The block on `x`: its input is added where it has the shape of the output and the block is `residual`."""
    inputs, y, act = sizes(x)[0], x, block.activation
    if block.expanded != inputs:
        y = build.conv(y, f"{name}.expand", block.expanded, activation=act)
    y = build.conv(
        y,
        f"{name}.depthwise",
        block.expanded,
        block.kernel,
        stride=block.stride,
        groups=block.expanded,
        activation=act,
    )
    if block.squeezed:
        y = build.gate(y, f"{name}.gate", block.squeezed, block.gate_activation or act, block.opening)
    # A gate halves what passes, on the average.
    gain = 4.0 if block.squeezed else 1.0
    if not block.residual or block.stride != 1 or inputs != block.channels:
        return build.conv(y, f"{name}.project", block.channels, gain=gain)
    return build.add(x, build.conv(y, f"{name}.project", block.channels, gain=gain, scale=0.5), f"{name}.add")


def divisible(channels: float, by: int = 8) -> int:
    """`channels` rounded to a multiple of `by`, upwards where rounding would take away more than a tenth."""
    rounded = max(by, int(channels + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * channels else rounded
