"""The C library of a device, as stand-ins to link against: what a library may call, in the oldest versions that do.

Linked against the C library of this machine, a library would ask for the newest version of each function, and run on
nothing older. A stand-in is a library of the same name that defines the functions and does nothing; the loader of the
device puts its own in their place. So libraries for glibc, also those for this machine, need its version 2.17 (2012),
and those for Android no NDK to be built: its C library, bionic, goes by other names and has no versions.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from . import toolchain
from .machine import Machine
from .objects import kept, version

PAGE = 16384
"""Bytes of a page of memory, at most, that a library for Android is laid out for: those of Android 15."""
API = 29
"""The oldest Android (10) that has variables of a thread in libraries."""

_CLOCK = "clock_gettime"
_C = (
    _CLOCK, "abort", "atoi", "calloc", "fclose", "fopen", "fread", "free", "fseek", "ftell", "getenv", "madvise",
    "malloc", "memcmp", "memcpy", "memmove", "memset", "posix_memalign", "raise", "realloc", "rewind", "sched_yield",
    "snprintf", "strchr", "strcmp", "strlen", "strncmp", "strncpy", "strrchr", "strstr", "strtol", "sysconf",
)  # fmt: skip
_THREADS = tuple(
    f"pthread_{name}"
    for name in (
        "cond_broadcast", "cond_destroy", "cond_init", "cond_wait", "create", "join", "mutex_destroy", "mutex_init",
        "mutex_lock", "mutex_unlock",
    )
)  # fmt: skip
_MATH = tuple(
    name + kind
    for name in (
        "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "copysign", "cos", "cosh",
        "erf", "erfc", "exp", "exp2", "expm1", "fabs", "floor", "fma", "fmax", "fmin", "fmod", "hypot", "ldexp",
        "lgamma", "log", "log10", "log1p", "log2", "nearbyint", "pow", "remainder", "rint", "round", "sin", "sinh",
        "sincos", "sqrt", "tan", "tanh", "tgamma", "trunc",
    )
    for kind in ("", "f")
)  # fmt: skip
_LOADING = ("dladdr", "dlopen", "dlsym")
_THREAD_VARIABLES = ("__tls_get_addr",)


@dataclass(frozen=True, slots=True)
class _Glibc:
    """glibc on an architecture: the version that its port began with, which most functions have, the loader's name, and
    the versions of functions that came or changed later."""

    first: str
    loader: str
    newer: Mapping[str, str]


_GLIBC = {
    "aarch64": _Glibc("GLIBC_2.17", "ld-linux-aarch64.so.1", {}),
    "arm": _Glibc("GLIBC_2.4", "ld-linux-armhf.so.3", {_CLOCK: "GLIBC_2.17"}),
    "x86_64": _Glibc(
        "GLIBC_2.2.5",
        "ld-linux-x86-64.so.2",
        {
            _CLOCK: "GLIBC_2.17",
            "__tls_get_addr": "GLIBC_2.3",
            "memcpy": "GLIBC_2.14",
            **{f"pthread_cond_{name}": "GLIBC_2.3.2" for name in ("broadcast", "destroy", "init", "wait")},
        },
    ),
}


@dataclass(frozen=True, slots=True)
class StandIn:
    """A library of a device: its name there, and its functions by their version (none on Android)."""

    name: str
    functions: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def source(self) -> str:
        return "".join(f"void {name}(void) {{}}\n" for _, names in self.functions for name in names)

    @property
    def script(self) -> str:
        """The versions, as the linker takes them."""
        shown = (f"{of} {{ global: {' '.join(f'{one};' for one in names)} }};\n" for of, names in self.functions)
        return "".join(shown) or "{ local: *; };\n"


def stand_ins(machine: Machine) -> tuple[StandIn, ...]:
    """Those for the system of a machine; none where it has no name, and libraries are linked against what is here."""
    if machine.system == "bionic":
        libraries = {"libc.so": (*_C, *_THREADS, *_THREAD_VARIABLES), "libm.so": _MATH, "libdl.so": _LOADING}
        return tuple(StandIn(name, (("", functions),)) for name, functions in libraries.items())
    architecture = (machine.triple or platform.machine()).partition("-")[0].partition("v7")[0]
    return _glibc(_GLIBC[architecture]) if machine.system == "glibc" else ()


def _glibc(old: _Glibc) -> tuple[StandIn, ...]:
    libraries: dict[str, tuple[str, ...]] = {
        "libpthread.so.0": _THREADS, "libm.so.6": _MATH, "libdl.so.2": _LOADING, "libc.so.6": _C,
        old.loader: _THREAD_VARIABLES,
    }  # fmt: skip
    stand_ins = []
    for name, functions in libraries.items():
        by_version: dict[str, list[str]] = {}
        for function in functions:
            by_version.setdefault(old.newer.get(function, old.first), []).append(function)
        versions = sorted(by_version, key=lambda text: [int(n) for n in text.removeprefix("GLIBC_").split(".")])
        stand_ins.append(StandIn(name, tuple((version, tuple(by_version[version])) for version in versions)))
    return tuple(stand_ins)


def own_system() -> str:
    """The C library of this machine: `glibc`, or nothing where it is another one, or of a CPU not listed here."""
    listed = sys.platform == "linux" and platform.machine() in _GLIBC
    return "glibc" if listed and platform.libc_ver()[0] == "glibc" else ""


def linking(machine: Machine, folder: str) -> tuple[str, ...]:
    """What the compiler is told behind the object files, to link a library for the system of a machine; stand-ins are
    put into `folder`. Raises `TargetError` where the compiler is missing or fails."""
    page = (f"-Wl,-z,max-page-size={PAGE}", "-Wl,-soname,model.so") if machine.system == "bionic" else ()
    if machine.ndk:
        return (*page, "-nostdlib++", "-lm", "-ldl")
    wanted = stand_ins(machine)
    if not wanted:
        return ()
    files = tuple(_placed(machine, one, folder, index) for index, one in enumerate(wanted))
    return (*page, "-nodefaultlibs", "-Wl,-z,defs", "-Wl,--as-needed", *files, "-lgcc", "-Wl,--no-warn-mismatch")


def runner_compiler(machine: Machine) -> str:
    """The compiler of programs for the emulator, which has no C library but glibc."""
    return toolchain.compiler(machine, ndk=False)


def bare(machine: Machine, folder: str) -> None:
    """Put what bionic's libraries are called into `folder`, empty, so that a library for Android loads where glibc has
    their functions."""
    if machine.system == "bionic":
        for index, one in enumerate(stand_ins(machine)):
            empty = StandIn(one.name, ())
            os.replace(_placed(machine, empty, folder, index), os.path.join(folder, one.name))


def _placed(machine: Machine, one: StandIn, folder: str, index: int) -> str:
    """The path of a stand-in, put into `folder`."""
    compiler = toolchain.compiler(machine, ndk=False)
    flags = (*machine.flags, "-x", "c", "-w", "-fno-builtin", "-shared", "-nostdlib", "-fPIC", "-Wl,--build-id=none")

    def make(work: str) -> None:
        for name, text in (("stub.c", one.source), ("stub.map", one.script)):
            with open(os.path.join(work, name), "w", encoding="ascii") as file:
                file.write(text)
        command = [
            compiler,
            *flags,
            f"-Wl,-soname,{one.name}",
            "-Wl,--version-script=stub.map",
            "stub.c",
            "-o",
            "out.o",
        ]
        toolchain.run(command, folder=work, what="compiling a stand-in")

    path = os.path.join(folder, f"{index}-{one.name}")
    with open(path, "wb") as file:
        file.write(kept(("stand-in", compiler, version(compiler), *flags, one.name, one.script, one.source), make))
    return path


def find_ndk(prefix: str) -> str:
    """The C++ compiler of Android's NDK, where ANDROID_NDK_HOME names one, for the architecture that begins with
    `prefix`; else nothing."""
    home = os.environ.get("ANDROID_NDK_HOME", "")
    compiler = shutil.which(
        f"{prefix}{API}-clang++", path=os.path.join(home, "toolchains/llvm/prebuilt/linux-x86_64/bin")
    )
    return compiler or "" if home else ""
