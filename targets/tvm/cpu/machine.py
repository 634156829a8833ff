"""What the code generator must know about a CPU: its vectors, its registers, and the tools that build for it."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Dot:
    """An instruction that adds products of neighbouring integers to 32-bit sums, exactly.

    Each sum takes `terms` of them; where `rows` is more than one, it multiplies matrices, and one register holds
    the sums of so many points by as many channels. Codes of activations are held in memory as `codes`, from which
    the instruction takes them without a conversion each time; weights are int8. A `grouped` one takes those of an
    activation from any lane of a register, so that one load serves several.
    """

    name: str
    terms: int
    codes: str
    rows: int = 1
    grouped: bool = False


SDOT = Dot("sdot", 4, "int8", grouped=True)
"""ARMv8.2: four int8 by int8."""
SMMLA = Dot("smmla", 8, "int8", 2)
"""ARMv8.6: two by eight int8 by eight by two."""
SMULL = Dot("smull", 2, "int8", grouped=True)
"""NEON: two int8 by int8, summed in 16 and then in 32 bits."""
PMADDWD = Dot("pmaddwd", 2, "int16")
"""x86: two int16 by int16. The instruction for 8 bits saturates where two products are summed."""
VPDPBUSD = Dot("vpdpbusd", 4, "uint8")
"""x86 with VNNI: four uint8 by int8."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A CPU as LLVM names it, and the tools for it.

    `lanes` are the floats of one vector register, `registers` the number of those; `block` the channels that stand side
    by side in memory (NCHWc), a whole number of registers. `compiler` is the C++ compiler that links for it and `flags`
    what it is told, `hard_float` whether functions pass numbers in vector registers (32-bit ARM only), and `emulator`
    the command that runs its programs here (none where this machine runs them itself). `dot` computes with integers;
    without it quantized layers run in floats. `matrix` does so where there are neighbouring points to multiply at once.
    `filtering` tells whether convolutions may take more memory for weights in order to multiply less (see
    `compute.winograd`).
    `system` is the C library of the devices, `glibc` or `bionic` (Android); without it, libraries are linked against
    that of this machine. `ndk` is the compiler of Android's development kit, where there is one.
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
    dot: Dot | None = None
    matrix: Dot | None = None
    filtering: bool = False
    system: str = ""
    ndk: str = ""

    @property
    def vectors(self) -> int:
        """Registers that one block of channels takes."""
        return max(1, self.block // self.lanes)

    def holding(self, dtype: str) -> Machine:
        """The machine as a kernel sees it whose sums are of this type: where it computes with halves, a register holds
        twice as many; elsewhere they are widened first."""
        halves = dtype == "float16" and "+fullfp16" in self.features
        return replace(self, lanes=2 * self.lanes) if halves else self

    def target(self) -> dict[str, object]:
        """The description that TVM's `Target` takes."""
        attributes: dict[str, object] = {"kind": "llvm", "mtriple": self.triple, "num-cores": 1}
        if self.hard_float:
            attributes["mfloat-abi"] = "hard"
        if self.cpu:
            attributes["mcpu"] = self.cpu
        if self.features:
            attributes["mattr"] = list(self.features)
        return attributes
