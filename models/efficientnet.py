"""EfficientNet B0-B7 and EfficientNet-Lite0-4: one searched network, scaled in width, depth and resolution together.

Tan and Le, "EfficientNet", 2019 (arXiv:1905.11946), Table 1 and section 3.3. Lite is the authors' form for phones
(tensorflow/tpu, efficientnet/lite): no gates, ReLU6, stem and head of fixed widths, first and last stage not deepened.
"""

from __future__ import annotations

import math

from ..ir.graph import Graph
from .builder import Activation, NetworkBuilder, he, sizes
from .inverted_residual import InvertedResidual, divisible, inverted_residual

STAGES = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)  # fmt: skip
"""Expansion, output channels, repeats, stride of the first repeat, kernel."""

SCALES = {
    "b0": (1.0, 1.0, 224), "b1": (1.0, 1.1, 240), "b2": (1.1, 1.2, 260), "b3": (1.2, 1.4, 300), "b4": (1.4, 1.8, 380),
    "b5": (1.6, 2.2, 456), "b6": (1.8, 2.6, 528), "b7": (2.0, 3.1, 600),
    "lite0": (1.0, 1.0, 224), "lite1": (1.0, 1.1, 240), "lite2": (1.1, 1.2, 260), "lite3": (1.2, 1.4, 280),
    "lite4": (1.4, 1.8, 300),
}  # fmt: skip
"""Width, depth and resolution of each variant, as its authors published it."""


def efficientnet(
    width: float,
    depth: float,
    resolution: int,
    classes: int = 1000,
    *,
    channels: int = 3,
    lite: bool = False,
    batch_norm: bool = True,
    pads: str = "torch",
    epsilon: float = 1e-3,
    seed: int = 0,
) -> Graph:
    """EfficientNet, or its lite form, on (N, channels, resolution, resolution), random weights.

    `width` multiplies the channels, `depth` the repeats of each stage.
    """
    name = "efficientnet_lite" if lite else "efficientnet"
    build = NetworkBuilder(name, he(seed), batch_norm=batch_norm, epsilon=epsilon, pads=pads)
    act: Activation = "relu6" if lite else "silu"
    stem = 32 if lite else divisible(32 * width)
    x = build.conv(build.input("input", channels, resolution, resolution), "stem", stem, 3, stride=2, activation=act)
    for stage, (expansion, outputs, repeats, stride, kernel) in enumerate(STAGES, start=1):
        fixed = lite and stage in (1, len(STAGES))
        for index in range(repeats if fixed else math.ceil(repeats * depth)):
            inputs = sizes(x)[0]
            block = InvertedResidual(
                inputs * expansion,
                divisible(outputs * width),
                kernel,
                1 if index else stride,
                act,
                # A quarter of what comes into the block, not of what it is widened to.
                0 if lite else max(1, inputs // 4),
            )
            x = inverted_residual(build, x, f"stage{stage}.block{index + 1}", block)
    x = build.conv(x, "head", 1280 if lite else divisible(1280 * width), activation=act)
    return build.finish(build.classifier(x, classes), "logits")
