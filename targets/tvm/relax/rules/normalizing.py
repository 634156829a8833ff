"""Normalization with its statistics as results, and Dropout, which passes on what it reads."""

from __future__ import annotations

import numpy as np
from tvm import relax

from ..expressions import constant
from .call import LoweringCall


def lower_layer_normalization(call: LoweringCall) -> list[relax.Expr] | None:
    """y = (x - mean) / sqrt(variance + epsilon) * scale + bias; mean and the inverse of the root are results, too."""
    if len(call.node.outputs) < 2 or not any(value.uses for value in call.node.outputs[1:]):
        return None
    rank = len(call.value(0).shape or ())
    axes = list(range(call.node.get_int("axis", -1) % rank, rank))
    kind = "float64" if call.dtype() == "float64" else "float32"
    x = call.cast(call.expr(0), kind)
    mean = call.emit(relax.op.mean(x, axes, keepdims=True))
    centred = call.emit(relax.op.subtract(x, mean))
    variance = call.emit(relax.op.mean(call.emit(relax.op.multiply(centred, centred)), axes, keepdims=True))
    shifted = call.emit(relax.op.add(variance, relax.const(call.node.get_float("epsilon", 1e-5), kind)))
    inverse = call.emit(relax.op.divide(relax.const(1.0, kind), call.emit(relax.op.sqrt(shifted))))
    y = call.cast(call.emit(relax.op.multiply(centred, inverse)), call.dtype())
    y = call.emit(relax.op.multiply(y, call.expr(1)))
    if call.has(2):
        y = call.emit(relax.op.add(y, call.expr(2)))
    results = [y, mean, inverse][: len(call.node.outputs)]
    return [
        call.cast(one, call.dtype(index)) if call.node.outputs[index].dtype is not None else one
        for index, one in enumerate(results)
    ]


def lower_batch_normalization(call: LoweringCall) -> list[relax.Expr] | None:
    """In training mode: by the mean and variance of the batch, and running ones moved on by `momentum`."""
    if not call.node.get_int("training_mode"):
        return None
    x = call.expr(0)
    rank = len(call.value(0).shape or ())
    axes = [axis for axis in range(rank) if axis != 1]
    channels = [call.sizes(1)[0] if axis == 1 else 1 for axis in range(rank)]
    mean = call.emit(relax.op.mean(x, axes, keepdims=True))
    centred = call.emit(relax.op.subtract(x, mean))
    variance = call.emit(relax.op.mean(call.emit(relax.op.multiply(centred, centred)), axes, keepdims=True))
    kind = str(x.ty.dtype.dtype)
    shifted = call.emit(relax.op.add(variance, relax.const(call.node.get_float("epsilon", 1e-5), kind)))
    y = call.emit(relax.op.divide(centred, call.emit(relax.op.sqrt(shifted))))
    y = call.emit(relax.op.multiply(y, call.reshape(call.cast(call.expr(1), kind), channels)))
    y = call.emit(relax.op.add(y, call.reshape(call.cast(call.expr(2), kind), channels)))
    momentum = call.node.get_float("momentum", 0.9)
    results = [y]
    for index, batch in ((3, mean), (4, variance)):
        old = call.expr(index)
        dtype = str(old.ty.dtype.dtype)
        now = call.cast(call.reshape(batch, (channels[1],)), dtype)
        kept = call.emit(relax.op.multiply(old, relax.const(momentum, dtype)))
        results.append(
            call.emit(relax.op.add(kept, call.emit(relax.op.multiply(now, relax.const(1 - momentum, dtype)))))
        )
    return results[: len(call.node.outputs)]


def lower_dropout(call: LoweringCall) -> list[relax.Expr]:
    x = call.expr(0)
    if len(call.node.outputs) == 1:
        return [x]
    return [x, constant(np.ones(call.sizes(0), np.bool_))]


def lower_lp_normalization(call: LoweringCall) -> relax.Expr:
    """x / |x| along an axis, and 0 where that norm is."""
    x, kind = call.expr(0), call.dtype()
    axis = call.node.get_int("axis", -1)
    if call.node.get_int("p", 2) == 1:
        norm = call.emit(relax.op.sum(call.emit(relax.op.abs(x)), [axis], keepdims=True))
    else:
        squares = call.emit(relax.op.sum(call.emit(relax.op.multiply(x, x)), [axis], keepdims=True))
        norm = call.emit(relax.op.sqrt(squares))
    zero, one = relax.const(0, kind), relax.const(1, kind)
    nothing = call.emit(relax.op.equal(norm, zero))
    divisor = call.emit(relax.op.where(nothing, one, norm))
    return call.emit(relax.op.where(nothing, zero, call.emit(relax.op.divide(x, divisor))))
