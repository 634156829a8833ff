"""Five small networks trained on handwritten digits, and the samples they were trained and are judged on.

The images are the 1,797 test images, 8x8 with 17 grey levels, of E. Alpaydin and C. Kaynak, "Optical Recognition of
Handwritten Digits", UCI Machine Learning Repository, 1998 (doi:10.24432/C50P49, CC BY 4.0), in the copy that
scikit-learn distributes. They are shuffled with a fixed seed and split into 897 to train on, 300 to calibrate with and
600 to test on. The networks read them enlarged to 16x16. `train` makes all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..ir.graph import Graph
from .builder import FloatArray, NetworkBuilder, Weights
from .inverted_residual import InvertedResidual, inverted_residual
from .mobilenet import separable
from .resnet import basic_resnet
from .transformer import row_transformer

Split: TypeAlias = Literal["train", "calib", "test"]

SPLITS: dict[Split, int] = {"train": 897, "calib": 300, "test": 600}
SIZE = 16
DATA = files(__package__) / "data"


def digits_dscnn(weights: Weights) -> Graph:
    """Depthwise-separable: a stem of 24 channels and five MobileNetV1 blocks up to 192."""
    build = NetworkBuilder("digits_dscnn", weights)
    x = build.conv(build.input("input", 1, SIZE, SIZE), "stem", 24, 3, activation="relu6")
    x = separable(build, x, ((48, 1), (96, 2), (96, 1), (192, 2), (192, 1)))
    return build.finish(build.classifier(x, 10), "logits")


def digits_resnet(weights: Weights) -> Graph:
    """Residual: three stages of two basic blocks with projecting shortcuts."""
    return basic_resnet("digits_resnet", weights, (1, SIZE, SIZE), 10, 2, shortcut="project")


def digits_mobilenet_v3(weights: Weights) -> Graph:
    """MobileNetV3's kind of blocks: gates, hard swish, 5x5 filters, and the wide layer behind the pooling."""
    build = NetworkBuilder("digits_mobilenet_v3", weights, epsilon=1e-3)
    x = build.conv(build.input("input", 1, SIZE, SIZE), "stem", 16, 3, activation="hard_swish")
    blocks = (
        InvertedResidual(16, 16, 3, 2, "relu", 8, "hard_sigmoid"),
        InvertedResidual(48, 24, 3, 1, "relu"),
        InvertedResidual(72, 24, 3, 1, "relu"),
        InvertedResidual(72, 32, 5, 2, "hard_swish", 16, "hard_sigmoid", gate_activation="relu"),
        InvertedResidual(96, 32, 5, 1, "hard_swish", 24, "hard_sigmoid", gate_activation="relu"),
    )
    for index, block in enumerate(blocks, start=1):
        x = inverted_residual(build, x, f"block{index}", block)
    x = build.conv(x, "head", 96, activation="hard_swish")
    pooled = build.node("GlobalAveragePool", "pool", [x], ("N", 96, 1, 1))
    y = build.plain_conv(pooled, "features", 64, activation="hard_swish")
    return build.finish(build.dense(build.node("Flatten", "flatten", [y], ("N", 64)), "classifier", 10), "logits")


def digits_efficientnet(weights: Weights) -> Graph:
    """EfficientNet's kind of blocks: SiLU, and a gate in each."""
    build = NetworkBuilder("digits_efficientnet", weights, epsilon=1e-3)
    x = build.conv(build.input("input", 1, SIZE, SIZE), "stem", 16, 3, activation="silu")
    blocks = (
        InvertedResidual(16, 16, 3, 1, "silu", 4),
        InvertedResidual(64, 24, 3, 2, "silu", 4),
        InvertedResidual(96, 24, 3, 1, "silu", 6),
        InvertedResidual(96, 40, 5, 2, "silu", 6),
        InvertedResidual(120, 40, 5, 1, "silu", 10),
    )
    for index, block in enumerate(blocks, start=1):
        x = inverted_residual(build, x, f"block{index}", block)
    return build.finish(build.classifier(build.conv(x, "head", 96, activation="silu"), 10), "logits")


def digits_transformer(weights: Weights) -> Graph:
    """Dense: two encoder layers of width 64 over the sixteen rows."""
    return row_transformer("digits_transformer", weights, size=SIZE, classes=10, width=64, heads=4, layers=2)


NETWORKS: dict[str, Callable[[Weights], Graph]] = {
    "digits_dscnn": digits_dscnn,
    "digits_resnet": digits_resnet,
    "digits_transformer": digits_transformer,
    "digits_mobilenet_v3": digits_mobilenet_v3,
    "digits_efficientnet": digits_efficientnet,
}


def images(split: Split) -> FloatArray:
    """The inputs of a split, float32 (n, 1, 16, 16) in [0, 1]."""
    enlarge = bilinear(8, SIZE)
    return (enlarge @ (_array(f"{split}_images") / np.float32(16)) @ enlarge.T)[:, None].astype(np.float32)


def labels(split: Split) -> npt.NDArray[np.int64]:
    """The digit on each image of a split, (n,)."""
    return _array(f"{split}_labels").astype(np.int64)


def bilinear(source: int, target: int) -> FloatArray:
    """The matrix (target, source) that resamples a line of pixels linearly between their centres, edges repeated."""
    centres = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    return np.maximum(0.0, 1.0 - np.abs(centres[:, None] - np.arange(source))).astype(np.float32)


def _array(key: str) -> npt.NDArray[np.uint8]:
    with (DATA / "digits.npz").open("rb") as file, np.load(file) as arrays:
        array: npt.NDArray[np.uint8] = arrays[key]
    return array
