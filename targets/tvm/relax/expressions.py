"""What an importer's values are in Relax: plain expressions, images in blocks of channels, and layers on codes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tvm import relax, tirx

ELEMENTWISE, BROADCAST, INJECTIVE, FUSABLE, OPAQUE = 0, 1, 2, 4, 8
"""TVM's numbers for what may be fused to a kernel: FUSABLE takes elementwise work into its end (`kOutEWiseFusable`),
nothing is fused to an OPAQUE one."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """A value as [N, C / b, H * W, b]: `expr`, and the image that it holds. The last block may hold unused channels."""

    expr: relax.Expr
    channels: int
    height: int
    width: int
    block: int

    @property
    def whole(self) -> bool:
        """Whether every channel of every block is one of the image's."""
        return self.channels % self.block == 0


@dataclass(frozen=True, slots=True)
class Product:
    """What stands behind the answer of a layer on codes: (sums + bias) * scale + rest, each as it broadcasts.

    `most` is the largest number that this can be.
    """

    sums: relax.Expr
    bias: npt.NDArray[np.generic]
    scale: npt.NDArray[np.float32]
    rest: npt.NDArray[np.float32] | None
    most: float


def constant(array: npt.NDArray[np.generic]) -> relax.Expr:
    """A constant of the array's own type: TVM would take int64 for int32 and doubles for floats."""
    return relax.const(np.asarray(array, order="C"), str(array.dtype))


def number(size: object) -> int | None:
    """A size where it is known."""
    return int(size) if isinstance(size, int | tirx.IntImm) else None
