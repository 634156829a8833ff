"""The target `host`: a library for the CPU of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...passes.base import option
from .target import CpuTarget

if TYPE_CHECKING:
    from .cpu.machine import Machine


@dataclass(frozen=True, slots=True)
class HostTarget(CpuTarget):
    """Native code for the CPU that compiles it."""

    name: ClassVar[str] = "host"
    suffix: ClassVar[str] = ".host"
    help: ClassVar[str] = "a library of native code for this machine's CPU, by TVM"

    cpu: str = option("", "name of the CPU as LLVM knows it, such as x86-64-v3; this machine's unless given")
    archive: bool = option(False, "whether to write a static archive, model.a, too")

    @property
    def archived(self) -> bool:
        return self.archive

    def machine(self) -> Machine:
        from .cpu.machines import host

        return host(self.cpu)

    def checked(self) -> Machine:
        from ...runtime.cpu import level
        from .cpu.machine import Machine
        from .loading import require

        if self.cpu:
            require()
            return CpuTarget.checked(self)
        level()
        return Machine(self.name, "")
