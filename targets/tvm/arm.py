"""The targets `arm64` and `armv7`: libraries for ARM CPUs, proven under an emulator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ...passes.base import option
from ...passes.pipeline import Pipeline
from .target import CpuTarget

if TYPE_CHECKING:
    from .cpu.machine import Machine


@dataclass(frozen=True, slots=True)
class Arm64Target(CpuTarget):
    """64-bit ARM under Linux or Android."""

    name: ClassVar[str] = "arm64"
    suffix: ClassVar[str] = ".arm64"
    help: ClassVar[str] = "a library for 64-bit ARM CPUs under Linux or Android, by TVM"
    emulated: ClassVar[bool] = True

    cpu: str = option("", "name of the CPU as LLVM knows it, such as cortex-a76; any with NEON unless given")
    dotprod: bool = option(False, "whether it has the int8 dot products of ARMv8.2")
    i8mm: bool = option(False, "whether it has the int8 matrix products of ARMv8.6")
    os: Literal["linux", "android"] = option(
        "linux", "the system: Linux with glibc 2.17 or newer, or Android 10 or newer"
    )
    fp16: bool = option(False, "whether to compute in half precision, with the arithmetic of ARMv8.2")
    sve: bool = option(False, "whether it has scalable vectors")
    archive: bool = option(False, "whether to write a static archive, model.a, too")

    @property
    def halves(self) -> bool:
        return self.fp16

    @property
    def archived(self) -> bool:
        return self.archive

    def machine(self) -> Machine:
        from .cpu.machines import arm64

        return arm64(cpu=self.cpu, os=self.os, dotprod=self.dotprod, i8mm=self.i8mm, fp16=self.fp16, sve=self.sve)

    def legalisation(self) -> Pipeline:
        from .legal.half import Half

        steps = CpuTarget.legalisation(self)
        return Pipeline((*steps.passes, Half())) if self.fp16 else steps


@dataclass(frozen=True, slots=True)
class Armv7Target(CpuTarget):
    """32-bit ARM with NEON under Linux or Android."""

    name: ClassVar[str] = "armv7"
    suffix: ClassVar[str] = ".armv7"
    help: ClassVar[str] = "a library for 32-bit ARM CPUs with NEON under Linux or Android, by TVM"
    emulated: ClassVar[bool] = True

    cpu: str = option("", "name of the CPU as LLVM knows it, such as cortex-a9; any with NEON unless given")
    os: Literal["linux", "android"] = option(
        "linux", "the system: Linux with glibc 2.17 or newer, or Android 10 or newer"
    )
    archive: bool = option(False, "whether to write a static archive, model.a, too")

    @property
    def cannot_run(self) -> str:
        return "cannot run here: no emulator here passes floats as Android does" if self.os == "android" else ""

    @property
    def archived(self) -> bool:
        return self.archive

    def machine(self) -> Machine:
        from .cpu.machines import armv7

        return armv7(cpu=self.cpu, os=self.os)
