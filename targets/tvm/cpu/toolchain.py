"""The C++ compilers that link for a machine, and the emulators that run its programs here."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from ....errors import TargetError
from .machine import Machine

SOURCES = os.path.join(os.path.dirname(os.path.dirname(__file__)), "sources")
FLAGS = (
    *("-std=c++17", "-Os", "-fPIC", "-pthread", "-fno-exceptions", "-fno-rtti", "-ffunction-sections"),
    *("-fno-unwind-tables", "-fno-asynchronous-unwind-tables", "-fno-stack-protector", "-U_FORTIFY_SOURCE"),
)
SHARED = (
    *("-shared", "-s", "-Wl,--build-id=none", "-Wl,--gc-sections", "-static-libstdc++", "-static-libgcc"),
    *("-Wl,-z,noseparate-code", "-Wl,-z,norelro", "-Wl,-z,common-page-size=512", "-Wl,--no-eh-frame-hdr"),
    *(f"-Wl,--version-script={os.path.join(SOURCES, 'exports.map')}", f"-Wl,-T,{os.path.join(SOURCES, 'discard.ld')}"),
)
"""A library that needs only the C library, shows only the calls of `model.h` and those over RPC, and is the same bytes
each time. It has no tables for exceptions, which nothing throws, and no pages filled up between code, constants and the
few addresses that the loader sets; a page of these alone, which could be made read-only, would be up to 64 KiB."""
BARE = ("-nostartfiles",)
"""For what has nothing to be constructed or destroyed when it is loaded or unloaded."""


def compiler(machine: Machine, *, ndk: bool = True) -> str:
    """The path of the C++ compiler for the machine, with `ndk` that of Android's development kit where there is one.
    Raises `TargetError` where there is none."""
    if ndk and machine.ndk:
        return machine.ndk
    path = shutil.which(machine.compiler)
    if path is None:
        raise TargetError(
            f"building for {machine.name} needs the C++ compiler {machine.compiler}, which is not here; install the "
            f"package {machine.compiler_package}"
        )
    return path


def archiver(machine: Machine) -> str:
    """The path of `ar` for the machine. Raises `TargetError` where there is none."""
    if machine.ndk:
        return os.path.join(os.path.dirname(machine.ndk), "llvm-ar")
    name = machine.compiler.removesuffix("g++") + "ar"
    path = shutil.which(name)
    if path is None:
        raise TargetError(f"an archive for {machine.name} needs {name}, which is not here; install binutils for it")
    return path


def emulator(machine: Machine) -> tuple[str, ...] | None:
    """The command that runs the machine's programs here: nothing on the machine itself; none where it is missing."""
    if not machine.emulator:
        return ()
    return machine.emulator if shutil.which(machine.emulator[0]) else None


def run(command: Sequence[str], *, folder: str, what: str) -> None:
    """Run a tool. Raises `TargetError` with the first line of what it complained about."""
    finish(start(command, folder=folder), what=what)


def start(command: Sequence[str], *, folder: str) -> subprocess.Popen[str]:
    """Run a tool beside this process."""
    # A time stamp or a random name would make the same input give other bytes.
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "0", "LC_ALL": "C"}
    return subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(tool: subprocess.Popen[str], *, what: str) -> None:
    """Wait for a tool. Raises `TargetError` with the first line of what it complained about."""
    try:
        _, complaint = tool.communicate()
    except BaseException:
        stop(tool)
        raise
    if tool.returncode:
        lines = complaint.splitlines()
        said = [line for line in lines if "undefined reference" in line or "error:" in line.lower()] or lines
        command = os.fsdecode(tool.args[0]) if isinstance(tool.args, list | tuple) else "it"
        raise TargetError(f"{what} failed: {command}: {(said or ['no message'])[0].strip()}")


def stop(tool: subprocess.Popen[str]) -> None:
    """End a tool whose work is not wanted any more, where it has not ended."""
    with tool:
        tool.kill()
