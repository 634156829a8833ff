"""Between plain channels, [N, C, H, W], and channels in blocks, [N, C / b, H * W, b]."""

from __future__ import annotations

from tvm import te, topi


def pack(x: te.Tensor, block: int) -> te.Tensor:
    """[N, C, H, W] as [N, C / b, H * W, b]; C is a multiple of b."""
    n, c, height, width = x.shape
    return te.compute(
        (n, c // block, height * width, block),
        lambda i, o, p, lane: x[i, o * block + lane, p // width, p % width],
        name="pack",
    )


def unpack(x: te.Tensor, channels: int, height: int, width: int) -> te.Tensor:
    """[N, C / b, H * W, b] as [N, channels, H, W]; blocks may hold more channels than are wanted."""
    block = x.shape[3]
    return te.compute(
        (x.shape[0], channels, height, width),
        lambda n, c, h, w: x[n, c // block, h * width + w, c % block],
        name="unpack",
    )


def concatenate(*parts: te.Tensor, axis: int) -> te.Tensor:
    """Tensors one after the other along an axis."""
    return topi.concatenate(parts, axis)
