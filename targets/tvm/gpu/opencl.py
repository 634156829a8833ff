"""The target `opencl`: kernels for the GPUs of phones, proven on whatever OpenCL driver is here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ....errors import TargetError
from ....passes.base import option
from .target import GpuTarget

if TYPE_CHECKING:
    from ....runtime.session import Runnable
    from .device import Gpu


@dataclass(frozen=True, slots=True)
class OpenClTarget(GpuTarget):
    """OpenCL C 1.2 without extensions, and the library that launches it."""

    name: ClassVar[str] = "opencl"
    suffix: ClassVar[str] = ".opencl"
    help: ClassVar[str] = "OpenCL kernels for GPUs, and a library that launches them, by TVM"

    device: Literal["generic", "adreno", "mali"] = option("generic", "kind of GPU that kernels are cut for")
    fp16: Literal["auto", "storage", "off"] = option(
        "auto", "whether numbers are stored in half precision: auto does so for adreno and mali"
    )
    host: Literal["here", "arm64"] = option("here", "CPU that launches the kernels: this machine's, or 64-bit ARM")

    @property
    def half(self) -> bool:
        return self.fp16 == "storage" or (self.fp16 == "auto" and self.device != "generic")

    def machine(self) -> Gpu:
        from ..cpu.machine import Machine
        from ..cpu.machines import arm64
        from ..cpu.system import own_system
        from .device import DEVICES, hosted

        here = Machine("host", "", system=own_system())
        return hosted(DEVICES[self.device], arm64() if self.host == "arm64" else here)

    def check_ready(self, *, run: bool) -> None:
        from .run import require_driver

        super(OpenClTarget, self).check_ready(run=run)  # the short form needs the class as it was before its slots
        if run:
            try:
                require_driver()
            except TargetError as error:
                raise TargetError(f"{error}, or build without running the result: --no-check") from error

    def open(self, path: str, *, threads: int = 0) -> Runnable:
        from .run import OpenClLibrary

        return OpenClLibrary(path, threads=threads)
