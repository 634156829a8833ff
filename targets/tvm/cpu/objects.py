"""The object code of the runtime, which is the same in every library for one machine: compiled once and kept.

It is known by the digest of the sources, the compiler and what that is told, and kept in the user's cache, where any
number of processes may read and write it, and in this process. Without a cache it is compiled by each process.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence

from ....storage.fingerprint import Fingerprint, file_digest
from ....storage.store import Store, cache_folder
from ....storage.workspace import Workspace
from . import toolchain
from .machine import Machine


def place(machine: Machine, sources: Sequence[str], folder: str) -> tuple[str, ...]:
    """Put the object files of `sources`, names in `toolchain.SOURCES`, in `folder`; returns their names.

    Raises `TargetError` where the compiler is missing or fails.
    """
    compiler = toolchain.compiler(machine)
    names = []
    for source in sources:
        names.append(f"{os.path.splitext(source)[0]}.o")
        with open(os.path.join(folder, names[-1]), "wb") as file:
            file.write(_object(compiler, version(compiler), (*toolchain.FLAGS, *machine.flags), source, cache_folder()))
    return tuple(names)


@functools.cache
def version(compiler: str) -> str:
    """What a compiler says of itself, in one line."""
    said = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    return (said.splitlines() or ["unknown"])[0]


@functools.lru_cache(maxsize=32)
def _object(compiler: str, version: str, flags: tuple[str, ...], source: str, cache: str | None) -> bytes:
    headers = sorted(name for name in os.listdir(toolchain.SOURCES) if name.endswith(".h"))
    digests = [file_digest(os.path.join(toolchain.SOURCES, name)) for name in (source, *headers)]

    def make(work: str) -> None:
        for name in (source, *headers):
            shutil.copyfile(os.path.join(toolchain.SOURCES, name), os.path.join(work, name))
        toolchain.run([compiler, *flags, "-c", source, "-o", "out.o"], folder=work, what="compiling the runtime")

    return kept(("object", compiler, version, *flags, source, *headers, *digests), make, cache)


def kept(words: tuple[str, ...], make: Callable[[str], None], cache: str | None = None) -> bytes:
    """The file `out.o` that `make` writes into an empty folder, kept in the cache under all that it depends on."""
    cache = cache_folder() if cache is None else cache
    store = None if cache is None else Store(cache)
    key = Fingerprint(*words).text
    content = None if store is None else store.get(key)
    if content is None:
        with Workspace() as work:
            make(work)
            with open(os.path.join(work, "out.o"), "rb") as file:
                content = file.read()
        if store is not None:
            store.put(key, content)
    return content
