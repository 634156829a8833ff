"""Operators between codes, computed as ONNX Runtime's integer kernels do: a whole QuantizeLinear, with what it rounds.

QuantizeLinear and DequantizeLinear leave open in which order floats are multiplied and added, and a number that lies
halfway between two codes falls to one or the other by that. Two float evaluations of one deep model answer quite
differently; the integer kernels give the one answer that can be repeated. They are those for x86 with FMA, whose codes
are unsigned: kernels for ARM shift integers in QLinearAdd and means, and signed codes have other fixed parts.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from tvm import relax

from ....ir.node import Node, Value
from ....ir.ops import clamp_bounds
from ....ir.types import DType
from ....passes.quant.numbers.params import QuantParams
from ..compute import layout, operators
from ..legal.integer_layers import params_of
from .expressions import BROADCAST, ELEMENTWISE, OPAQUE, Blocked
from .importer import Importer

Lowered: TypeAlias = "relax.Expr | Blocked | None"

"""TVM's numbers for how freely a kernel may be fused."""


def lower_operator(importer: Importer, value: Value, params: QuantParams) -> Lowered:
    """`value`, quantized by `params`, from quantized operands; none where its operator has no rule."""
    maker = value.producer
    rule = _RULES.get(maker.op) if maker is not None and maker.domain == "" else None
    return rule(importer, maker, params) if rule is not None and maker is not None else None


def clamped(value: Value, params: QuantParams) -> Value:
    """What `params` quantize, without activations that only clip to what quantized values reach anyway."""
    while (maker := value.producer) is not None and maker.domain == "" and maker.inputs and maker.inputs[0] is not None:
        ends = clamp_bounds(maker)
        if ends is None:
            break
        low, high = np.rint(np.asarray(ends, np.float32) / np.float32(params.unit)) + params.zero_point
        if low > params.low or high < params.high:
            break
        value = maker.inputs[0]
    return value


def offset(importer: Importer, dtype: DType) -> int:
    """What the unsigned form of codes has more than as they are held."""
    return importer.shift(dtype) + (128 if dtype is DType.INT8 else 0)


def _source(importer: Importer, value: Value | None) -> tuple[Value, QuantParams] | None:
    """The quantized values that `value` is dequantized from, and their parameters; none where they are not kept."""
    decode = None if value is None else value.producer
    if decode is None or decode.op != "DequantizeLinear" or decode.domain or decode.inputs[0] is None:
        return None
    codes, params = decode.inputs[0], params_of(decode)
    return None if params is None or codes not in importer.quantized else (codes, params)


def _sources(importer: Importer, node: Node) -> list[tuple[Value, QuantParams]] | None:
    sources = [_source(importer, value) for value in node.inputs]
    return None if None in sources else [one for one in sources if one is not None]


def _output(importer: Importer, params: QuantParams) -> dict[str, object]:
    assert importer.machine.dot is not None
    return {"shift": -offset(importer, params.dtype), "dtype": importer.machine.dot.codes}


def _clamps(importer: Importer, params: QuantParams) -> dict[str, object]:
    """What rounds a number without the zero."""
    assert importer.machine.dot is not None
    shift = params.zero_point - importer.shift(params.dtype)
    low, high = params.low - params.zero_point, params.high - params.zero_point
    return {"low": low, "high": high, "shift": shift, "dtype": importer.machine.dot.codes}


def _add(importer: Importer, node: Node, params: QuantParams) -> Lowered:
    sources = _sources(importer, node)
    if sources is None or sources[0][0].shape is None or sources[0][0].shape != sources[1][0].shape:
        return None
    one = np.float32
    y = one(params.unit)
    zeros = [g.zero_point + (128 if g.dtype is DType.INT8 else 0) for g in (*(g for _, g in sources), params)]
    rx, ry = (one(one(g.unit) / y) for _, g in sources)
    # The kernel's compiler made a multiply-add of the first product and the sum, too.
    inner = one(np.float64(rx) * zeros[0] + np.float64(one(ry * one(zeros[1]))))
    options = {
        "ratios": (float(rx), float(ry)),
        "fixed": float(one(zeros[2]) - inner),
        "offsets": tuple(offset(importer, g.dtype) for _, g in sources),
        **_output(importer, params),
    }
    parts = _beside(importer, [codes for codes, _ in sources])
    if parts is None:
        return None
    operands, place = parts
    # A number lies as its codes do: in blocks, or plain.
    alike = [codes for codes, _ in sources if (importer.blocked(codes) is None) == (place is None)]
    ready = [_number(importer, codes, node) if codes in alike else None for codes, _ in sources]
    # At most one of two layers is fused with what joins them; what the other makes is written to memory, as codes.
    if [number is None for number in ready].count(False) == 1:
        operands = [was if number is None else number for was, number in zip(operands, ready, strict=True)]
    return _placed(importer.te(operators.add_codes, *operands, pattern=ELEMENTWISE, **options), place)


