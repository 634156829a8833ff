"""What an artifact says of itself: `manifest.json`."""

from __future__ import annotations

import hashlib
import json
import os
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from ....errors import TargetError
from ....storage.plain_file import open_plain, read_text
from ....storage.workspace import files as files_of
from ..cpu import features
from ..cpu.machines import of_llvm
from ..cpu.system import API, PAGE

if TYPE_CHECKING:
    from ....ir.graph import Graph
    from ..cpu.machine import Machine

NAME = "manifest.json"
SCHEMA = "optc.library/1"
_LISTED = frozenset({".so", ".bin", ".cl", ".metal", ".wgsl"})
"""Extensions of the files that artifacts are loaded from: each of them is listed with its digest."""
_PLAIN = frozenset(f"{string.ascii_letters}{string.digits}._-")


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output as the user knows it: sizes are numbers, or names where they are open."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


def document(
    graph: Graph, spec: str, machine: Machine, inputs: Sequence[Port], outputs: Sequence[Port], compiler: str
) -> dict[str, Any]:
    """The manifest without the digests of the files. `passes` counts the nodes that each pass made or changed."""
    passes = Counter(name for node in graph.walk() for name in node.origin.passes)
    flags = " ".join(machine.flags)
    # All that LLVM may use, whether it is named or stands behind the name of the CPU.
    used = features.listed(of_llvm(machine.triple, machine.cpu, machine.features), machine.triple)
    android = machine.system == "bionic"
    kit = f"{machine.triple.replace('-unknown', '')}{API}-clang++ -static-libstdc++"
    there = kit if android else f"{machine.compiler} {flags}"
    return {
        "schema": SCHEMA,
        "target": spec,
        "machine": {
            "triple": machine.triple,
            "cpu": machine.cpu,
            "features": list(used),
            **({"android_api": API, "page_size": PAGE} if android else {}),
        },
        "inputs": [_port(port) for port in inputs],
        "outputs": [_port(port) for port in outputs],
        "passes": dict(sorted(passes.items())),
        "versions": {"compiler": compiler, **{name: _version(name) for name in ("optc", "apache-tvm")}},
        "commands": {
            "build": " ".join(f"{there} -std=c++17 -O2 runner.cc ./model.so -o runner".split()),
            "run": " ".join(["./runner", "--out", "outputs", *(f"inputs/{name}" for name in file_names(inputs))]),
        },
    }


def file_names(listed: Sequence[Port]) -> list[str]:
    """The files that hold tensors: their names as far as any file system takes them, each once; as `runner.cc` says."""
    names: list[str] = []
    used: set[str] = set()
    for index, port in enumerate(listed):
        raw = "".join(char if char in _PLAIN else "_" * len(char.encode()) for char in port.name)[:100]
        name = f"_{raw}" if not raw or raw[0] in ".-" else raw
        if name.lower() in used:
            name = f"{name}-{index}"
        used.add(name.lower())
        names.append(f"{name}.npy")
    return names


def write(folder: str, document: dict[str, Any]) -> None:
    """Write the manifest of the files that are in `folder`, with the digest of each."""
    files = {}
    for name in files_of(folder):
        with open(os.path.join(folder, name), "rb") as file:
            files[name] = hashlib.sha256(file.read()).hexdigest()
    with open(os.path.join(folder, NAME), "w", encoding="utf-8", newline="\n") as text:
        json.dump({**document, "files": files}, text, indent=2, ensure_ascii=True)
        text.write("\n")


def read(folder: str, called: str = "") -> dict[str, Any]:
    """The manifest of an artifact, which messages name as it is `called` where that is not its folder.

    Raises `TargetError` where there is none, or a file is not what it says.
    """
    called = called or folder
    path, place = os.path.join(folder, NAME), os.path.join(called, NAME)
    try:
        document = json.loads(read_text(path))
        schema = document["schema"]
    except FileNotFoundError:
        raise TargetError(f"{called} is no artifact of a library target: it has no {NAME}") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TargetError(f"{place} cannot be read: {error}; build the artifact again") from error
    if schema != SCHEMA:
        raise TargetError(f"{place} is of form {schema}, and this version reads {SCHEMA}; build the artifact again")
    if not _whole(document):
        raise TargetError(f"{place} does not say all that it should; build the artifact again")
    for name in sorted(set(os.listdir(folder)) - set(document["files"]) - {NAME}):
        if os.path.splitext(name)[1] in _LISTED:
            place = os.path.join(called, name)
            raise TargetError(f"{place} is nothing that {NAME} answers for; build the artifact again")
    for name, digest in document["files"].items():
        try:
            with open_plain(os.path.join(folder, name)) as data:
                if hashlib.file_digest(data, "sha256").hexdigest() == digest:
                    continue
        except OSError:
            pass
        raise TargetError(f"{os.path.join(called, name)} is missing or not what {NAME} says; build the artifact again")
    result: dict[str, Any] = document
    return result


def listed(folder: str) -> set[str]:
    """The names in `folder` that its manifest answers for, its own among them; none where it has no manifest."""
    try:
        document = json.loads(read_text(os.path.join(folder, NAME)))
        if document["schema"] != SCHEMA:
            return set()
        return {NAME, *document["files"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()


def _whole(document: dict[str, Any]) -> bool:
    """Whether a manifest says what is needed to run the artifact."""
    try:
        listed = ports([*document["inputs"], *document["outputs"]])
        machine = document.get("machine", {"triple": "", "features": []})  # what is only source names none
        words = [document["target"], machine["triple"], *machine["features"]]
        words += [word for pair in document["files"].items() for word in pair]
        words += [word for port in listed for word in (port.name, np.dtype(port.dtype).str)]
    except (KeyError, TypeError, AttributeError):
        return False
    return all(isinstance(word, str) for word in words) and all(
        os.path.basename(name) == name for name in document["files"]
    )


def ports(entries: Sequence[dict[str, Any]]) -> tuple[Port, ...]:
    """Inputs or outputs as the manifest lists them."""
    import ml_dtypes  # noqa: F401 - which gives numpy the names of types that it lacks

    return tuple(Port(one["name"], one["dtype"], tuple(one["shape"])) for one in entries)


def _port(port: Port) -> dict[str, Any]:
    return {"name": port.name, "dtype": port.dtype, "shape": list(port.shape)}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
