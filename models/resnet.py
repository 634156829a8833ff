"""ResNet for small images: three stages of basic blocks, 6n + 2 layers.

He et al., "Deep Residual Learning for Image Recognition", 2015 (arXiv:1512.03385), section 4.2 and Table 6. Where a
stage halves the image and doubles the channels, the paper's shortcut is option A, `pad`: take every second pixel and
pad the channels with zeros, no parameters. Option B, `project`, is a strided 1x1 convolution.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from ..errors import SpecError
from ..ir.graph import Graph
from ..ir.node import Value
from .builder import NetworkBuilder, Weights, he, sizes

Shortcut: TypeAlias = Literal["pad", "project"]


def resnet_cifar(
    depth: int = 20, classes: int = 10, *, shortcut: Shortcut = "pad", batch_norm: bool = True, seed: int = 0
) -> Graph:
    """The CIFAR ResNet of 6n + 2 = `depth` layers on (N, 3, 32, 32), random weights.

    Raises `SpecError` for another depth and for an unknown shortcut.
    """
    if depth < 8 or depth % 6 != 2:
        raise SpecError(f"depth={depth} is not 6n + 2; take 20, 32, 44, 56 or 110")
    if shortcut not in ("pad", "project"):
        raise SpecError(f"shortcut={shortcut} is unknown; take 'pad' or 'project'")
    name = f"resnet{depth}_cifar"
    return basic_resnet(
        name, he(seed), (3, 32, 32), classes, (depth - 2) // 6, shortcut=shortcut, batch_norm=batch_norm
    )


def basic_resnet(
    name: str,
    weights: Weights,
    image: tuple[int, int, int],
    classes: int,
    blocks: int,
    *,
    shortcut: Shortcut,
    batch_norm: bool = True,
) -> Graph:
    """Three stages of `blocks` basic blocks, of 16, 32 and 64 channels, on images (channels, height, width).

    The last layer of a block starts divided by the square root of the number of blocks, which bounds the growth of the
    signal along the additions whatever the depth (De and Smith, 2020, arXiv:2002.10444).
    """
    build = NetworkBuilder(name, weights, batch_norm=batch_norm)
    x = build.conv(build.input("input", *image), "stem", 16, 3, activation="relu")
    for stage, channels in enumerate((16, 32, 64), start=1):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            x = _basic_block(build, x, f"stage{stage}.block{block}", channels, stride, shortcut, (3 * blocks) ** -0.5)
    return build.finish(build.classifier(x, classes), "logits")


def _basic_block(
    build: NetworkBuilder, x: Value, name: str, channels: int, stride: int, shortcut: Shortcut, scale: float
) -> Value:
    y = build.conv(x, f"{name}.conv1", channels, 3, stride=stride, activation="relu")
    y = build.conv(y, f"{name}.conv2", channels, 3, gain=1.0, scale=scale)
    if stride != 1:
        project = shortcut == "project"
        x = build.conv(x, f"{name}.shortcut", channels, stride=2, gain=1.0) if project else _pad(build, x, y, name)
    return build.activate(build.add(y, x, f"{name}.add"), f"{name}.add", "relu")


def _pad(build: NetworkBuilder, x: Value, like: Value, name: str) -> Value:
    """Every second pixel of `x`, and zero channels up to those of `like`."""
    inputs, (channels, *image) = sizes(x)[0], sizes(like)
    end, name = 2**31 - 1, f"{name}.shortcut"
    operands = [
        build.integers(f"{name}.{part}", values)
        for part, values in (("starts", [0, 0]), ("ends", [end, end]), ("axes", [2, 3]), ("steps", [2, 2]))
    ]
    x = build.node("Slice", f"{name}.slice", [x, *operands], ("N", inputs, *image))
    pads = build.integers(f"{name}.pads", [0, 0, 0, 0, 0, channels - inputs, 0, 0])
    return build.node("Pad", f"{name}.pad", [x, pads], ("N", channels, *image))
