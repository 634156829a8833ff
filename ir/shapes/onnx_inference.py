"""ONNX's own inference for one node: the fall-back for operators without a shape rule here."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from ..attributes import Attribute
from ..graph import Graph, Value
from ..tensor import ArrayTensor
from ..types import Dim, DType, OptionalType, SequenceType, TensorType, Type
from .rules.call import Call, Fact
from .symbols import Size, Sym, symbol

_SMALL = 4096
"""Bytes up to which ONNX is shown a constant's data: it reads shapes, axes and pads, never weights."""


def onnx_facts(call: Call) -> list[Fact]:
    """What `onnx.shape_inference` says of the node's outputs, on a model that holds this node alone.

    Nothing is known of an output where ONNX knows nothing, or has no such operator.
    """
    import onnx.defs
    import onnx.shape_inference

    from ..onnx.type_proto import read_type
    from ..onnx.writer import to_proto

    node = call.node
    nothing = [Fact() for _ in node.outputs]
    if not onnx.defs.has(node.op, domain=node.domain) or (node.bodies and node.captures):
        return nothing
    probe = Graph("probe", opsets={node.domain: call.version, "": call.opset})
    inputs: list[Value | None] = []
    for index, fact in enumerate(call.facts):
        constant = None if fact is None else _constant(fact)
        if fact is None:
            inputs.append(None)
        elif constant is not None:
            inputs.append(probe.constant(constant, f"i{index}"))
        else:
            inputs.append(probe.add_input(f"i{index}", type_of(fact, names=False)))
    attributes = {
        name: Attribute(attribute.kind, attribute.value.clone()) if isinstance(attribute.value, Graph) else attribute
        for name, attribute in node.attributes.items()
    }
    twin = probe.add(node.op, inputs, attributes, outputs=len(node.outputs), domain=node.domain)
    for index, value in enumerate(twin.outputs):
        probe.add_output(value, f"o{index}")
    model = to_proto(probe)
    try:
        model = onnx.shape_inference.infer_shapes(model, check_type=False, strict_mode=False, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return nothing
    # ONNX invents names for what it leaves open, the same ones for every node: only names that went in are known.
    names = {dim for value in probe.inputs for dim in value.shape or () if isinstance(dim, str)}
    return [fact_of(read_type(output.type), call, names) for output in model.graph.output]


def _constant(fact: Fact) -> ArrayTensor | None:
    if fact.tensor is not None and fact.tensor.nbytes <= _SMALL:
        return ArrayTensor(fact.tensor.numpy(), fact.dtype)
    if fact.data is None or any(isinstance(v, Sym) for v in fact.data.reshape(-1)):
        return None
    return ArrayTensor(np.array(fact.data.tolist(), dtype=fact.dtype.numpy).reshape(fact.data.shape), fact.dtype)


def fact_of(type: Type | None, call: Call, names: Collection[str] | None = None) -> Fact:
    """What a type says, with a fresh unknown for every size that it leaves open.

    `names` marks a type that ONNX inferred from inputs with these names: other names are its inventions, and a size of
    0 is what its arithmetic makes of a name.
    """
    if not isinstance(type, TensorType):
        return Fact(other=type if names is None else _without_names(type))
    if type.shape is None:
        return Fact(type.dtype)
    sizes: list[Size] = []
    for dim in type.shape:
        if dim is None or (names is not None and (dim not in names if isinstance(dim, str) else names and dim == 0)):
            sizes.append(call.fresh())
        else:
            sizes.append(symbol(dim, call.dims) if isinstance(dim, str) else dim)
    return Fact(type.dtype, tuple(sizes))


def _without_names(type: Type | None) -> Type | None:
    if isinstance(type, TensorType) and type.shape is not None:
        return replace(type, shape=tuple(d if isinstance(d, int) else None for d in type.shape))
    if isinstance(type, SequenceType | OptionalType):
        return replace(type, element=_without_names(type.element))
    return type


def type_of(fact: Fact, *, names: bool = True) -> Type | None:
    """The type that states a fact. With `names`, only sizes that a reader of the model can understand are named;
    without, unknowns are told apart by name as well."""
    if fact.other is not None:
        return fact.other
    if fact.dtype is DType.UNDEFINED:
        return None
    if fact.shape is None:
        return TensorType(fact.dtype)
    return TensorType(fact.dtype, tuple(_dim(size, names) for size in fact.shape))


_LONGEST = 48
"""Characters up to which an expression is worth a name."""


def _dim(size: Size, names: bool) -> Dim:
    if isinstance(size, int):
        return size
    text = str(size)
    return None if names and (not size.named or len(text) > _LONGEST) else text
