"""Scheduled kernels as source text, and how each of them is launched.

TVM's lowering parts each function into what runs on the device and what the host does around it. The host part is read
off as a list of launches, with the scratch memory that passes between two kernels of one function; no host code of
TVM's is generated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.s_tir import dlight
from tvm.s_tir import transform as high
from tvm.target import Target

from ....errors import TargetError
from ..relax.exact import legalizations, spelled_out, without_nan
from .bits import as_bits
from .device import Gpu
from .halves import ROUND, ROUND_SOURCE, in_single
from .lanes import wide_where_right
from .language import spelled
from .schedule import Contraction, Flat, Pooling, ShortRows

_LAUNCH = "tirx.call_ffi_kernel"
_KERNEL = 2
"""TVM's number for a function that is launched on a device (`kDeviceKernelLaunch`)."""


DEEPEST = 6
"""Operators in one kernel at most. A clamp is spelled with its operand four times: six in a row, as operators between
codes that are computed with floats have them, took the compiler for ever."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel: `arguments` count those of its function, then its scratch buffers; `groups` of `threads` each."""

    kernel: str
    arguments: tuple[int, ...]
    groups: tuple[int, int, int]
    threads: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class KernelLaunches:
    """One call of the plan: its launches in order, and the bytes of each scratch buffer."""

    launches: tuple[Launch, ...]
    scratch: tuple[int, ...]


