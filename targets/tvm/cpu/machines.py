"""The CPUs that are built for: this machine's, and those of phones and boards."""

from __future__ import annotations

import functools
from dataclasses import replace

from ....errors import TargetError, nearest
from ....runtime import cpu as this_cpu
from . import features as names
from .machine import PMADDWD, SDOT, SMMLA, SMULL, VPDPBUSD, Machine
from .system import find_ndk, own_system

_ARM_FEATURES = {"dotprod": "+dotprod", "i8mm": "+i8mm", "fp16": "+fullfp16", "sve": "+sve"}


def host(cpu: str = "") -> Machine:
    """The CPU of this machine as LLVM detects it, or another of its kind by the name that LLVM gives it.

    OPTC_CPU stands for the CPU of this machine where none is named. Raises `TargetError` where it names no level.
    """
    from tvm.target import codegen

    triple = str(codegen.llvm_get_system_triple())
    if cpu:
        return _machine(triple, cpu, frozenset())
    return _machine(triple, this_cpu.level() or str(codegen.llvm_get_system_cpu()), this_cpu.flags())


@functools.cache
def _machine(triple: str, cpu: str, flags: frozenset[str]) -> Machine:
    """A CPU by LLVM's name without what its `flags`, where there are any, do not show: under a hypervisor, one of
    that name may lack some of its instructions."""
    features = of_llvm(triple, cpu)
    absent = names.lacking(features & names.names(triple).keys(), triple, flags) if flags else ()
    features -= set(absent)
    without = tuple(f"-{name}" for name in absent)
    bare = Machine("host", triple, cpu, without, system=own_system())
    if triple.startswith("aarch64"):
        matrix = SMMLA if "i8mm" in features else None
        return replace(bare, dot=SDOT if "dotprod" in features else SMULL, matrix=matrix)
    if not triple.startswith("x86_64"):
        return bare
    if "avx512bw" in features:
        vnni = "avx512vnni" in features
        named = ("+avx512f", "+avx512bw", *(("+avx512vnni",) if vnni else ()), *without)
        dot = VPDPBUSD if vnni else PMADDWD
        return replace(bare, features=named, lanes=16, registers=32, block=16, dot=dot, filtering=True)
    if "avx2" in features and "fma" in features:
        vnni = "avxvnni" in features
        named = ("+avx2", "+fma", *(("+avxvnni",) if vnni else ()), *without)
        dot = VPDPBUSD if vnni else PMADDWD
        return replace(bare, features=named, lanes=8, registers=16, block=8, dot=dot, filtering=True)
    return replace(bare, lanes=4, registers=16, block=8, dot=PMADDWD)


def check_cpu(triple: str, cpu: str) -> None:
    """Raises `TargetError` where LLVM knows no CPU of this name: it would build for any, and say so to nobody."""
    from tvm.target import Target, codegen

    names = set(map(str, codegen.llvm_get_cpu_archlist(Target({"kind": "llvm", "mtriple": triple}))))
    if cpu and names and cpu not in names:
        raise TargetError(f"LLVM knows no CPU '{cpu}' of {triple.partition('-')[0]}.{nearest(cpu, names)}")


def of_llvm(triple: str, cpu: str, features: tuple[str, ...] = ()) -> set[str]:
    """What LLVM takes a CPU to have, with features switched on and off, by its own names; nothing without a triple."""
    if not triple:
        return set()
    from tvm.target import Target, codegen

    options: dict[str, object] = {"kind": "llvm", "mtriple": triple}
    options |= {"mcpu": cpu} if cpu else {}
    options |= {"mattr": list(features)} if features else {}
    return set(map(str, codegen.llvm_get_cpu_features(Target(options))))


def arm64(*, cpu: str = "", os: str = "linux", **features: bool) -> Machine:
    """A 64-bit ARM CPU under Linux or Android, with the features named; every one with `i8mm` has `dotprod`."""
    android = os == "android"
    features["dotprod"] = features.get("dotprod", False) or features.get("i8mm", False)
    return Machine(
        "arm64",
        "aarch64-unknown-linux-android" if android else "aarch64-linux-gnu",
        cpu,
        ("+neon", *(_ARM_FEATURES[name] for name, on in features.items() if on)),
        lanes=4,
        registers=32,
        block=8,
        compiler="aarch64-linux-gnu-g++",
        compiler_package="g++-aarch64-linux-gnu",
        # Atomic operations are written out, or they would ask the C library what the CPU has; Android keeps x18.
        flags=("-mno-outline-atomics", *(("-DOPTC_BIONIC", "-ffixed-x18") if android else ())),
        system="bionic" if android else "glibc",
        ndk=find_ndk("aarch64-linux-android") if android else "",
        dot=SDOT if features["dotprod"] else SMULL,
        matrix=SMMLA if features.get("i8mm") else None,
        emulator=("qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu"),
        emulator_package="qemu-user-static",
    )


def armv7(*, cpu: str = "", os: str = "linux") -> Machine:
    """A 32-bit ARM CPU with NEON under Linux or Android, which passes floats in registers of integers."""
    android = os == "android"
    # The headers of the compiler are those for floats in registers of their own; nothing of them is called.
    soft = ("-DOPTC_BIONIC", "-mfloat-abi=softfp", "-D__ARM_PCS_VFP")
    return Machine(
        "armv7",
        # All four parts: of three, LLVM takes none for the calling convention, and numbers of 64 bits come out wrong.
        "armv7a-unknown-linux-androideabi" if android else "armv7a-unknown-linux-gnueabihf",
        cpu,
        ("+neon", "+vfp4"),
        lanes=4,
        registers=16,
        block=8,
        compiler="arm-linux-gnueabihf-g++",
        compiler_package="g++-arm-linux-gnueabihf",
        flags=("-mfpu=neon-vfpv4", *(soft if android else ())),
        hard_float=not android,
        system="bionic" if android else "glibc",
        ndk=find_ndk("armv7a-linux-androideabi") if android else "",
        dot=SMULL,
        emulator=("qemu-arm-static", "-L", "/usr/arm-linux-gnueabihf"),
        emulator_package="qemu-user-static",
    )
