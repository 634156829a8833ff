"""Kernels on integer codes: products summed in 32 bits, and the steps between floats and codes.

Weights keep neighbours of the reduction side by side behind the lanes of the output, [..., b, terms], which is what one
instruction takes (see `machine.Dot`). Sums are whole and exact, so their order does not matter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import te, tirx

from ..cpu.tiling import Tile
from .conv import from_tiles, reader
from .dense import product
from .sums import sums
from .window import Window

_MAGIC = 12582912.0
"""1.5 * 2^23: a float of this size has whole numbers for neighbours, so adding it rounds, halves to even."""
_MAGIC_BITS = 0x4B400000
BOUND = 2.0**15 - 512
"""What fits 16 bits, with any zero added."""


def pack(weights: npt.NDArray[np.int8], tile: Tile, inner: int, block: int, terms: int) -> npt.NDArray[np.int8]:
    """[Co, Ci, KH, KW] as [Co / (m b), Ci / inner, KH, KW, m, inner / terms, b, terms], missing ones zero."""
    co, ci, kh, kw = weights.shape
    wide = tile.chunks * block
    outer, blocks = -(-co // wide), -(-ci // inner)
    padded = np.pad(weights, ((0, outer * wide - co), (0, blocks * inner - ci), (0, 0), (0, 0)))
    cut = padded.reshape(outer, tile.chunks, block, blocks, inner // terms, terms, kh, kw)
    return np.ascontiguousarray(cut.transpose(0, 3, 6, 7, 1, 4, 2, 5))


def pack_dense(weights: npt.NDArray[np.int8], tile: Tile, block: int, terms: int) -> npt.NDArray[np.int8]:
    """[K, N] as [N / (m b), K / terms, m, b, terms]; missing columns become zero."""
    k, n = weights.shape
    wide = tile.chunks * block
    outer = -(-n // wide)
    padded = np.pad(weights, ((0, 0), (0, outer * wide - n)))
    return np.ascontiguousarray(padded.reshape(k // terms, terms, outer, tile.chunks, block).transpose(2, 0, 3, 4, 1))


def conv_codes(
    x: te.Tensor, w: te.Tensor, channels: int, window: Window, tile: Tile, groups: int, zero: int
) -> te.Tensor:
    """Codes [N, Ci / bi, H * W, bi] with packed weights to sums of products, int32 [N, Co / b, OH * OW, b].

    Beyond the border codes are `zero`, so that what the zero of the codes adds to a sum is the same everywhere.
    """
    points = window.output[0] * window.output[1]
    outer, blocks, kernel_h, kernel_w, chunks, inner, block, terms = (int(d) for d in w.shape)
    read = reader(x, window, tile, tirx.const(zero, x.dtype))

    def term(n: Any, o: Any, p: Any, t: Any, m: Any, lane: Any, rc: Any, rh: Any, rw: Any, ri: Any, rt: Any) -> Any:
        c = rc if groups == 1 else o // (outer // groups) * blocks + rc
        code = read(n, c, p, t, rh, rw, ri * terms + rt).astype("int32")
        return code * w[o, rc, rh, rw, m, ri, lane, rt].astype("int32")

    total = sums(
        (x.shape[0], outer, -(-points // tile.points), tile.points, chunks, block),
        term,
        ((blocks, "rc"), (kernel_h, "rh"), (kernel_w, "rw"), (inner, "ri"), (terms, "rt")),
        "int32",
        {**tile.notes(4), "optc.terms": terms},
    )
    return from_tiles(total, channels, points, "conv")


def dense_codes(x: te.Tensor, w: te.Tensor, columns: int, tile: Tile) -> te.Tensor:
    """Codes [..., M, K] by packed weights [N / (m b), K / terms, m, b, terms] to int32 [..., M, N]."""
    panels, depth, chunks, block, terms = (int(d) for d in w.shape)

    def term(lead: Any, row: Any, p: Any, m: Any, lane: Any, k: Any, rt: Any) -> Any:
        return x[(*lead, row, k * terms + rt)].astype("int32") * w[p, k, m, lane, rt].astype("int32")

    axes, notes = ((depth, "k"), (terms, "rt")), {**tile.notes(1), "optc.terms": terms}
    return product(x, term, axes, (panels, chunks, block), columns, tile, "int32", notes)


def scaled(total: te.Tensor, bias: te.Tensor, scale: te.Tensor, *rest: te.Tensor) -> te.Tensor:
    """(total + bias) * scale + rest as floats; all but the total broadcast to the left."""

    def number(*i: Any) -> Any:
        value = (total(*i) + bias(*_under(bias, i))).astype("float32") * scale(*_under(scale, i))
        return value + rest[0](*_under(rest[0], i)) if rest else value

    return te.compute(total.shape, number, name="scaled")


def encode(x: te.Tensor, scale: float, zero: int, low: int, high: int, dtype: str, bounded: bool = False) -> te.Tensor:
    """clip(round(x / scale) + zero, low, high) as `dtype`. Clamped first, to whole numbers, nothing overflows.

    It divides, as ONNX says: inputs that lie on a grid of their own, as pictures do, have quotients halfway between two
    codes, and a product with the inverse puts those on either side. Numbers that are `bounded`, by `BOUND`, are clamped
    last, when they are narrow, for which ARM has an instruction.
    """

    def code(value: Any) -> Any:
        quotient = value if scale == 1 else value / tirx.const(scale, "float32")
        if bounded:
            whole = _rounded(quotient, zero)
            return tirx.max(tirx.min(whole, tirx.const(high, "int16")), tirx.const(low, "int16")).astype(dtype)
        return to_code(quotient, low - zero, high - zero, zero, dtype)

    return te.compute(x.shape, lambda *i: code(x(*i)), name="encode")


def _rounded(number: Any, shift: int) -> Any:
    """A number of no more than `BOUND` rounded to a whole one, and `shift` added to it, as int16: one sum, whose lower
    half that is.

    A fence before the sum keeps LLVM from making one instruction of it and the product before, which would not round
    the product. What is added with `_MAGIC` must be even, or numbers halfway between two would go to the odd one.
    """
    fenced = tirx.call_llvm_pure_intrin("float32", "llvm.arithmetic.fence", number)
    inside = shift if shift % 2 == 0 else 0
    bits = tirx.reinterpret("int32", fenced + tirx.const(_MAGIC + inside, "float32")).astype("int16")
    return bits if inside == shift else bits + tirx.const(shift, "int16")


def to_code(number: Any, low: int, high: int, shift: int, dtype: str) -> Any:
    """A number rounded to a whole one between `low` and `high`, and `shift` added to it.

    Clamped before it is rounded, which keeps LLVM from making one instruction of a product and the sum that rounds it.
    """
    clamped = tirx.min(tirx.max(number, tirx.const(float(low), "float32")), tirx.const(float(high), "float32"))
    if dtype == "float32":
        return clamped + tirx.const(_MAGIC, dtype) - tirx.const(_MAGIC - shift, dtype)
    bits = tirx.reinterpret("int32", clamped + tirx.const(_MAGIC, "float32"))
    return (bits - tirx.const(_MAGIC_BITS - shift, "int32")).astype(dtype)


def decode(x: te.Tensor, scale: float, zero: int) -> te.Tensor:
    """(code - zero) * scale as floats."""

    def number(code: Any) -> Any:
        return (code.astype("int32") - tirx.const(zero, "int32")).astype("float32") * tirx.const(scale, "float32")

    return te.compute(x.shape, lambda *i: number(x(*i)), name="decode")


def recode(x: te.Tensor, dtype: str, shift: int) -> te.Tensor:
    """The same codes in another integer type, `shift` added."""

    def moved(code: Any) -> Any:
        return (code.astype("int32") + tirx.const(shift, "int32")).astype(dtype)

    return te.compute(x.shape, lambda *i: moved(x(*i)), name="recode")


def pack_codes(x: te.Tensor, block: int) -> te.Tensor:
    """[N, C, H, W] as [N, C / b, H * W, b]; channels beyond the last are 0, and have no weights."""
    n, c, height, width = (x.shape[0], *(int(d) for d in x.shape[1:]))

    def at(i: Any, o: Any, p: Any, lane: Any) -> Any:
        channel = o * block + lane
        element = x[i, tirx.min(channel, c - 1) if c % block else channel, p // width, p % width]
        return element if c % block == 0 else tirx.Select(channel < c, element, tirx.const(0, x.dtype))

    return te.compute((n, -(-c // block), height * width, block), at, name="pack")


def unfold(x: te.Tensor, window: Window, block: int, zero: int) -> te.Tensor:
    """[N, C, H, W] as [N, 1, H * OW, b]: every column of the kernel side by side, and all channels of each.

    Beyond the border codes are `zero`; what fills the block has no weights.
    """
    n, c, height, width = (x.shape[0], *(int(d) for d in x.shape[1:]))
    columns, taps = window.output[1], window.size[1]

    def at(i: Any, o: Any, p: Any, lane: Any) -> Any:
        tap = tirx.min(lane // c, taps - 1)
        column = p % columns * window.strides[1] + tap * window.dilations[1] - window.pads[1]
        inside = tirx.all(column >= 0, column < width)
        return tirx.if_then_else(inside, x[i, lane % c, p // columns, column], tirx.const(zero, x.dtype))

    return te.compute((n, 1, height * columns, block), at, name="unfold")


def crop(x: te.Tensor, width: int, first: tuple[int, int], step: tuple[int, int], size: tuple[int, int]) -> te.Tensor:
    """Every `step`-th row and column of an image in blocks, `size` of them from `first` on."""

    def at(n: Any, c: Any, p: Any, lane: Any) -> Any:
        row, column = first[0] + p // size[1] * step[0], first[1] + p % size[1] * step[1]
        return x[n, c, row * width + column, lane]

    return te.compute((x.shape[0], x.shape[1], size[0] * size[1], x.shape[3]), at, name="crop")


def pad_channels(x: te.Tensor, channels: int, before: int, total: int, fill: int) -> te.Tensor:
    """Channels [before, before + channels) of an image in blocks are those of x, the others `fill`."""
    block = int(x.shape[3])

    def at(n: Any, o: Any, p: Any, lane: Any) -> Any:
        channel = o * block + lane - before
        inside = tirx.all(channel >= 0, channel < channels)
        return tirx.if_then_else(inside, x[n, channel // block, p, channel % block], tirx.const(fill, x.dtype))

    return te.compute((x.shape[0], -(-total // block), x.shape[2], block), at, name="pad_channels")


def _under(x: te.Tensor, index: tuple[Any, ...]) -> list[Any]:
    """The element of x that broadcasts to `index`."""
    tail = index[len(index) - len(x.shape) :]
    return [0 if int(size) == 1 else one for size, one in zip(x.shape, tail, strict=True)]
