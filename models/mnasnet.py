"""MnasNet-A1: inverted residuals that differ from stage to stage, searched for by latency on a phone.

Tan et al., "MnasNet: Platform-Aware Neural Architecture Search for Mobile", 2019 (arXiv:1807.11626), Figure 7(a).
"""

from __future__ import annotations

from ..ir.graph import Graph
from .builder import NetworkBuilder, he, sizes
from .inverted_residual import InvertedResidual, divisible, inverted_residual

STAGES = (
    (1, 16, 1, 1, 3, False), (6, 24, 2, 2, 3, False), (3, 40, 3, 2, 5, True), (6, 80, 4, 2, 3, False),
    (6, 112, 2, 1, 3, True), (6, 160, 3, 2, 5, True), (6, 320, 1, 1, 3, False),
)  # fmt: skip
"""Expansion, output channels, repeats, stride of the first repeat, kernel, whether it is gated."""


def mnasnet_a1(
    width: float = 1.0,
    resolution: int = 224,
    classes: int = 1000,
    *,
    channels: int = 3,
    batch_norm: bool = True,
    pads: str = "torch",
    epsilon: float = 1e-5,
    seed: int = 0,
) -> Graph:
    """MnasNet-A1 with width multiplier `width` on (N, channels, resolution, resolution), random weights."""
    build = NetworkBuilder("mnasnet_a1", he(seed), batch_norm=batch_norm, epsilon=epsilon, pads=pads)
    stem = divisible(32 * width)
    x = build.conv(build.input("input", channels, resolution, resolution), "stem", stem, 3, stride=2, activation="relu")
    for stage, (expansion, outputs, repeats, stride, kernel, gated) in enumerate(STAGES, start=1):
        for index in range(repeats):
            inputs = sizes(x)[0]
            block = InvertedResidual(
                inputs * expansion,
                divisible(outputs * width),
                kernel,
                1 if index else stride,
                "relu",
                max(1, inputs // 4) if gated else 0,
                residual=expansion != 1,
            )
            x = inverted_residual(build, x, f"stage{stage}.block{index + 1}", block)
    x = build.conv(x, "head", 1280, activation="relu")
    return build.finish(build.classifier(x, classes), "logits")
