"""What the code generator must know about a GPU, beside the CPU that launches its kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..cpu.machine import Machine


@dataclass(frozen=True, slots=True)
class Gpu(Machine):
    """A GPU as TVM names it. The fields of `Machine` that name a compiler are those of the program that launches its
    kernels, empty where none is written.

    A "register" is one vector of four floats; `registers` bounds what one thread holds so that enough threads are in
    flight; `threads` are those of one work group. `kind` is TVM's word for the language, `bytes` tells whether that
    has numbers of 8 bits, and `doubles` whether some of these GPUs compute with 64.
    """

    kind: str = "opencl"
    threads: int = 64
    suffix: str = ".cl"
    doubles: bool = False

    @property
    def bytes(self) -> bool:
        return self.kind != "webgpu"

    def target(self) -> dict[str, object]:
        return {"kind": self.kind, "max_num_threads": self.threads}


def _gpu(name: str, kind: str, registers: int, threads: int, suffix: str = ".cl", compiler: str = "g++") -> Gpu:
    return Gpu(
        name, "", lanes=4, block=4, registers=registers, compiler=compiler, kind=kind, threads=threads, suffix=suffix
    )


DEVICES = {
    "generic": replace(_gpu("generic", "opencl", 16, 64), doubles=True),
    # Half of the threads are lost where one takes more than 32 registers of 32 bits; loads of 128 bits are whole lines.
    "mali": _gpu("mali", "opencl", 14, 64),
    # Waves of 64 or 128 threads, and a larger register file.
    "adreno": _gpu("adreno", "opencl", 18, 128),
    "metal": _gpu("metal", "metal", 18, 64, ".metal", ""),
    "webgpu": _gpu("webgpu", "webgpu", 16, 64, ".wgsl", ""),
}


def hosted(gpu: Gpu, machine: Machine) -> Gpu:
    """The GPU with the CPU `machine` as its host."""
    return replace(
        gpu,
        triple=machine.triple,
        compiler=machine.compiler,
        compiler_package=machine.compiler_package,
        flags=machine.flags,
        system=machine.system,
    )
