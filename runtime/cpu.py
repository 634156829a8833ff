"""What the CPU of this machine can do, as the operating system names it, and how OPTC_CPU bounds that."""

from __future__ import annotations

import functools
import math
import os
import platform
from pathlib import Path

from ..errors import TargetError

VARIABLE = "OPTC_CPU"
"""Names a level of `LEVELS`; models are then built, and passes choose, as if this CPU had no more than that."""

_X86 = frozenset(("fpu", "cx8", "cmov", "mmx", "fxsr", "sse", "sse2", "syscall", "lm", "nx", "nopl"))
_X86_V2 = _X86 | {"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"}
_X86_V3 = _X86_V2 | {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}
_X86_V4 = _X86_V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
LEVELS = {"x86-64": _X86, "x86-64-v2": _X86_V2, "x86-64-v3": _X86_V3, "x86-64-v4": _X86_V4}
"""The levels of the psABI of x86-64, by the names that Linux gives to features in /proc/cpuinfo."""


def flags() -> frozenset[str]:
    """The features of this CPU by the names of Linux; nothing where the system does not tell.

    With OPTC_CPU, those of them that its level has. Raises `TargetError` where it names none.
    """
    here, named = _told(), level()
    if not named:
        return here
    return here & LEVELS[named] if here else LEVELS[named]


def level() -> str:
    """What OPTC_CPU names; empty where it is not set. Raises `TargetError` for another name, or on no x86."""
    named = os.environ.get(VARIABLE, "")
    if named and not is_x86():
        raise TargetError(f"{VARIABLE} is for x86 CPUs only, and this is {platform.machine()}; unset it")
    if named and named not in LEVELS:
        raise TargetError(f"{VARIABLE}={named} is no level that is known; the levels are {', '.join(LEVELS)}")
    return named


def is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64", "i386", "i686", "x86")


def has_int8_dot_product() -> bool:
    """Whether this CPU multiplies int8 into int32 without a saturating 16-bit step (x86 VNNI, ARM dotprod).

    Where the operating system does not tell, the careful answer: no.
    """
    return bool(flags() & {"avx512_vnni", "avx_vnni", "asimddp"})


@functools.cache
def cores() -> int:
    """How many cores this process may keep busy: those of its affinity, and no more than the quota of its control group
    pays for."""
    return min(_allowed(), quota() or _allowed())


@functools.cache
def quota() -> int:
    """The cores that the control group of this process pays for, where that is fewer than its affinity has; else 0."""
    paid = _quota(Path("/sys/fs/cgroup"))
    return max(1, math.ceil(paid)) if paid < _allowed() else 0


def _allowed() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota(groups: Path) -> float:
    """The cores that the control group of this process pays for, with `groups` the root of all; infinite without one.

    Inside a container the group of the process is the root. Groups of version 2 say "quota period" in one file, of
    version 1 in two.
    """
    try:
        words = (groups / "cpu.max").read_text().split()
    except OSError:
        try:
            words = [(groups / "cpu" / f"cpu.cfs_{word}_us").read_text().strip() for word in ("quota", "period")]
        except OSError:
            return math.inf
    try:
        quota, period = (float(word) for word in words)
    except ValueError:  # "max"
        return math.inf
    return quota / period if quota > 0 and period > 0 else math.inf


def float_lanes() -> int:
    """Channels in one block of the blocked convolution kernels of ONNX Runtime: 16 with AVX-512, else 8."""
    return 16 if "avx512f" in flags() else 8


@functools.cache
def _told() -> frozenset[str]:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith(("flags", "Features")):
                    return frozenset(line.split(":", 1)[1].split())
    except OSError:
        pass
    return frozenset()
