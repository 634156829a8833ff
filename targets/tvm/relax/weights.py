"""Weights of layers in the order in which their kernels read them.

Constants are packed when the model is compiled. What the model computes (weights modulated by a style, dynamic filters)
is packed each time it runs, by a kernel that what computes it may be fused into.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax

from ....ir.node import Value
from ..compute import conv as convs
from ..cpu.tiling import Tile
from .expressions import INJECTIVE, constant
from .importer import Importer

_FLOATS = ("float32", "float16")


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of a convolution, [Co, Ci / groups, KH, KW]: `array` where they are constants, else `expr`."""

    shape: tuple[int, ...]
    array: npt.NDArray[np.generic] | None
    expr: relax.Expr | None = None

    @staticmethod
    def of(importer: Importer, value: Value) -> Weights | None:
        """Those of a layer over images; none where they are not floats of four known sizes."""
        shape = value.static_shape
        if shape is None or len(shape) != 4 or value.dtype is None or value.dtype.numpy.name not in _FLOATS:
            return None
        if value.constant is not None:
            return Weights(shape, value.constant.numpy())
        return Weights(shape, None, importer.plain(value))

    def packed(self, importer: Importer, tile: Tile, inner: int) -> relax.Expr:
        """As `compute.conv` reads them."""
        block = importer.machine.block
        if self.array is not None:
            return constant(convs.pack(self.array, tile, inner, block))
        return self._computed(importer, convs.packed, tile=tile, inner=inner, block=block)

    def packed_depthwise(self, importer: Importer) -> relax.Expr:
        """As `compute.conv.depthwise` reads them."""
        block = importer.machine.block
        if self.array is not None:
            return constant(convs.pack_depthwise(self.array, block))
        return self._computed(importer, convs.packed_depthwise, block=block)

    def _computed(self, importer: Importer, kernel: Any, **options: Any) -> relax.Expr:
        assert self.expr is not None
        return importer.te(kernel, self.expr, pattern=INJECTIVE, **options)


def bias_of(importer: Importer, value: Value, channels: int, block: int) -> relax.Expr:
    """One number a channel, as it broadcasts against an image in blocks."""
    if value.constant is not None:
        return spread(value.constant.numpy(), channels, block)
    return importer.te(convs.blocked, importer.plain(value), pattern=INJECTIVE, block=block)


def spread(array: npt.NDArray[np.generic], channels: int, block: int) -> relax.Expr:
    """A constant of one number, or one a channel, as it broadcasts against an image in blocks."""
    full = -(-channels // block) * block
    padded = np.pad(np.broadcast_to(array.ravel(), (channels,)), (0, full - channels))
    return constant(padded.reshape(1, full // block, 1, block))
