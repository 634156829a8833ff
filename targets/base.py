"""What a target is: facts for the passes, the legalisation it needs, and how its artifact is written."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from ..passes.base import TargetFacts
from ..passes.pipeline import Pipeline
from ..passes.spec import check

if TYPE_CHECKING:
    from ..ir.graph import Graph
    from ..runtime.session import Runnable
    from .tuning import Device, Tuned, Tuning
    from .tvm.remote.run import Remote


@dataclass(frozen=True, slots=True)
class Artifact:
    """What emission wrote: the file that a user loads, and every file that belongs to it; `nodes` are those that it
    says the graph has, where it says so."""

    path: str
    files: tuple[str, ...]
    bytes: int
    nodes: int | None = None


Emit: TypeAlias = "Callable[[Graph, str], Artifact]"
"""Writes the artifact of a legal graph to a path."""


@dataclass(frozen=True, slots=True)
class Target(ABC):
    """A place that models are built for. The fields of a subclass are its options."""

    name: ClassVar[str]
    help: ClassVar[str]
    suffix: ClassVar[str] = ".onnx"
    """What the artifact's name ends in where the user gives none."""
    folder: ClassVar[bool] = False
    """Whether the artifact is a folder (unless its name says otherwise)."""

    def __post_init__(self) -> None:
        """Raises `SpecError` for options that the command line would not take either."""
        check(self.name, self)

    @property
    def cannot_run(self) -> str:
        """Why artifacts are not run where they are built, so that the check is left out; empty where they can be."""
        return ""

    @property
    def error(self) -> float:
        """The relative error of what artifacts compute in float32, where that is more than of its own rounding."""
        return 0.0

    @property
    @abstractmethod
    def facts(self) -> TargetFacts:
        """What the passes may ask. May probe the runtime once."""

    def check_ready(self, *, run: bool) -> None:  # noqa: B027 - what is installed with optc needs no look
        """Fail before the work where what the target needs is missing here: to emit, and with `run` to run what it
        emits. Raises `TargetError` naming what to install."""

    def check_inputs(self, graph: Graph) -> None:  # noqa: B027 - most targets take sizes that are open
        """Fail before the work where the target cannot take the inputs or an operator of a graph. Raises
        `TargetError`."""

    def legalisation(self) -> Pipeline:
        """The passes that turn any graph into one this target takes; they run after the user's."""
        return Pipeline()

    @abstractmethod
    def emit(self, graph: Graph, path: str) -> Artifact:
        """Write the artifact of a legal graph, whole or not at all. Raises `OutputError`, `TargetError`."""

    def emitter(self) -> AbstractContextManager[Emit]:
        """`emit` for one graph, made ready, where that takes time, while the caller does something else."""
        return nullcontext(self.emit)

    def open(self, path: str, *, threads: int = 0) -> Runnable:
        """The artifact as its user runs it, here or emulated: an ONNX file unless a subclass says otherwise.

        Raises `TargetError`, naming why, where it cannot run here.
        """
        from ..runtime.session import Session

        return Session.open(path, threads=threads)

    def check_place(self, path: str) -> None:  # noqa: B027 - most artifacts are plain files, which need no more
        """Fail before the work where the artifact cannot be put at `path`. Raises `OutputError`."""

    def place(self, staged: Artifact, path: str) -> Artifact:
        """Move the files of an artifact to where `path` is, the one that names the others last."""
        folder = os.path.dirname(path)
        moved = [os.path.join(folder, os.path.basename(file)) for file in staged.files]
        for source, to in sorted(zip(staged.files, moved, strict=True), key=lambda pair: pair[0] == staged.path):
            os.replace(source, to)
        return Artifact(path, tuple(moved), staged.bytes, staged.nodes)


@dataclass(frozen=True, slots=True)
class MeasuredTarget(Target):
    """A target whose kernels can be tuned by measuring them, and whose artifacts run on devices."""

    @abstractmethod
    def check_tuning(self, how: Tuning) -> None:
        """Fail before the work where kernels cannot be measured as is asked. Raises `TargetError`."""

    @abstractmethod
    def tune(self, graph: Graph, how: Tuning, advance: Callable[[float], None]) -> Tuned:
        """Measure kernels of a legal graph and choose among them; `advance` is told the seconds that pass."""

    @abstractmethod
    def emit(self, graph: Graph, path: str, choice: str = "") -> Artifact:
        """As of any target, with what tuning chose."""

    @abstractmethod
    def open_on(self, device: Device, paths: Sequence[str], *, threads: int = 0) -> list[Remote]:
        """Artifacts side by side on a device, where they are timed. Raises `TargetError`."""
