"""Converting a graph to another default-domain opset.

The conversion itself is onnx's `version_converter`; what is ours is keeping it away from the weights: constants above a
few kilobytes are handed to it as graph inputs, so memory does not grow with the model.
"""

from __future__ import annotations

import dataclasses

from ...errors import ModelError
from ..graph import Graph
from ..names import unique_names
from ..tensor import Tensor
from ..types import DType, TensorType
from .old_resize import lift_resize

_SMALL = 4096
"""Bytes up to which the converter sees a constant: adapters read shapes, axes, pads and scales, never weights."""


_UNKNOWN_TO_ONNX = ("LayerNormalization", "SimplifiedLayerNormalization", "ThresholdedRelu")
"""Operators that runtimes have in opsets where onnx has none, and that are the same in every one."""
_HIDDEN = "optc.hidden"
"""A domain of other people's operators, which the converter leaves alone."""


def convert(graph: Graph, version: int) -> None:
    """Rewrite `graph` in place for default-domain opset `version`.

    Raises `ModelError` naming the operator where onnx has no adapter for it, or none that keeps what it answers.
    """
    if graph.opset() == version:
        return
    import onnx.version_converter

    from .reader import from_proto
    from .writer import to_proto

    shell = graph.clone()
    for node in list(shell.walk()):
        if node.domain:
            continue
        if node.op in _UNKNOWN_TO_ONNX:
            node.domain = _HIDDEN
        elif node.op in ("Resize", "Upsample") and graph.opset() < 11 <= version:
            lift_resize(node, graph.opset(), _HIDDEN)
    shell.opsets[_HIDDEN] = 1
    external: dict[str, tuple[Tensor, str]] = {}
    interface = len(shell.inputs)
    names = {value.name for body in shell.graphs() for value in (*body.inputs, *body.constants)}
    for value in tuple(shell.constants):
        if value.constant is not None and value.constant.nbytes > _SMALL:
            name = f"optc_weight_{len(external)}"
            while name in names:
                name += "_"
            external[name] = (value.constant, value.name)
            stand_in = shell.add_input(name, TensorType(value.constant.dtype, value.constant.shape))
            value.replace_uses(stand_in)
            shell.remove(value)
    written = unique_names(shell)
    origins = {written[value]: node.origin for node in shell.walk() for value in node.outputs if value in written}
    try:
        converted = from_proto(onnx.version_converter.convert_version(to_proto(shell), version))
    except (RuntimeError, onnx.version_converter.ConvertError) as error:
        line = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        line = _ended(shell, version) or line.rpartition(" failed: ")[2]  # before that is a line of onnx's own code
        raise ModelError(
            f"the model is at opset {graph.opset()} and cannot be converted to opset {version}: {line}"
        ) from error
    for index in reversed(range(interface, len(converted.inputs))):
        stand_in = converted.inputs[index]
        tensor, hint = external[stand_in.name]
        stand_in.replace_uses(converted.constant(tensor, hint))
        converted.remove_input(index)
    for node in converted.walk():
        if node.domain == _HIDDEN:
            node.domain = ""
        # Old IR versions do not say in the file what nodes were made from, which overrides go by; who has the name of
        # what it was made from needs no more.
        origin = next((origins[value.name] for value in node.outputs if value.name in origins), node.origin)
        node.origin = node.origin if node.name in origin.nodes else origin
    converted.opsets.pop(_HIDDEN, None)
    converted.header, converted.extra = graph.header, graph.extra
    converted.functions = dict(shell.functions)
    graph.become(converted)


def _ended(graph: Graph, version: int) -> str:
    """Why an operator of `graph` keeps it from `version`: experimental ones (Affine, ScaledTanh, Crop) ended at opset
    10, and onnx's converter tells of them in a line of its own code. "" where there is none."""
    from onnx import defs

    for node in graph.walk():
        if not node.domain and not defs.has(node.op, max_inclusive_version=version):
            return f"{node.op} node '{node.label}' is an operator that later opsets do not have; write it in others"
    return ""


def lower(graph: Graph, max_opset: int, max_ir_version: int) -> list[str]:
    """Bring `graph` down to what a runtime loads, and say what was changed; a graph it loads already stays as it is.

    The IR version is raised where the opset or the graph's features need it. Raises `ModelError` where the graph needs
    more than the runtime has.
    """
    said = []
    opset = graph.opset()
    if opset > max_opset:
        convert(graph, max_opset)
        said.append(f"opset {opset} to {max_opset}")
    version = graph.header.ir_version
    needed = max(_ir_version_for(graph), min(version, max_ir_version))
    if needed > max_ir_version:
        raise ModelError(
            f"the model needs ONNX IR version {needed}, and the installed onnxruntime loads at most {max_ir_version}; "
            "upgrade it: pip install -U onnxruntime"
        )
    if needed != version:
        said.append(f"IR version {version} to {needed}")
        graph.header = dataclasses.replace(graph.header, ir_version=needed)
    return said


_IR_VERSION_OF_DTYPE = {
    **{d: 9 for d in DType if d.name.startswith("FLOAT8E4") or d.name.startswith("FLOAT8E5")},
    DType.INT4: 10,
    DType.UINT4: 10,
    DType.FLOAT4E2M1: 11,
    DType.FLOAT8E8M0: 12,
    DType.INT2: 13,
    DType.UINT2: 13,
    DType.FLOAT6E2M3: 14,
    DType.FLOAT6E3M2: 14,
}
"""The IR version that brought each element type, from the version notes in onnx's own definition file."""


def _ir_version_for(graph: Graph) -> int:
    """The lowest IR version that can hold the graph: 4, which parts constants from inputs, or what its parts need."""
    from onnx.helper import OP_SET_ID_VERSION_MAP

    needed = [4]
    needed += [OP_SET_ID_VERSION_MAP.get((domain or "ai.onnx", number), 4) for domain, number in graph.opsets.items()]
    needed += [_IR_VERSION_OF_DTYPE.get(v.dtype, 4) for g in graph.graphs() for v in g.constants if v.dtype is not None]
    if graph.functions:
        needed.append(8)
    return max(needed)