def _number(importer: Importer, codes: Value, reader: Node) -> relax.Expr | None:
    """The unsigned codes that a layer makes, as floats, where nothing but `reader` wants them."""
    number = importer.numbers.get(codes)
    alone = len(codes.uses) == 1 and all(user.users == (reader,) for user in _outputs(codes))
    if number is None or not alone or any(len(user.uses) != 1 for user in _outputs(codes)):
        return None
    return number()


def _outputs(codes: Value) -> list[Value]:
    return [user.output for user in codes.users]


def _multiply(importer: Importer, node: Node, params: QuantParams) -> Lowered:
    sources = _sources(importer, node)
    if sources is None:
        return None
    full, other = (codes.shape for codes, _ in sources)
    if full is None or other is None or len(full) != len(other):
        return None
    if full != other:
        # One number a channel: the other way round the product is the same.
        if full[2:] == (1, 1):
            sources, full, other = sources[::-1], other, full
        if len(full) != 4 or other != (*full[:2], 1, 1):
            return None
        if any(importer.blocked(codes) is None for codes, _ in sources):
            return None
    parts = _beside(importer, [codes for codes, _ in sources])
    if parts is None:
        return None
    operands, place = parts
    one = np.float32
    ratio = one(one(one(sources[0][1].unit) * one(sources[1][1].unit)) / one(params.unit))
    moved = importer.te(
        operators.multiply_codes,
        *operands,
        pattern=ELEMENTWISE if full == other else BROADCAST,
        offsets=tuple(importer.shift(g.dtype) - g.zero_point for _, g in sources),
        ratio=float(ratio),
        zero=params.zero_point + (128 if params.dtype is DType.INT8 else 0),
        single=full != other,
        **_output(importer, params),
    )
    return _placed(moved, place)


def _beside(importer: Importer, codes: list[Value]) -> tuple[list[relax.Expr], Blocked | None] | None:
    """Codes in one layout: in blocks where all are, else plain."""
    images = [importer.blocked(value) for value in codes]
    blocks = [one for one in images if one is not None]
    if len(blocks) == len(codes) and len({(one.channels, one.block) for one in blocks}) == 1:
        return [one.expr for one in blocks], blocks[0]
    return [importer.flat(value) for value in codes], None


def _placed(expr: relax.Expr, place: Blocked | None) -> relax.Expr | Blocked:
    return expr if place is None else Blocked(expr, place.channels, place.height, place.width, place.block)


def _mean(importer: Importer, node: Node, params: QuantParams) -> Lowered:
    """GlobalAveragePool of an image in blocks."""
    source = _source(importer, node.inputs[0])
    image = None if source is None else importer.packed(source[0])
    if source is None or image is None:
        return None
    one, pixels = np.float32, image.height * image.width
    scale = one(one(source[1].unit) / one(one(params.unit) * one(pixels)))
    mean = importer.te(
        operators.mean_codes,
        image.expr,
        pattern=OPAQUE,
        zero=source[1].zero_point - importer.shift(source[1].dtype),
        scale=float(scale),
        **_clamps(importer, params),
    )
    return Blocked(mean, image.channels, 1, 1, image.block)


def _concat(importer: Importer, node: Node, params: QuantParams) -> Lowered:
    sources = _sources(importer, node)
    rank = None if node.output.shape is None else len(node.output.shape)
    if sources is None or rank is None:
        return None
    axis = node.get_int("axis") % rank
    images = [importer.blocked(codes) for codes, _ in sources]
    blocks = [one for one in images if one is not None and one.whole]
    whole = axis == 1 and len(blocks) == len(images) and len({one.block for one in blocks}) == 1
    exprs = [one.expr for one in blocks] if whole else [importer.flat(codes) for codes, _ in sources]
    moved = [_moved(importer, expr, g, params) for expr, (_, g) in zip(exprs, sources, strict=True)]
    joined = importer.te(layout.concatenate, *moved, pattern=OPAQUE, axis=axis)
    if not whole:
        return joined
    first = blocks[0]
    return Blocked(joined, sum(block.channels for block in blocks), first.height, first.width, first.block)


def _moved(importer: Importer, expr: relax.Expr, source: QuantParams, params: QuantParams) -> relax.Expr:
    """Values quantized anew: x = (q - zero point) scale, divided by the other scale. There are 256 of them: where one
    product gives the same for all, it is taken instead of the division."""
    if source.same(params):
        return expr
    one = np.float32
    units = (np.arange(source.low, source.high + 1) - source.zero_point).astype(one)
    want = np.rint(units * one(source.unit) / one(params.unit))
    ratio = one(one(source.unit) / one(params.unit))
    tried = (ratio, np.nextafter(ratio, one(0)), np.nextafter(ratio, one(np.inf)))
    single = next((ratio for ratio in tried if np.array_equal(np.rint(units * ratio), want)), None)
    return importer.te(
        operators.move_codes,
        expr,
        pattern=ELEMENTWISE,
        zero=source.zero_point - importer.shift(source.dtype),
        scale=source.unit if single is None else float(single),
        divisor=params.unit if single is None else 1.0,
        **_clamps(importer, params),
    )


_RULES = {"Add": _add, "Concat": _concat, "GlobalAveragePool": _mean, "Mul": _multiply}
