"""The names of what a CPU can do: as LLVM spells them, and as Linux lists them in /proc/cpuinfo.

Here is what a compiler uses unasked. Left out is what every CPU of its kind has, what is used only where a program
names it (cryptography, keys of pages, waiting, matrices of AMX), what only an operating system may use, and what LLVM
calls a feature but is advice on what is fast.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

UNLISTED = ""
"""The name of what Linux does not list, of which nobody can say whether a CPU has it."""

_SAME_X86 = """
    avx avx2 avx512bw avx512cd avx512dq avx512f avx512ifma avx512vbmi avx512vl bmi2 cx16 f16c fma fma4 gfni movbe popcnt
    sse4a ssse3 tbm xop
"""
_UNLISTED_X86 = """
    avx10.1 avx10.2 avxifma avxneconvert avxvnniint16 avxvnniint8 ccmp cmpccxadd egpr ndd nf ppx push2pop2 zu
"""
X86: Mapping[str, str] = {
    **{name: name for name in _SAME_X86.split()},
    **dict.fromkeys(_UNLISTED_X86.split(), UNLISTED),
    "avx512bf16": "avx512_bf16",
    "avx512bitalg": "avx512_bitalg",
    "avx512fp16": "avx512_fp16",
    "avx512vbmi2": "avx512_vbmi2",
    "avx512vnni": "avx512_vnni",
    "avx512vp2intersect": "avx512_vp2intersect",
    "avx512vpopcntdq": "avx512_vpopcntdq",
    "avxvnni": "avx_vnni",
    "bmi": "bmi1",
    "lzcnt": "abm",
    "sahf": "lahf_lm",
    "sse3": "pni",
    "sse4.1": "sse4_1",
    "sse4.2": "sse4_2",
}

ARM64: Mapping[str, str] = {
    "altnzcv": "flagm2",
    "bf16": "bf16",
    "complxnum": "fcma",
    "dotprod": "asimddp",
    "flagm": "flagm",
    "fp-armv8": "fp",
    "fp16fml": "asimdfhm",
    "fptoint": "frint",
    "fullfp16": "asimdhp",
    "i8mm": "i8mm",
    "jsconv": "jscvt",
    "lse": "atomics",
    "lse2": "uscat",
    "neon": "asimd",
    "rcpc": "lrcpc",
    "rcpc-immo": "ilrcpc",
    "rdm": "asimdrdm",
    "sme": "sme",
    "sme-f64f64": "smef64f64",
    "sme-i16i64": "smei16i64",
    "sme2": "sme2",
    "sve": "sve",
    "sve-bitperm": "svebitperm",
    "sve2": "sve2",
}

ARM32: Mapping[str, str] = {
    "d32": "vfpd32",
    "fp-armv8": "vfpv4",
    "fp16": "vfpv4",
    "hwdiv": "idivt",
    "hwdiv-arm": "idiva",
    "neon": "neon",
    "vfp2": "vfp",
    "vfp3": "vfpv3",
    "vfp4": "vfpv4",
}


def names(triple: str) -> Mapping[str, str]:
    """The names for the CPUs of an LLVM triple: LLVM's to those of Linux."""
    kind = triple.partition("-")[0]
    if kind in ("x86_64", "amd64"):
        return X86
    if kind in ("aarch64", "arm64"):
        return ARM64
    return ARM32 if kind.startswith("arm") else {}


def listed(features: Iterable[str], triple: str) -> tuple[str, ...]:
    """Those of LLVM's features of which Linux can say whether a CPU has them, in order."""
    kernel_names = names(triple)
    return tuple(sorted(name for name in features if kernel_names.get(name, UNLISTED) != UNLISTED))


def lacking(features: Iterable[str], triple: str, flags: Collection[str]) -> tuple[str, ...]:
    """Those of LLVM's features that a CPU with these flags of Linux does not have, or not for certain, in order."""
    kernel_names = names(triple)
    return tuple(sorted(name for name in features if kernel_names.get(name, UNLISTED) not in flags))
