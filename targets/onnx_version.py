"""Bringing a graph to an opset and an IR version that a runtime loads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

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
        from ..ir.onnx.opset import lower

        report = Report()
        for change in lower(graph, self.max_opset, self.max_ir_version):
            report.rewrote(change)
        return report
