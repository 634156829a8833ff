"""What the targets of TVM have in common, and those among them that build for a CPU."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...errors import TargetError
from ...ir.types import DType
from ...passes.base import TargetFacts
from ...passes.pipeline import Pipeline
from ...passes.spec import text_of
from ...storage.workspace import Workspace
from ..base import Artifact, Emit, MeasuredTarget, Target

if TYPE_CHECKING:
    from ...ir.graph import Graph
    from ...runtime.session import Runnable
    from ..tuning import Device, Tuned, Tuning
    from .cpu.machine import Machine
    from .remote.run import Remote


@dataclass(frozen=True, slots=True)
class LibraryTarget(Target):
    """Emits a shared library that needs nothing else, with a header, a runner and a manifest, as one .tar or folder."""

    folder: ClassVar[bool] = True

    @abstractmethod
    def machine(self) -> Machine:
        """The machine that is built for. Needs TVM where it is this one's CPU."""

    def check_inputs(self, graph: Graph) -> None:
        from .support import check

        check(graph)

    def packed(self, path: str, build: Callable[[str], object]) -> Artifact:
        """What `build` writes into a folder, as the artifact at `path`."""
        from .artifact.folder import pack
        from .quiet import quiet

        with Workspace() as folder, quiet():
            build(folder)
            pack(folder, path)
        return Artifact(path, (path,), os.path.getsize(path))

    def emitter(self) -> AbstractContextManager[Emit]:
        from .artifact.emitter import emitter

        return emitter(self.emit, self.name)

    def check_place(self, path: str) -> None:
        from .artifact import folder as artifact

        if not path.endswith(".tar"):
            artifact.check_folder(path)

    def place(self, staged: Artifact, path: str) -> Artifact:
        from .artifact import folder as artifact

        if path.endswith(".tar"):
            os.replace(staged.path, path)
        else:
            artifact.place_folder(staged.path, path)
        return Artifact(path, (path,), staged.bytes)


@dataclass(frozen=True, slots=True)
class CpuTarget(LibraryTarget, MeasuredTarget):
    """A library of machine code."""

    emulated: ClassVar[bool] = False

    def checked(self) -> Machine:
        """The CPU that is built for, its name known to LLVM, or as much of it as is known without loading TVM, which
        takes time. Raises `TargetError`."""
        from .cpu.machines import check_cpu
        from .loading import require

        machine = self.machine()
        if machine.cpu:
            require()
            check_cpu(machine.triple, machine.cpu)
        return machine

    @property
    def halves(self) -> bool:
        """Whether numbers of half precision are computed with as they are."""
        return False

    @property
    @abstractmethod
    def archived(self) -> bool:
        """Whether a static archive is asked for beside the shared library."""

    @property
    def facts(self) -> TargetFacts:
        return TargetFacts(
            name=text_of(self.name, self),
            channel_alignment=8,
            activation_dtype=DType.INT8,
            weight_dtype=DType.INT8,
            integer_qdq=True,
            saturating_int8=False,
            sparse_initializers=False,
            max_opset=20,
            # Passes time ONNX Runtime, whose kernels are not those of the library.
            measurable=False,
        )

    def check_ready(self, *, run: bool) -> None:
        from .cpu import toolchain
        from .loading import find

        find()
        machine = self.checked()
        toolchain.compiler(machine)
        if run and self.emulated:
            from .artifact.run import require_emulator

            try:
                require_emulator(machine)
            except TargetError as error:
                raise TargetError(f"{error}, or build without running the result: --no-check") from error

    def legalisation(self) -> Pipeline:
        from .legal.computed_weights import ComputedWeights
        from .legal.legal import FloatWeights, Spread
        from .legal.patches import Patches
        from .legal.primitive import Primitive
        from .legal.rows import LegalRows
        from .legal.widen import Widen

        widen = () if self.halves else (Widen(),)
        return Pipeline(
            (Primitive(), *widen, Spread(), LegalRows(), ComputedWeights(), FloatWeights(integer=True), Patches())
        )

    def check_tuning(self, how: Tuning) -> None:
        from .artifact.run import check_features

        if how.device is not None or not how.seconds:
            return
        if self.emulated:
            raise TargetError(
                f"{self.name} code runs here only under an emulator, whose times tell nothing: tune on a device, --rpc "
                "HOST:PORT, or take what was measured on one, --tune-records FILE without --tune"
            )
        machine = self.machine()
        check_features(machine.features, machine.triple, f"kernels for {text_of(self.name, self)} need")

    def tune(self, graph: Graph, how: Tuning, advance: Callable[[float], None]) -> Tuned:
        from .loading import require

        require()
        from .tuning.model import tune

        return tune(graph, self.machine(), how, advance)

    def emit(self, graph: Graph, path: str, choice: str = "") -> Artifact:
        from .artifact.build import build
        from .loading import require
        from .tuning.choice import TuningChoice

        require()
        machine, tuned = self.machine(), TuningChoice.of(choice) if choice else None
        text, archive = text_of(self.name, self), self.archived
        return self.packed(path, lambda folder: build(graph, machine, text, folder, {}, archive=archive, tuned=tuned))

    def open_on(self, device: Device, paths: Sequence[str], *, threads: int = 0) -> list[Remote]:
        from .remote.connection import Connection
        from .remote.run import Remote

        connection = Connection(device)
        return [Remote(path, connection, threads=threads) for path in paths]

    def open(self, path: str, *, threads: int = 0) -> Runnable:
        from .artifact.run import Emulated, Library

        return Emulated(path, self.machine(), threads=threads) if self.emulated else Library(path, threads=threads)
