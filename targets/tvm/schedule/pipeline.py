"""From a Relax module to scheduled kernels, and from those to object code."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import partial
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.s_tir import dlight
from tvm.target import Target

from ..cpu.beside import each
from ..cpu.machine import Machine
from ..relax.exact import legalizations, spelled_out, without_nan
from .matrix import Matrix
from .rest import Elementwise, RowsRule
from .tiled import Tiled
from .winograd import Winograd

_LOG = logging.getLogger("optc")
_PARTS = 4
"""Object files at most, and so processes: to compile one takes some hundredths of a second besides its kernels."""
_LEFT_OUT = ["tirx.RemoveNoOp", "s_tir.RenormalizeSplitPattern"]
"""Passes of TVM's that leave LLVM the same to do, in nearly a tenth of the time that a kernel takes."""
DEEPEST = 12
"""Operators in one kernel at most. One that reads its operand several times, as HardSwish does, multiplies what is
fused before it: six in a row took the compiler for ever."""


def lower(mod: tvm.IRModule, machine: Machine) -> tvm.IRModule:
    """Operators become kernels, and neighbours are fused. How a kernel is cut is left to `schedule`."""

    def as_it_is(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        return call

    steps: list[Any] = [
        # Polynomials that go into vectors, within a few units of the last place, where the C library has calls.
        relax.transform.FastMathTransform(),
        # A reshape moves nothing here: see `plan`.
        relax.transform.LegalizeOps({**legalizations(), "relax.reshape": as_it_is}),
        partial(spelled_out, once=True),
        # What was lowered in vain must not count as a reader of what could be fused.
        relax.transform.DeadCodeElimination(),
        relax.transform.AnnotateTIROpPattern(),
        _fused,
        relax.transform.DeadCodeElimination(),
    ]
    with Target(machine.target()), tvm.transform.PassContext(config={"relax.FuseOps.max_depth": DEEPEST}):
        for step in steps:
            mod = step(mod)
    return mod


def schedule(mod: tvm.IRModule, machine: Machine) -> tvm.IRModule:
    """Every kernel of a lowered module cut for the machine, each by itself."""
    rules = (Matrix(machine), Winograd(machine), Tiled(machine), Elementwise(machine), RowsRule(machine))
    with Target(machine.target()):
        return without_nan(dlight.ApplyDefaultSchedule(*rules)(mod))


def _fused(mod: tvm.IRModule) -> tvm.IRModule:
    """Neighbours as one kernel, where TVM can: it takes two ways of writing one open size for two sizes."""
    try:
        return relax.transform.FuseTIR()(relax.transform.FuseOps()(mod))
    except Exception as error:
        _LOG.debug("kernels are not fused: %s", " ".join(str(error).split())[-300:])
        return mod


@dataclass(frozen=True, slots=True)
class Objects:
    """The names of object files, and the kernels in them that no rule could cut: they run as TVM wrote them."""

    files: tuple[str, ...]
    unscheduled: tuple[str, ...]


def write_objects(mod: tvm.IRModule, machine: Machine, folder: str) -> Objects:
    """Cut the kernels of a lowered module, and compile them into object files in `folder`.

    Copies of this process do their share (see `beside`): TVM's compilation, which calls back into Python, may wait for
    itself for ever where two threads are in it.
    """
    parts = _parts(mod, machine)

    def write(number: int) -> None:
        part, path = parts[number], os.path.join(folder, parts[number].name)
        scheduled = schedule(tvm.IRModule(part.kernels), machine)
        with open(f"{path}.unscheduled", "w", encoding="utf-8") as file:
            file.writelines(f"{name}\n" for name in _unscheduled(scheduled))
        _write(scheduled, part.level, machine, path)

    each(write, len(parts))
    left: list[str] = []
    for part in parts:
        with open(os.path.join(folder, f"{part.name}.unscheduled"), encoding="utf-8") as file:
            left += file.read().splitlines()
    return Objects(tuple(part.name for part in parts), tuple(sorted(left)))


@dataclass(frozen=True, slots=True)
class _Part:
    """An object file to be: its kernels, and LLVM's level of optimisation."""

    name: str
    level: int
    kernels: dict[str, tirx.PrimFunc]


def _parts(mod: tvm.IRModule, machine: Machine) -> list[_Part]:
    """The files to be, the same whoever compiles them; what takes longest, which is what is in many steps, first.

    Kernels on codes for ARM are compiled for less code: their loops are written out as far as pays already, and of the
    library of a small quantized model what LLVM writes out besides would be a tenth.
    """
    kernels = {
        var.name_hint: function.with_attr("global_symbol", var.name_hint)
        for var, function in mod.functions_items()
        if isinstance(function, tirx.PrimFunc)
    }
    order = sorted(kernels, key=lambda name: (-_steps(kernels[name]), name))
    small = machine.dot is not None and machine.dot.grouped
    parts: list[_Part] = []
    for word, level, coded in (("kernels", 3, False), ("codes", 2, True)):
        names = [name for name in order if (small and _on_codes(kernels[name])) is coded]
        for index in range(min(_PARTS, len(names))):
            own = {name: kernels[name] for name in names[index::_PARTS]}
            parts.append(_Part(f"{word}{index}.o", level, own))
    return parts


def _steps(kernel: tirx.PrimFunc) -> int:
    """In how many steps a kernel that is not cut yet computes: each but the last has a buffer for its result. One that
    is written in loops (see `compute.cells`) is cut already."""
    block = getattr(kernel.body, "block", None)
    return 0 if block is None else len(block.alloc_buffers)


def _write(mod: tvm.IRModule, level: int, machine: Machine, path: str) -> None:
    target = Target({**machine.target(), "opt-level": level})
    # The plan calls them, which has the sizes from the same place: that arguments fit need not be asked again. And what
    # is computed twice, and what does nothing, LLVM sees as well.
    config = {"tirx.disable_assert": True, "tirx.disable_cse_tir": True}
    with tvm.transform.PassContext(config=config, disabled_pass=_LEFT_OUT):
        built = tvm.tirx.build(mod, target=target)
    built.write_to_file(path, "o")


def _unscheduled(mod: tvm.IRModule) -> list[str]:
    return [
        str(function.attrs["global_symbol"])
        for _, function in mod.functions_items()
        if not function.attrs.get("tirx.is_scheduled", False)
    ]


def _on_codes(kernel: tirx.PrimFunc) -> bool:
    return any(str(getattr(param, "dtype", "")) in ("int8", "uint8") for param in kernel.params)
