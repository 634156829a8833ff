"""Lowering what works on integer codes: layers, QuantizeLinear and DequantizeLinear, and what moves codes about.

A layer's sums become floats at once, and QuantizeLinear is elementwise work behind them: TVM fuses both into the
layer's kernel, with whatever stands between (activations, the addition of a residual). So codes are all that is written
to memory.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from tvm import relax

from ....ir.node import Node, Value
from ....passes.quant.numbers.params import QuantParams
from ..compute import codes
from ..compute import conv as convs
from ..compute.matrix import conv_matrix
from ..compute.matrix import pack as pack_matrix
from ..compute.window import Window
from ..legal.integer_layers import CodedLayer, coded_layer, is_depthwise, params_of
from .expressions import FUSABLE, INJECTIVE, OPAQUE, Blocked, Product
from .importer import Importer
from .integer_operators import clamped, lower_operator, offset
from .windows import window

Lowered: TypeAlias = "relax.Expr | Blocked | None"

_GAIN = 2
"""How many times fewer codes a convolution must read for the columns of its kernel to be laid side by side."""
_WHOLE = 1 << 23
"""Whole numbers up to twice this are exact in floats."""
_ELEMENTWISE = 0
"""TVM's number for what is fused to anything; the sums have the size of what is made of them."""


def lower_quantize(importer: Importer, node: Node) -> Lowered:
    x, params = node.inputs[0], params_of(node)
    dot = importer.machine.dot
    if x is None or params is None or dot is None or x.constant is not None:
        return None
    shift = importer.shift(params.dtype)
    low, high = params.low - shift, params.high - shift
    options = {"zero": params.zero_point - shift, "low": low, "high": high}
    source = clamped(x, params)
    product = importer.products.get(source)
    result: Lowered
    if product is not None:
        image = importer.blocked(source)
        number = _requantized(importer, product, params)
        bounded = dot.codes == "int8" and product.most / params.unit < codes.BOUND
        result = importer.te(
            codes.encode, number, pattern=_ELEMENTWISE, scale=1.0, bounded=bounded, dtype=dot.codes, **options
        )
        importer.numbers[node.output] = lambda: importer.te(
            codes.encode,
            number,
            pattern=_ELEMENTWISE,
            scale=1.0,
            dtype="float32",
            **{key: value + offset(importer, params.dtype) for key, value in options.items()},
        )
    elif (result := lower_operator(importer, source, params)) is not None:
        image = None
    else:
        image = importer.blocked(x)
        expr = image.expr if image is not None else importer.plain(x)
        if str(expr.ty.dtype.dtype) != "float32":
            return None
        result = importer.te(codes.encode, expr, pattern=_ELEMENTWISE, scale=params.unit, dtype=dot.codes, **options)
    importer.quantized.add(node.output)
    return result if image is None else Blocked(result, image.channels, image.height, image.width, image.block)


def lower_dequantize(importer: Importer, node: Node) -> Lowered:
    x, params = node.inputs[0], params_of(node)
    if x is None or params is None or x not in importer.quantized:
        return None
    zero = params.zero_point - importer.shift(params.dtype)
    image = importer.blocked(x)
    expr = image.expr if image is not None else importer.flat(x)
    floats = importer.te(codes.decode, expr, pattern=_ELEMENTWISE, scale=params.unit, zero=zero)
    return floats if image is None else Blocked(floats, image.channels, image.height, image.width, image.block)


def lower_coded(importer: Importer, node: Node) -> Lowered:
    """A Conv, Gemm or MatMul on codes; none where it is not one."""
    layer = coded_layer(node) if importer.machine.dot is not None else None
    if layer is None:
        return None
    if layer.codes not in importer.quantized:
        _hold(importer, layer.codes)
    if node.op != "Conv":
        return _dense(importer, node, layer)
    return _depthwise(importer, node, layer) if is_depthwise(node, layer.weights) else _conv(importer, node, layer)


