"""MobileNetV1 and MobileNetV2: depthwise-separable convolutions, plain and as inverted residuals.

Howard et al., "MobileNets", 2017 (arXiv:1704.04861), Table 1; Sandler et al., "MobileNetV2", 2018 (arXiv:1801.04381),
Table 2.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..ir.graph import Graph
from ..ir.node import Value
from .builder import NetworkBuilder, he, sizes
from .inverted_residual import InvertedResidual, divisible, inverted_residual

V1_BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip
"""Output channels and stride of each separable block."""

V2_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion t, output channels c, repeats n, stride s of the first repeat."""


def mobilenet_v1(
    alpha: float = 1.0,
    resolution: int = 224,
    classes: int = 1000,
    *,
    channels: int = 3,
    batch_norm: bool = True,
    pads: str = "torch",
    epsilon: float = 1e-5,
    seed: int = 0,
) -> Graph:
    """MobileNetV1 with width multiplier `alpha` on (N, channels, resolution, resolution), random weights."""
    build = NetworkBuilder("mobilenet_v1", he(seed), batch_norm=batch_norm, epsilon=epsilon, pads=pads)
    x = build.conv(
        build.input("input", channels, resolution, resolution),
        "stem",
        _thin(32, alpha),
        3,
        stride=2,
        activation="relu6",
    )
    x = separable(build, x, ((_thin(outputs, alpha), stride) for outputs, stride in V1_BLOCKS))
    return build.finish(build.classifier(x, classes), "logits")


def separable(build: NetworkBuilder, x: Value, blocks: Iterable[tuple[int, int]]) -> Value:
    """Depthwise 3x3 and pointwise 1x1, each with ReLU6, once per (output channels, stride)."""
    for index, (channels, stride) in enumerate(blocks, start=1):
        x = _depthwise(build, x, f"block{index}.depthwise", stride)
        x = build.conv(x, f"block{index}.pointwise", channels, activation="relu6")
    return x


def mobilenet_v2(
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
    """MobileNetV2 with width multiplier `width` on (N, channels, resolution, resolution), random weights.

    The last convolution is widened by a multiplier above 1 but not narrowed by one below (section 6.1).
    """
    build = NetworkBuilder("mobilenet_v2", he(seed), batch_norm=batch_norm, epsilon=epsilon, pads=pads)
    x = build.conv(
        build.input("input", channels, resolution, resolution),
        "stem",
        divisible(32 * width),
        3,
        stride=2,
        activation="relu6",
    )
    for stage, (expansion, outputs, repeats, stride) in enumerate(V2_STAGES, start=1):
        for block in range(repeats):
            step = InvertedResidual(sizes(x)[0] * expansion, divisible(outputs * width), 3, 1 if block else stride)
            x = inverted_residual(build, x, f"stage{stage}.block{block + 1}", step)
    x = build.conv(x, "head", divisible(1280 * max(1.0, width)), activation="relu6")
    return build.finish(build.classifier(x, classes), "logits")


def _thin(channels: int, alpha: float) -> int:
    return max(8, int(channels * alpha))


def _depthwise(build: NetworkBuilder, x: Value, name: str, stride: int) -> Value:
    channels = sizes(x)[0]
    return build.conv(x, name, channels, 3, stride=stride, groups=channels, activation="relu6")
