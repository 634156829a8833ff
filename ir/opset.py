"""Converting a graph to another default-domain opset.

The conversion itself is onnx's `version_converter`; what is ours is keeping it away from the weights: constants above a
few kilobytes are handed to it as graph inputs, so memory does not grow with the model.
"""

from __future__ import annotations

from ..errors import ModelError
from .graph import Graph
from .types import TensorType

_SMALL = 4096
"""Bytes up to which the converter sees a constant: adapters read shapes, axes, pads and scales, never weights."""


def convert(graph: Graph, version: int) -> None:
    """Rewrite `graph` in place for default-domain opset `version`.

    Raises `ModelError` naming the operator where onnx has no adapter for it.
    """
    if graph.opset() == version:
        return
    import onnx.version_converter

    from .reader import from_proto
    from .writer import to_proto

    shell = graph.clone()
    held = {}
    interface = len(shell.inputs)
    names = {value.name for body in shell.graphs() for value in (*body.inputs, *body.constants)}
    for value in tuple(shell.constants):
        if value.constant is not None and value.constant.nbytes > _SMALL:
            name = f"optc_weight_{len(held)}"
            while name in names:
                name += "_"
            held[name] = (value.constant, value.name)
            stand_in = shell.add_input(name, TensorType(value.constant.dtype, value.constant.shape))
            value.replace_uses(stand_in)
            shell.remove(value)
    try:
        converted = from_proto(onnx.version_converter.convert_version(to_proto(shell), version))
    except (RuntimeError, onnx.version_converter.ConvertError) as error:
        line = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"the model is at opset {graph.opset()} and cannot be converted to opset {version}: {line}"
        ) from error
    for index in reversed(range(interface, len(converted.inputs))):
        stand_in = converted.inputs[index]
        tensor, hint = held[stand_in.name]
        stand_in.replace_uses(converted.constant(tensor, hint))
        converted.remove_input(index)
    converted.header, converted.extra = graph.header, graph.extra
    converted.functions = dict(shell.functions)
    graph.become(converted)


def ir_version_for(graph: Graph) -> int:
    """The lowest IR version that can hold the graph's opset, as onnx's release table has it (at least 4)."""
    import onnx.helper

    domains = {"": "ai.onnx"}
    known = {
        domain: version
        for domain, version in graph.opsets.items()
        if (domains.get(domain, domain), version) in onnx.helper.OP_SET_ID_VERSION_MAP
    }
    if not known:
        return 4
    ids = [onnx.helper.make_opsetid(domains.get(domain, domain), version) for domain, version in known.items()]
    return max(4, onnx.helper.find_min_ir_version_for(ids, ignore_unknown=True))