def _conv(importer: Importer, node: Node, layer: CodedLayer) -> Lowered:
    machine, dot = importer.machine, importer.machine.dot
    weights = layer.weights
    place = window(node, layer.codes, weights.shape[2:])
    if place is None or dot is None:
        return None
    matrix = machine.matrix if place.output != (1, 1) else None
    terms = (matrix or dot).terms
    groups, block, out = node.get_int("group", 1), machine.block, weights.shape[0]
    height, width = place.output
    shift = importer.shift(layer.params.dtype)
    # The zero of the codes as they are held.
    bias = layer.bias + shift * weights.sum((1, 2, 3), dtype=np.int32)
    inner = -(-weights.shape[1] // terms) * terms
    beside = -(-weights.shape[1] * weights.shape[3] // terms) * terms
    fewer = beside * _GAIN <= inner * weights.shape[3] and machine.block % beside == 0
    if fewer and groups == 1 and importer.blocked(layer.codes) is None:
        image = _unfolded(importer, layer.codes, place, beside, layer.params.zero_point - shift)
        place = place.rows
        weights = np.ascontiguousarray(weights.transpose(0, 3, 1, 2).reshape(out, -1, weights.shape[2], 1))
    else:
        # An image of few channels, as the first layer's is, is not filled up to a whole block.
        image = _image(importer, layer.codes, min(machine.block, inner))
    tile = importer.tile("conv_codes" if matrix is None else "conv_matrix", image.expr, weights.shape, place, groups)
    sums = importer.te(
        codes.conv_codes if matrix is None else conv_matrix,
        image.expr,
        _const(
            codes.pack(weights, tile, image.block, block, dot.terms)
            if matrix is None
            else pack_matrix(weights, tile, image.block, block, matrix.terms)
        ),
        pattern=FUSABLE,
        channels=out,
        window=place,
        tile=tile,
        groups=groups,
        zero=layer.params.zero_point - shift,
        **({} if matrix is None else {"rows": matrix.rows}),
    )
    return _product(importer, node, Blocked(sums, out, height, width, block), bias, layer)


def _depthwise(importer: Importer, node: Node, layer: CodedLayer) -> Lowered:
    """One channel at a time there are no neighbours to sum in one instruction: numbers are made wider first.

    Floats hold these few whole numbers exactly too, as long as the bias is no larger than they do, and x86 multiplies
    them faster.
    """
    machine, weights = importer.machine, layer.weights
    place, image = window(node, layer.codes, weights.shape[2:]), _image(importer, layer.codes, machine.block)
    if place is None:
        return None
    out = weights.shape[0]
    beside = layer.bias + layer.params.zero_point * weights.sum((1, 2, 3), dtype=np.int32)
    exact = np.abs(beside.astype(np.int64)).max(initial=0) < _WHOLE
    dtype = np.float32 if exact and not (machine.dot is not None and machine.dot.grouped) else np.int8
    height, width = place.output
    tile = importer.tile("depthwise", image.expr, weights.shape, place, out)
    sums = importer.te(
        convs.depthwise,
        image.expr,
        _const(convs.pack_depthwise(weights.astype(dtype), machine.block)),
        pattern=FUSABLE,
        window=place,
        tile=tile,
        zero=layer.params.zero_point - importer.shift(layer.params.dtype),
    )
    return _product(importer, node, Blocked(sums, out, height, width, machine.block), beside, layer)


def _product(importer: Importer, node: Node, sums: Blocked, bias: np.ndarray, layer: CodedLayer) -> Blocked:
    """Whole sums as the floats that they stand for."""
    block = sums.block
    full = -(-sums.channels // block)

    def laid(array: np.ndarray) -> np.ndarray:
        return np.pad(array, (0, full * block - array.size)).reshape(1, full, 1, block)

    whole = str(sums.expr.ty.dtype.dtype) == "int32"
    rest = None if layer.rest is None else laid(layer.rest)
    product = Product(
        sums.expr, laid(bias.astype(np.int32 if whole else np.float32)), laid(layer.scales), rest, layer.most
    )
    importer.products[node.output] = product
    return Blocked(_scaled(importer, product), sums.channels, sums.height, sums.width, block)


def _scaled(importer: Importer, product: Product) -> relax.Expr:
    """A product as floats."""
    parts = [product.bias, product.scale, *(() if product.rest is None else (product.rest,))]
    return importer.te(codes.scaled, product.sums, *map(_const, parts), pattern=_ELEMENTWISE)


def _requantized(importer: Importer, product: Product, params: QuantParams) -> relax.Expr:
    """A product in units of the scale of `params`: the sums times one number, rounded as integer kernels take it."""
    scale = np.float32(params.unit)
    parts = [product.bias, product.scale / scale, *(() if product.rest is None else (product.rest / scale,))]
    return importer.te(codes.scaled, product.sums, *map(_const, parts), pattern=_ELEMENTWISE)


def _dense(importer: Importer, node: Node, layer: CodedLayer) -> Lowered:
    machine, dot, weights = importer.machine, importer.machine.dot, layer.weights
    if dot is None:
        return None
    x = importer.flat(layer.codes)
    depth, columns = weights.shape
    if depth % dot.terms:
        return None
    tile = importer.tile("dense_codes", x, weights.shape)
    packed = _const(codes.pack_dense(weights, tile, machine.block, dot.terms))
    sums = importer.te(codes.dense_codes, x, packed, pattern=FUSABLE, columns=columns, tile=tile)
    bias = layer.bias + importer.shift(layer.params.dtype) * weights.sum(0, dtype=np.int32)
    product = Product(sums, bias, layer.scales, layer.rest, layer.most)
    importer.products[node.output] = product
    return _scaled(importer, product)


def _hold(importer: Importer, value: Value) -> None:
    """Codes that the user gives, or that another operator made."""
    dot = importer.machine.dot
    assert dot is not None
    assert value.dtype is not None
    result = importer.te(
        codes.recode, importer.flat(value), pattern=_ELEMENTWISE, dtype=dot.codes, shift=-importer.shift(value.dtype)
    )
    importer.hold(value, result)


def _image(importer: Importer, value: Value, block: int) -> Blocked:
    """Codes as an image in blocks, of this many channels where they stand in none yet."""
    image = importer.blocked(value)
    if image is not None:
        return image
    assert value.shape is not None
    c, h, w = (int(size or 0) for size in value.shape[1:])
    packed = importer.te(codes.pack_codes, importer.flat(value), pattern=INJECTIVE, block=block)
    result = Blocked(packed, c, h, w, block)
    if block == importer.machine.block:
        importer.keep(value, result)
    return result


def _unfolded(importer: Importer, value: Value, place: Window, block: int, zero: int) -> Blocked:
    """Codes as an image whose pixels are the columns that each output looks at: few channels fill an instruction."""
    columns = importer.te(codes.unfold, importer.flat(value), pattern=OPAQUE, window=place, block=block, zero=zero)
    return Blocked(columns, block, place.image[0], place.output[1], block)


def lower_pad(importer: Importer, node: Node) -> Lowered:
    """Channels of one code before and behind those of an image in blocks."""
    x, pads, fill = node.inputs[0], node.input(1), node.input(2)
    image = importer.blocked(x) if x is not None and x in importer.quantized else None
    if image is None or pads is None or pads.constant is None or node.get_string("mode", "constant") != "constant":
        return None
    if node.input(3) is not None or x is None or x.dtype is None or (fill is not None and fill.constant is None):
        return None
    n, c, h, w, n2, c2, h2, w2 = (int(size) for size in pads.constant.numpy())
    if (n, h, w, n2, h2, w2) != (0, 0, 0, 0, 0, 0) or c < 0 or c2 < 0:
        return None
    code = 0 if fill is None or fill.constant is None else int(fill.constant.numpy().reshape(()))
    total = c + image.channels + c2
    padded = importer.te(
        codes.pad_channels,
        image.expr,
        pattern=INJECTIVE,
        channels=image.channels,
        before=c,
        total=total,
        fill=code - importer.shift(x.dtype),
    )
    importer.quantized.add(node.output)
    return Blocked(padded, total, image.height, image.width, image.block)


def lower_crop(
    importer: Importer, image: Blocked, first: list[int], last: list[int], axes: list[int], steps: list[int]
) -> Lowered:
    """A slice of rows and columns of an image in blocks; none where it cuts something else."""
    if not set(axes) <= {2, 3}:
        return None
    start, step, size = [0, 0], [1, 1], [image.height, image.width]
    for axis, a, b, t in zip(axes, first, last, steps, strict=True):
        start[axis - 2], step[axis - 2], size[axis - 2] = a, t, len(range(a, b, t))
    cropped = importer.te(
        codes.crop,
        image.expr,
        pattern=INJECTIVE,
        width=image.width,
        first=(start[0], start[1]),
        step=(step[0], step[1]),
        size=(size[0], size[1]),
    )
    return Blocked(cropped, image.channels, size[0], size[1], image.block)


def _const(array: np.ndarray) -> relax.Expr:
    return relax.const(np.asarray(array, np.float32 if array.dtype.kind == "f" else array.dtype, order="C"))
