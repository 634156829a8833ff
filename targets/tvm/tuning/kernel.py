"""One workload as a kernel of its own, scheduled: what a model's kernel computes, with the usual work behind it.

Behind sums of floats that is a ReLU, behind sums of codes the scale, the bias and the rounding to codes. The weights
are whatever is in memory: times do not depend on them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import s_tir, te, tirx

from ..compute import codes, dense, winograd
from ..compute import conv as convs
from ..compute.matrix import conv_matrix
from ..compute.matrix import pack as pack_matrix
from ..compute.workload import Workload
from ..cpu.machine import Machine
from ..cpu.tiling import Tile
from ..schedule.matrix import Matrix
from ..schedule.tiled import Tiled
from ..schedule.winograd import Winograd


@dataclass(frozen=True, slots=True)
class TunedKernel:
    """The module's function `main`, and shape and type of each argument, the result last."""

    mod: tvm.IRModule
    arguments: tuple[tuple[tuple[int, ...], str], ...]


def alone(work: Workload, tile: Tile, machine: Machine) -> TunedKernel | None:
    """The kernel of a workload with every size known, the number of samples taken as 1 where it is not; none where it
    cannot be cut like this."""
    x = te.placeholder(tuple(size or 1 for size in work.data), work.dtype, name="x")
    w = te.placeholder(_packed(work, tile, machine), _weights_dtype(work, machine), name="w")
    sums = _sums(work, tile, machine, x, w)
    operands, out = _behind(work, machine, sums)
    function = te.create_prim_func([x, w, *operands, out])
    try:
        rule = Winograd if work.kernel in winograd.SCHEMES else Matrix if work.kernel == "conv_matrix" else Tiled
        sch = rule(machine).schedule(s_tir.Schedule(function))
    except s_tir.ScheduleError:
        return None
    if sch is None:
        return None
    tensors = (x, w, *operands, out)
    return TunedKernel(sch.mod, tuple((tuple(int(d) for d in one.shape), str(one.dtype)) for one in tensors))


def inputs(kernel: TunedKernel) -> list[np.ndarray[Any, Any]]:
    """Numbers for the arguments of a kernel, of a size that sums stay far from what floats cannot hold."""
    random = np.random.default_rng(0)
    arrays = []
    for shape, dtype in kernel.arguments:
        kind = np.dtype(dtype)
        numbers = random.integers(0, 16, size=shape) if kind.kind in "iu" else random.uniform(-1, 1, size=shape)
        arrays.append(numbers.astype(kind))
    return arrays


def _packed(work: Workload, tile: Tile, machine: Machine) -> tuple[int, ...]:
    """The shape of the weights as the kernel reads them."""
    sizes = tuple(size or 1 for size in work.weights)
    if work.kernel == "matmul":
        return sizes
    nothing = np.broadcast_to(np.zeros((), np.int8), sizes)
    terms = machine.dot.terms if machine.dot is not None else 1
    inner = work.data[-1] or 1
    if work.kernel == "conv":
        return convs.pack(nothing, tile, math.gcd(sizes[1], inner), machine.block).shape
    if work.kernel in winograd.SCHEMES:
        return winograd.pack(nothing, tile, machine.block, winograd.SCHEMES[work.kernel]).shape
    if work.kernel == "depthwise":
        return convs.pack_depthwise(nothing, machine.block).shape
    if work.kernel == "dense":
        return dense.pack(nothing, tile, machine.block).shape
    if work.kernel == "conv_matrix" and machine.matrix is not None:
        return pack_matrix(nothing, tile, inner, machine.block, machine.matrix.terms).shape
    if work.kernel == "conv_codes":
        return codes.pack(nothing, tile, inner, machine.block, terms).shape
    return codes.pack_dense(nothing, tile, machine.block, terms).shape


def _weights_dtype(work: Workload, machine: Machine) -> str:
    if work.kernel.endswith(("_codes", "_matrix")):
        return "int8"
    if work.dtype.startswith("float"):
        return work.dtype
    return "int8" if machine.dot is not None and machine.dot.grouped else "float32"


def _sums(work: Workload, tile: Tile, machine: Machine, x: te.Tensor, w: te.Tensor) -> te.Tensor:
    if work.kernel == "matmul":
        return dense.matmul(x, w, tile, machine.block)
    if work.window is None:
        columns = work.weights[1] or 1
        return (dense.dense if work.kernel == "dense" else codes.dense_codes)(x, w, columns, tile)
    if work.kernel == "depthwise":
        return convs.depthwise(x, w, work.window, tile, None if work.dtype.startswith("float") else 0)
    channels = work.weights[0] or 1
    if work.kernel == "conv":
        return convs.conv(x, w, channels, work.window, tile, work.groups)
    if work.kernel in winograd.SCHEMES:
        return winograd.winograd(x, w, channels, work.window, tile, winograd.SCHEMES[work.kernel])
    if work.kernel == "conv_matrix" and machine.matrix is not None:
        return conv_matrix(x, w, channels, work.window, tile, work.groups, 0, machine.matrix.rows)
    return codes.conv_codes(x, w, channels, work.window, tile, work.groups, 0)


def _behind(work: Workload, machine: Machine, sums: te.Tensor) -> tuple[tuple[te.Tensor, ...], te.Tensor]:
    """What else the kernel is given, and its result."""
    if work.dtype.startswith("float"):
        return (), te.compute(sums.shape, lambda *i: tirx.max(sums(*i), tirx.const(0, sums.dtype)), name="relu")
    blocked = work.window is not None
    shape = (1, sums.shape[1], 1, sums.shape[3]) if blocked else (sums.shape[-1],)
    bias = te.placeholder(shape, sums.dtype, name="bias")
    scale = te.placeholder(shape, "float32", name="scale")
    dtype = machine.dot.codes if machine.dot is not None else "int8"
    bounds = np.iinfo("uint8" if dtype == "uint8" else "int8")
    number = codes.scaled(sums, bias, scale)
    return (bias, scale), codes.encode(number, 1.0, 0, int(bounds.min), int(bounds.max), dtype)