def schedule(mod: tvm.IRModule, gpu: Gpu, *, fused: bool = True) -> tvm.IRModule:
    """Operators become kernels, neighbours are `fused`, and every kernel is cut for the GPU."""

    def as_it_is(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        return call

    steps: list[Any] = [
        # A reshape moves nothing here: see `plan`.
        relax.transform.LegalizeOps({**legalizations(), "relax.reshape": as_it_is}),
        partial(spelled_out, once=False),
        relax.transform.AnnotateTIROpPattern(),
        *((relax.transform.FuseOps(), relax.transform.FuseTIR()) if fused else ()),
        relax.transform.DeadCodeElimination(),
        dlight.ApplyDefaultSchedule(
            Contraction(gpu),
            Flat(gpu),
            Pooling(gpu),
            ShortRows(gpu),
            dlight.gpu.GeneralReduction(),
            dlight.gpu.Fallback(),
        ),
        without_nan,
    ]
    with Target(gpu.target()), tvm.transform.PassContext(config={"relax.FuseOps.max_depth": DEEPEST}):
        for step in steps:
            mod = step(mod)
    return mod


def lower(
    kernels: Mapping[str, tirx.PrimFunc], gpu: Gpu, half: bool = False
) -> tuple[dict[str, tirx.PrimFunc], dict[str, KernelLaunches]]:
    """The device functions of scheduled kernels by name, and how each kernel is launched."""
    low = tirx.transform
    named = {name: function.with_attr("global_symbol", name) for name, function in kernels.items()}
    steps = [
        low.BindTarget(Target(gpu.target(), host="llvm")),
        high.CanonicalizeLoop(),
        high.LowerCrossThreadReduction(),
        high.LowerInitBlock(),
        high.PlanAndUpdateBufferAllocationLocation(),
        high.ConvertBlocksToOpaque(),
        high.LiftThreadBinding(),
        high.CompactBufferAllocation(),
        high.UnifyThreadBinding(),
        high.LowerMatchBuffer(),
        high.StmtSimplify(),
        high.LowerOpaqueBlock(),
        low.FlattenBuffer(),
        low.prim_func_pass(lambda function, mod, ctx: _from_the_start(function), opt_level=0),
        low.NarrowDataType(32),
        high.LoopPartition(),
        low.prim_func_pass(lambda function, mod, ctx: wide_where_right(function, half), opt_level=0),
        low.VectorizeLoop(True),
        low.StorageRewrite(),
        high.HoistIfThenElse(),
        low.UnrollLoop(),
        high.RenormalizeSplitPattern(),
        low.StmtSimplify(),
        low.RemoveNoOp(),
        high.RewriteUnsafeSelect(),
        low.VerifyMemory(),
        low.AnnotateEntryFunc(),
        high.ThreadSync("shared"),
        high.LowerThreadAllreduce(),
        high.MergeSharedMemoryAllocations(),
        low.SplitHostDevice(),
    ]
    mod = tvm.ir.transform.Sequential(steps)(tvm.IRModule(named))
    device = {var: f for var, f in mod.functions.items() if int(f.attrs.get("calling_conv", 0)) == _KERNEL}
    functions = {name: _function(mod[name]) for name in named}
    opencl = gpu.kind == "opencl"
    steps = [
        low.LowerWarpMemory(),
        low.StmtSimplify(),
        low.prim_func_pass(lambda function, mod, ctx: as_bits(function), opt_level=0),
        low.prim_func_pass(lambda function, mod, ctx: spelled(function, gpu.kind), opt_level=0),
        low.LowerIntrin(),
        low.prim_func_pass(lambda function, mod, ctx: spelled(function, gpu.kind), opt_level=0),
        *([low.prim_func_pass(lambda function, mod, ctx: in_single(function), opt_level=0)] if opencl else []),
    ]
    last = tvm.ir.transform.Sequential(steps)(tvm.IRModule(device))
    return {var.name_hint: function for var, function in last.functions.items()}, functions


def _from_the_start(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """A flat function for tensors that begin where their buffers do, as all in a plan."""
    starts = [getattr(param.ty, "elem_offset", None) for param in function.params]
    offsets = [start for start in starts if isinstance(start, tirx.Var)]

    def begin(var: Any) -> Any:
        return tirx.const(0, str(var.ty.dtype)) if any(var.same_as(one) for one in offsets) else var

    if not offsets:
        return function
    return function.with_body(tvm_ffi.structural.structural_map(function.body, [(tirx.Var, begin)]))


def source(name: str, function: tirx.PrimFunc, gpu: Gpu) -> str:
    """The text of one device function in the GPU's language, without what TVM repeats before each."""
    mod = tvm.IRModule({name: function})
    text = str(tvm.get_global_func(f"target.build.{gpu.kind}")(mod, Target(gpu.target())).inspect_source())
    # The declarations of halves as numbers to compute with: none are, so that no device need know them.
    text = re.sub(r"#ifdef cl_khr_fp16\n.*?#endif\n", "", text, flags=re.DOTALL)
    lines = [line.rstrip() for line in text.splitlines()]
    kept = [
        line for line in lines if not line.startswith("//") and not (line.startswith("__kernel") and line[-1] == ";")
    ]
    return "\n".join(kept).strip() + "\n"


def together(sources: Mapping[str, str]) -> str:
    """The text of all kernels, and of what they call."""
    text = "\n".join(sources[name] for name in sorted(sources))
    return f"{ROUND_SOURCE}\n{text}" if f"{ROUND}(" in text else text


def _function(host: tirx.PrimFunc) -> KernelLaunches:
    """What the host part of a function launches."""
    places: dict[Any, int] = {param: index for index, param in enumerate(host.params)}
    scratch: list[int] = []
    launches: list[Launch] = []
    statements = [host.body]
    while statements:
        one = statements.pop(0)
        kind = type(one).__name__
        if kind == "SeqStmt":
            statements[:0] = list(one.seq)
        elif kind == "AttrStmt" and one.attr_key == "pragma_scope":
            statements.insert(0, one.body)
        elif kind == "AllocBuffer":
            elements = math.prod(int(size) for size in one.buffer.shape)
            places[one.buffer] = len(host.params) + len(scratch)
            scratch.append(elements * np.dtype(str(one.buffer.dtype)).itemsize)
        elif kind == "DeclBuffer":
            places[one.buffer] = places[one.data.args[0]]
        elif kind == "Evaluate" and type(one.value.op).__name__ == "Op" and one.value.op.name == _LAUNCH:
            launches.append(_launch(one.value, places))
        else:
            raise TargetError(f"a kernel needs a '{kind}' on the host, which the launch plan has no word for")
    return KernelLaunches(tuple(launches), tuple(scratch))


def _launch(call: Any, places: Mapping[Any, int]) -> Launch:
    axes = [str(axis) for axis in call.attrs.launch_params]
    name, *rest = call.args
    tensors, sizes = rest[: len(rest) - len(axes)], rest[len(rest) - len(axes) :]
    sizes_of = {axis: int(size) for axis, size in zip(axes, sizes, strict=True)}

    def three(word: str) -> tuple[int, int, int]:
        return sizes_of.pop(f"{word}.x", 1), sizes_of.pop(f"{word}.y", 1), sizes_of.pop(f"{word}.z", 1)

    launch = Launch(
        str(name.value), tuple(places[one.args[0]] for one in tensors), three("blockIdx"), three("threadIdx")
    )
    if sizes_of:
        raise TargetError(f"a kernel asks for '{next(iter(sizes_of))}', which the launch plan has no word for")
    return launch
