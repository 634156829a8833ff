"""The target `onnx`: an ONNX file for the ONNX Runtime that is installed here."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..errors import TargetError
from ..ir.types import DType
from ..passes.base import TargetFacts, option
from ..passes.pipeline import Pipeline
from ..passes.spec import text_of
from ..runtime import cpu
from .base import Artifact, Target

if TYPE_CHECKING:
    from ..ir.graph import Graph, Node
    from ..runtime.session import Runnable


@dataclass(frozen=True, slots=True)
class OnnxTarget(Target):
    """Emits ONNX at an opset and IR version that the installed runtime loads."""

    name: ClassVar[str] = "onnx"
    help: ClassVar[str] = "an ONNX file for ONNX Runtime"

    cpu: Literal["here", "x86", "x86-vnni", "arm"] = option(
        "here", "kind of CPU the model will run on: its int8 kernels want other forms"
    )

    @property
    def facts(self) -> TargetFacts:
        opset, ir_version = newest_loadable()
        x86 = cpu.is_x86() if self.cpu == "here" else self.cpu != "arm"
        saturating = not cpu.has_int8_dot_product() if self.cpu == "here" else self.cpu == "x86"
        return TargetFacts(
            name=text_of(self.name, self),
            channel_alignment=cpu.float_lanes() if self.cpu == "here" else 16 if self.cpu == "x86-vnni" else 8,
            activation_dtype=DType.UINT8 if x86 else DType.INT8,
            weight_dtype=DType.INT8,
            integer_qdq=True,
            saturating_int8=x86 and saturating,
            sparse_initializers=True,
            max_opset=opset,
            max_ir_version=ir_version,
            measurable=self.cpu == "here",
            contrib_ops=True,
            depthwise_lanes=16 if x86 else 1,
            input_lanes=4 if x86 else 1,
        )

    def legalisation(self) -> Pipeline:
        from .load_time import LoadTime
        from .onnx_version import OnnxVersion
        from .residual_norm import ResidualNorm

        opset, ir_version = newest_loadable()
        return Pipeline((OnnxVersion(opset, ir_version), ResidualNorm(), LoadTime()))

    def open(self, path: str, *, threads: int = 0) -> Runnable:
        from ..runtime.session import Session

        return Session.open(path, threads=threads, exact=self.cpu != "here")

    def emit(self, graph: Graph, path: str) -> Artifact:
        from ..ir.onnx.writer import save

        short = self._in_few_bytes(graph)
        files = save(short, path)
        size = sum(os.path.getsize(file) for file in files)
        return Artifact(path, files, size, sum(1 for _ in short.walk()))

    def _in_few_bytes(self, graph: Graph) -> Graph:
        """A quantized graph as it is written: the same numbers and kernels, but not the names that reports go by."""
        from ..ir.onnx.writer import size
        from .packed import pack
        from .qlinear import fuse_convolutions
        from .small_files import shorten

        if not any(node.op == "DequantizeLinear" or _is_decoder(node) for node in graph):
            return graph
        short = graph.clone()
        # Models for other CPUs are judged by what they say in floats, which QLinearConv does not.
        first = (fuse_convolutions,) if self.cpu == "here" else ()
        for change in (*first, pack, shorten):
            before = short.clone()
            change(short)
            if size(short) > size(before):
                short = before
        return short

    def place(self, staged: Artifact, path: str) -> Artifact:
        from ..ir.onnx.writer import data_files, discard

        old = data_files(path)
        placed = super(OnnxTarget, self).place(staged, path)
        discard(old, placed.files)
        return placed


def _is_decoder(node: Node) -> bool:
    """Whether a node reads a constant that a pass stored in few bits, to be computed with in float."""
    source = node.input(0)
    stored = source is not None and source.constant is not None
    return node.op == "Cast" and not node.domain and stored and "quant" in node.origin.passes


@functools.cache
def newest_loadable() -> tuple[int, int]:
    """The newest default-domain opset and IR version that the installed ONNX Runtime loads, found by trying.

    No interface of the runtime tells; a model of one Identity is tried, newest first. Raises `TargetError` where the
    runtime loads none at all.
    """
    import onnx
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4

    def loads(opset: int, ir_version: int) -> bool:
        value = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("Identity", ["x"], ["y"])],
            "probe",
            [value("x", onnx.TensorProto.FLOAT, [1])],
            [value("y", onnx.TensorProto.FLOAT, [1])],
        )
        model = onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=ir_version
        )
        try:
            ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception:  # the runtime has no error class of its own for this
            return False
        return True

    ir_version = next((v for v in range(int(onnx.IR_VERSION), 2, -1) if loads(13, v)), 0)
    opset = next((v for v in range(onnx.defs.onnx_opset_version(), 6, -1) if loads(v, ir_version)), 0)
    if not opset:
        raise TargetError("the installed onnxruntime loads no ONNX model at all; reinstall it: pip install onnxruntime")
    return opset, ir_version
