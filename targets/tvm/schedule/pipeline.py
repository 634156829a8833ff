"""From a Relax module to scheduled kernels, and from those to object code."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..cpu.beside import both
from ..cpu.machine import Machine

if TYPE_CHECKING:
    import tvm
    from tvm import relax, tirx

_LOG = logging.getLogger("optc")
_FEWEST = 4
"""Kernels that are worth to be compiled in two halves."""
DEEPEST = 12
"""Operators in one kernel at most. One that reads its operand several times, as HardSwish does, multiplies what is
fused before it: six in a row took the compiler for ever."""


def lower(mod: tvm.IRModule, machine: Machine) -> tvm.IRModule:
    """Operators become kernels, neighbours are fused, and every kernel is scheduled for the machine."""
    import tvm
    from tvm import relax
    from tvm.s_tir import dlight
    from tvm.target import Target

    from ..relax.exact import legalizations, spelled_out, without_nan
    from .matrix import Matrix
    from .rest import Elementwise, Rows
    from .tiled import Tiled
    from .winograd import Winograd

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
        dlight.ApplyDefaultSchedule(
            Matrix(machine), Winograd(machine), Tiled(machine), Elementwise(machine), Rows(machine)
        ),
        without_nan,
    ]
    with Target(machine.target()), tvm.transform.PassContext(config={"relax.FuseOps.max_depth": DEEPEST}):
        for step in steps:
            mod = step(mod)
    return mod


def _fused(mod: tvm.IRModule) -> tvm.IRModule:
    """Neighbours as one kernel, where TVM can: it takes two ways of writing one open size for two sizes."""
    from tvm import relax

    try:
        return relax.transform.FuseTIR()(relax.transform.FuseOps()(mod))
    except Exception as error:
        _LOG.debug("kernels are not fused: %s", " ".join(str(error).split())[-300:])
        return mod


def unscheduled(mod: tvm.IRModule) -> list[str]:
    """The kernels of a lowered module that no rule could cut: they run as TVM wrote them."""
    from tvm import tirx

    kernels = [(var.name_hint, kernel) for var, kernel in mod.functions_items() if isinstance(kernel, tirx.PrimFunc)]
    return sorted(name for name, kernel in kernels if not (kernel.attrs or {}).get("tirx.is_scheduled", False))


def write_objects(mod: tvm.IRModule, machine: Machine, folder: str) -> tuple[str, ...]:
    """Compile the kernels of a lowered module into object files in `folder`; returns their names.

    Half of them may be compiled by a copy of this process (see `beside`): TVM's compilation, which calls back into
    Python, may wait for itself for ever where two threads are in it.
    """
    halves = _halves(mod, machine)

    def write(half: list[_Part]) -> None:
        for part in half:
            _write(part, machine, os.path.join(folder, part.name))

    both(lambda: write(halves[0]), lambda: write(halves[1]))
    return tuple(part.name for half in halves for part in half)


@dataclass(frozen=True, slots=True)
class _Part:
    """An object file to be: its kernels, and LLVM's level of optimisation."""

    name: str
    level: int
    kernels: dict[str, tirx.PrimFunc]


def _halves(mod: tvm.IRModule, machine: Machine) -> tuple[list[_Part], list[_Part]]:
    """The files to be in two halves, the same whoever compiles them.

    Kernels on codes for ARM are compiled for less code: their loops are written out as far as pays already, and of the
    library of a small quantized model what LLVM writes out besides would be a tenth.
    """
    from tvm import tirx

    kernels = {
        var.name_hint: function.with_attr("global_symbol", var.name_hint)
        for var, function in mod.functions_items()
        if isinstance(function, tirx.PrimFunc)
    }
    small = machine.dot is not None and machine.dot.grouped
    coded = {name for name, kernel in kernels.items() if small and _on_codes(kernel)}
    halves: tuple[list[_Part], list[_Part]] = ([], [])
    for word, level, chosen in (("kernels", 3, sorted(kernels.keys() - coded)), ("codes", 2, sorted(coded))):
        count = 2 if len(chosen) >= _FEWEST else 1
        for index in range(count):
            names = chosen[index::count]
            if names or (word == "kernels" and not coded):
                halves[index].append(_Part(f"{word}{index}.o", level, {name: kernels[name] for name in names}))
    return halves


def _write(part: _Part, machine: Machine, path: str) -> None:
    import tvm
    from tvm.target import Target

    target = Target({**machine.target(), "opt-level": part.level})
    # The plan calls them, which has the sizes from the same place: that arguments fit need not be asked again. And what
    # is computed twice LLVM sees as well.
    with tvm.transform.PassContext(config={"tirx.disable_assert": True, "tirx.disable_cse_tir": True}):
        built = tvm.tirx.build(tvm.IRModule(part.kernels), target=target)
    built.write_to_file(path, "o")


def _on_codes(kernel: tirx.PrimFunc) -> bool:
    return any(str(getattr(param, "dtype", "")) in ("int8", "uint8") for param in kernel.params)
