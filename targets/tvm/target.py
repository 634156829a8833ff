"""What the targets of TVM have in common."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...errors import TargetError
from ...ir.types import DType
from ...passes.base import TargetFacts
from ...passes.pipeline import Pipeline
from ...passes.spec import text_of
from ..base import Artifact, Target

if TYPE_CHECKING:
    from ...ir.graph import Graph
    from ...runtime.session import Runnable
    from .machine import Machine


@dataclass(frozen=True, slots=True)
class LibraryTarget(Target):
    """Emits a shared library that needs nothing else, with a header, a runner and a manifest, as one .tar or folder."""

    folder: ClassVar[bool] = True
    emulated: ClassVar[bool] = False

    def machine(self) -> Machine:
        """The CPU that is built for. Needs TVM where it is this one's."""
        raise TypeError(f"{type(self).__name__} names no machine")

    def archived(self) -> bool:
        """Whether a static archive is asked for beside the shared library."""
        return False

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
        from . import toolchain
        from .build import require_tvm
        from .run import require_emulator

        require_tvm()
        machine = self.machine()
        toolchain.compiler(machine)
        if run and self.emulated:
            try:
                require_emulator(machine)
            except TargetError as error:
                raise TargetError(f"{error}, or build without running the result: --no-check") from error

    def legalisation(self) -> Pipeline:
        from .legal import FloatWeights

        return Pipeline((FloatWeights(integer=True),))

    def emit(self, graph: Graph, path: str) -> Artifact:
        from . import artifact
        from .build import build, require_tvm

        require_tvm()
        with tempfile.TemporaryDirectory(prefix="optc-") as folder:
            build(graph, self.machine(), text_of(self.name, self), folder, {}, archive=self.archived())
            artifact.pack(folder, path)
        return Artifact(path, (path,), os.path.getsize(path))

    def check_place(self, path: str) -> None:
        from . import artifact

        if not path.endswith(".tar"):
            artifact.check_folder(path)

    def place(self, staged: Artifact, path: str) -> Artifact:
        from . import artifact

        if path.endswith(".tar"):
            os.replace(staged.path, path)
        else:
            artifact.place_folder(staged.path, path)
        return Artifact(path, (path,), staged.bytes)

    def open(self, path: str, *, threads: int = 0) -> Runnable:
        from .run import Emulated, Library

        return Emulated(path, self.machine(), threads=threads) if self.emulated else Library(path, threads=threads)
