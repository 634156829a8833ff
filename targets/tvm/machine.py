"""What the code generator must know about a CPU: its vectors, its registers, and the tools that build for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Machine:
    """A CPU as LLVM names it, and the tools for it.

    `lanes` are the floats of one vector register, `registers` the number of those; `block` the channels that stand side
    by side in memory (NCHWc), a whole number of registers. `compiler` is the C++ compiler that links for it and `flags`
    what it is told, `hard_float` whether functions pass numbers in vector registers (32-bit ARM only), and `emulator`
    the command that runs its programs here (none where this machine runs them itself).
    """

    name: str
    triple: str
    cpu: str = ""
    features: tuple[str, ...] = ()
    lanes: int = 4
    registers: int = 32
    block: int = 8
    compiler: str = "g++"
    compiler_package: str = "g++"
    flags: tuple[str, ...] = ()
    emulator: tuple[str, ...] = ()
    emulator_package: str = ""
    hard_float: bool = False

    @property
    def vectors(self) -> int:
        """Registers that one block of channels takes."""
        return self.block // self.lanes

    def target(self) -> dict[str, object]:
        """The description that TVM's `Target` takes."""
        found: dict[str, object] = {"kind": "llvm", "mtriple": self.triple, "num-cores": 1}
        if self.hard_float:
            found["mfloat-abi"] = "hard"
        if self.cpu:
            found["mcpu"] = self.cpu
        if self.features:
            found["mattr"] = list(self.features)
        return found
