"""MobileNetV3, large and small: inverted residuals whose kernels, widths and gates were searched for.

Howard et al., "Searching for MobileNetV3", 2019 (arXiv:1905.02244), Tables 1 and 2. A width below 1 rounds the
expanded channels from those that really come in, as the authors' code does; the stem's 16 channels and the layer before
the classifier are not narrowed. `minimalistic` is the authors' form without 5x5 kernels, gates and hard swish.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.graph import Graph
from ..ir.node import Value
from .builder import Activation, NetworkBuilder, he, sizes
from .inverted_residual import InvertedResidual, divisible, inverted_residual


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the tables: kernel, expansion, output channels, whether it is gated, hard swish or ReLU, stride."""

    kernel: int
    expansion: float
    channels: int
    gated: bool
    hard: bool
    stride: int


LARGE = (
    _Row(3, 1, 16, False, False, 1),
    _Row(3, 4, 24, False, False, 2),
    _Row(3, 3, 24, False, False, 1),
    _Row(5, 3, 40, True, False, 2),
    _Row(5, 3, 40, True, False, 1),
    _Row(5, 3, 40, True, False, 1),
    _Row(3, 6, 80, False, True, 2),
    _Row(3, 2.5, 80, False, True, 1),
    _Row(3, 2.3, 80, False, True, 1),
    _Row(3, 2.3, 80, False, True, 1),
    _Row(3, 6, 112, True, True, 1),
    _Row(3, 6, 112, True, True, 1),
    _Row(5, 6, 160, True, True, 2),
    _Row(5, 6, 160, True, True, 1),
    _Row(5, 6, 160, True, True, 1),
)
SMALL = (
    _Row(3, 1, 16, True, False, 2),
    _Row(3, 72 / 16, 24, False, False, 2),
    _Row(3, 88 / 24, 24, False, False, 1),
    _Row(5, 4, 40, True, True, 2),
    _Row(5, 6, 40, True, True, 1),
    _Row(5, 6, 40, True, True, 1),
    _Row(5, 3, 48, True, True, 1),
    _Row(5, 3, 48, True, True, 1),
    _Row(5, 6, 96, True, True, 2),
    _Row(5, 6, 96, True, True, 1),
    _Row(5, 6, 96, True, True, 1),
)


def mobilenet_v3_large(
    width: float = 1.0,
    resolution: int = 224,
    classes: int = 1000,
    *,
    channels: int = 3,
    minimalistic: bool = False,
    batch_norm: bool = True,
    pads: str = "torch",
    epsilon: float = 1e-3,
    seed: int = 0,
) -> Graph:
    """MobileNetV3-Large on (N, channels, resolution, resolution), random weights."""
    build = NetworkBuilder("mobilenet_v3_large", he(seed), batch_norm=batch_norm, epsilon=epsilon, pads=pads)
    image = build.input("input", channels, resolution, resolution)
    return _mobilenet_v3(build, image, LARGE, 1280, width, classes, minimalistic)


def mobilenet_v3_small(
    width: float = 1.0,
    resolution: int = 224,
    classes: int = 1000,
    *,
    channels: int = 3,
    minimalistic: bool = False,
    batch_norm: bool = True,
    pads: str = "torch",
    epsilon: float = 1e-3,
    seed: int = 0,
) -> Graph:
    """MobileNetV3-Small on (N, channels, resolution, resolution), random weights."""
    build = NetworkBuilder("mobilenet_v3_small", he(seed), batch_norm=batch_norm, epsilon=epsilon, pads=pads)
    image = build.input("input", channels, resolution, resolution)
    return _mobilenet_v3(build, image, SMALL, 1024, width, classes, minimalistic)


def _mobilenet_v3(
    build: NetworkBuilder,
    image: Value,
    rows: tuple[_Row, ...],
    features: int,
    width: float,
    classes: int,
    minimalistic: bool,
) -> Graph:
    hard: Activation = "relu" if minimalistic else "hard_swish"
    x = build.conv(image, "stem", 16, 3, stride=2, activation=hard)
    stage, index = 0, 0
    for before, row in zip((None, *rows), rows):
        # A stage ends where the table's number of channels changes.
        stage, index = (stage, index + 1) if before and before.channels == row.channels else (stage + 1, 1)
        expanded = divisible(sizes(x)[0] * row.expansion)
        block = InvertedResidual(
            expanded,
            divisible(row.channels * width),
            3 if minimalistic else row.kernel,
            row.stride,
            hard if row.hard else "relu",
            divisible(expanded / 4) if row.gated and not minimalistic else 0,
            "hard_sigmoid",
            gate_activation="relu",
        )
        x = inverted_residual(build, x, f"stage{stage}.block{index}", block)
    x = build.conv(x, "head", divisible(sizes(x)[0] * 6), activation=hard)
    pooled = build.node("GlobalAveragePool", "pool", [x], ("N", sizes(x)[0], 1, 1))
    # The efficient last stage (section 5.1): the widest layer stands behind the pooling.
    wide = divisible(features * width) if width > 1 else features
    y = build.plain_conv(pooled, "features", wide, activation=hard)
    flat = build.node("Flatten", "flatten", [y], ("N", wide))
    return build.finish(build.dense(flat, "classifier", classes), "logits")
