"""Float operators between integer ones, read from the graph as ONNX Runtime has optimised it.

Whether QuantizeLinear and DequantizeLinear around an operator became an integer kernel is the runtime's decision; its
optimised graph tells. An island is a float operator that integer operators come before and after: there codes are
decoded, computed on in float and encoded again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import OutputError, TargetError
from ..ir.ops import CODINGS, MOVES
from ..storage.workspace import Workspace

if TYPE_CHECKING:
    import onnx

    from ..ir.graph import Graph

_INTEGER = (
    "QLinear", "QGemm", "QAttention", "QMoE", "QEmbed", "MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul",
    "DynamicQuantizeLSTM", "QOrdered",
)  # fmt: skip
"""How the names of the runtime's integer kernels begin."""
_BORDERS = CODINGS | {"DynamicQuantizeLinear"}
_LAYOUT = frozenset({"ReorderInput", "ReorderOutput"})
_HAS_KERNEL = frozenset(
    {
        "Add", "AveragePool", "Conv", "ConvTranspose", "Gemm", "GlobalAveragePool", "LeakyRelu", "MatMul",
        "Mul", "Sigmoid", "Softmax", "Where",
    }
)  # fmt: skip
_LIMIT = 1 << 30
"""Bytes of constants above which a graph is not looked at: the optimised graph is a copy of it."""


@dataclass(frozen=True, slots=True)
class Island:
    """`name` and `op` are the runtime's own; `why` says what kept it float, as far as that is known."""

    name: str
    op: str
    why: str


def islands(graph: Graph) -> tuple[Island, ...]:
    """The float operators of `graph` between integer kernels, in the order in which they run.

    Empty for a graph of more than 1 GiB. Raises `TargetError` where the runtime does not take the graph.
    """
    if sum(v.constant.nbytes for g in graph.graphs() for v in g.constants if v.constant is not None) > _LIMIT:
        return ()
    return tuple(_find(optimised(graph)))


def optimised(graph: Graph) -> onnx.GraphProto:
    """What ONNX Runtime makes of `graph` on this CPU. Raises `TargetError` where it does not take it, and `OutputError`
    where it cannot write what it made."""
    import onnx

    from ..ir.onnx.writer import to_bytes

    with Workspace() as folder:
        path = os.path.join(folder, "optimised.onnx")
        try:
            _open(to_bytes(graph), path)
        except Exception as error:  # ONNX Runtime's errors share no base class
            try:
                _open(to_bytes(graph))
            except Exception:
                raise TargetError(f"ONNX Runtime does not take graph '{graph.name}': {error}") from error
            where = os.path.dirname(folder)
            raise OutputError(
                f"ONNX Runtime cannot write in {where}: make room there, or name another in TMPDIR"
            ) from error
        return onnx.load(path).graph


def no_room(folder: str) -> OutputError:
    """What to say where ONNX Runtime could not write into a temporary `folder`."""
    where = os.path.dirname(folder)
    return OutputError(f"ONNX Runtime cannot write in {where}: make room there, or name another folder in TMPDIR")


def _open(model: bytes, path: str = "") -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = path
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def is_integer(op: str) -> bool:
    return op.startswith(_INTEGER)


def _find(graph: onnx.GraphProto) -> list[Island]:
    floats = _floats(graph)
    after: set[str] = set()
    for node in graph.node:
        if is_integer(node.op_type) or any(name in after for name in node.input):
            after.update(node.output)
    before: set[str] = set()
    for node in reversed(graph.node):
        if is_integer(node.op_type) or any(name in before for name in node.output):
            before.update(name for name in node.input if name)
    islands = []
    for node in graph.node:
        between = any(name in after for name in node.input) and any(name in before for name in node.output)
        skipped = is_integer(node.op_type) or node.op_type in _BORDERS or node.op_type in _LAYOUT
        if between and not skipped and any(floats.get(name, False) for name in node.output):
            islands.append(Island(node.name or node.output[0], node.op_type, _why(node.op_type)))
    return islands


def _why(op: str) -> str:
    op = op.removeprefix("Fused")
    if op in MOVES:
        return "it moves what is float already"
    if op in _HAS_KERNEL:
        return f"what {op} reads or makes here are not codes that its integer kernel takes"
    return f"ONNX Runtime has no integer kernel for {op}"


def _floats(graph: onnx.GraphProto) -> Mapping[str, bool]:
    """Whether values are float. The file tells only some types; the others are those of what made them."""
    import onnx

    number = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    is_float = {
        v.name: v.type.tensor_type.elem_type in number for v in (*graph.value_info, *graph.input, *graph.output)
    }
    is_float.update((t.name, t.data_type in number) for t in graph.initializer)
    for node in graph.node:
        for name in node.output:
            if name not in is_float:
                is_float[name] = _makes_float(node, is_float)
    return is_float


def _makes_float(node: onnx.NodeProto, is_float: Mapping[str, bool]) -> bool:
    if node.op_type in ("Shape", "Size", "NonZero", "ArgMax", "ArgMin") or node.op_type == "QuantizeLinear":
        return False
    if node.op_type == "Cast":
        return any(a.name == "to" and a.i in (1, 10, 16) for a in node.attribute)
    if node.op_type in ("DequantizeLinear", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"):
        return True
    if is_integer(node.op_type):
        return False
    return bool(node.input) and is_float.get(node.input[0], False)
