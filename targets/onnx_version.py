"""Bringing a graph to an opset and an IR version that a runtime loads."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..errors import TargetError
from ..passes.base import Context, Pass, Report, option

if TYPE_CHECKING:
    from ..ir.graph import Graph


@dataclass(frozen=True, slots=True)
class OnnxVersion(Pass):
    """Lowers the default opset and the IR version where they are newer than the runtime; leaves older ones alone.

    The IR version is raised only as far as the opset needs it, so that older runtimes load what they could load before.
    """

    name: ClassVar[str] = "onnx-version"

    max_opset: int = option(26, "newest default-domain opset the runtime loads", low=1)
    max_ir_version: int = option(13, "newest IR version the runtime loads", low=3)

    def run(self, graph: Graph, ctx: Context) -> Report:
        from ..ir.opset import convert, ir_version_for

        report = Report()
        opset = graph.opset()
        if opset > self.max_opset:
            convert(graph, self.max_opset)
            report.rewrote(f"opset {opset} to {self.max_opset}")
        needed = max(ir_version_for(graph), min(graph.header.ir_version, self.max_ir_version))
        if needed > self.max_ir_version:
            raise TargetError(
                f"the model needs ONNX IR version {needed}, and the installed onnxruntime loads at most "
                f"{self.max_ir_version}; upgrade it: pip install -U onnxruntime"
            )
        if needed != graph.header.ir_version:
            report.rewrote(f"IR version {graph.header.ir_version} to {needed}")
            graph.header = dataclasses.replace(graph.header, ir_version=needed)
        return report
