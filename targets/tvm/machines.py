"""The CPUs that are built for: this machine's, and those of phones and boards."""

from __future__ import annotations

import functools

from .machine import PMADDWD, SDOT, SMMLA, SMULL, VPDPBUSD, Machine

_ARM_FEATURES = {"dotprod": "+dotprod", "i8mm": "+i8mm", "fp16": "+fullfp16", "sve": "+sve"}


@functools.cache
def host(cpu: str = "") -> Machine:
    """The CPU of this machine as LLVM detects it, or another of its kind by the name that LLVM gives it."""
    from tvm.target import Target, codegen

    triple = str(codegen.llvm_get_system_triple())
    cpu = cpu or str(codegen.llvm_get_system_cpu())
    features = codegen.llvm_get_cpu_features(Target({"kind": "llvm", "mtriple": triple, "mcpu": cpu}))
    if triple.startswith("aarch64"):
        matrix = SMMLA if "i8mm" in features else None
        return Machine("host", triple, cpu, dot=SDOT if "dotprod" in features else SMULL, matrix=matrix)
    if not triple.startswith("x86_64"):
        return Machine("host", triple, cpu)
    if "avx512bw" in features and "avx512vnni" in features:
        named = ("+avx512f", "+avx512bw", "+avx512vnni")
        return Machine("host", triple, cpu, named, lanes=16, registers=32, block=16, dot=VPDPBUSD)
    if "avx512bw" in features:
        return Machine("host", triple, cpu, ("+avx512f", "+avx512bw"), lanes=16, registers=32, block=16, dot=PMADDWD)
    if "avx2" in features and "fma" in features:
        vnni = "avxvnni" in features
        named = ("+avx2", "+fma", *(("+avxvnni",) if vnni else ()))
        return Machine("host", triple, cpu, named, lanes=8, registers=16, block=8, dot=VPDPBUSD if vnni else PMADDWD)
    return Machine("host", triple, cpu, lanes=4, registers=16, block=8, dot=PMADDWD)


def arm64(*, cpu: str = "", **features: bool) -> Machine:
    """A 64-bit ARM CPU under Linux or Android, with the features named; every one with `i8mm` has `dotprod`."""
    features["dotprod"] = features.get("dotprod", False) or features.get("i8mm", False)
    return Machine(
        "arm64",
        "aarch64-linux-gnu",
        cpu,
        ("+neon", *(_ARM_FEATURES[name] for name, on in features.items() if on)),
        lanes=4,
        registers=32,
        block=8,
        compiler="aarch64-linux-gnu-g++",
        compiler_package="g++-aarch64-linux-gnu",
        dot=SDOT if features["dotprod"] else SMULL,
        matrix=SMMLA if features.get("i8mm") else None,
        emulator=("qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu"),
        emulator_package="qemu-user-static",
    )


def armv7(*, cpu: str = "") -> Machine:
    """A 32-bit ARM CPU with NEON under Linux."""
    return Machine(
        "armv7",
        "armv7a-linux-gnueabihf",
        cpu,
        ("+neon", "+vfp4"),
        lanes=4,
        registers=16,
        block=8,
        compiler="arm-linux-gnueabihf-g++",
        compiler_package="g++-arm-linux-gnueabihf",
        flags=("-mfpu=neon-vfpv4",),
        hard_float=True,
        dot=SMULL,
        emulator=("qemu-arm-static", "-L", "/usr/arm-linux-gnueabihf"),
        emulator_package="qemu-user-static",
    )
