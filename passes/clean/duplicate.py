"""Common subexpressions.

    y = f(x), z = f(x)   ->   y = f(x), and z's readers read y

Exact because an operator is a function of its inputs and attributes. Constants count as the same input when their
elements are the same. Does not fire for random operators (two draws are two draws), for Dropout in training, for
operators outside the default domain (they may hold state), for nodes with bodies, across graphs, and where both
results are graph outputs (one would have to be copied to the other).

Equal constants are also stored once where that cannot tie together what a later pass wants apart: integers,
booleans and strings (shapes, axes, indices), and floats of at least `TIED` bytes (an embedding exported twice).
Small vectors of floats stay apart: two biases that happen to be equal are still two parameters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable

import numpy as np

from ...ir.attributes import Attribute
from ...ir.graph import Graph
from ...ir.node import Node, Value
from ...ir.ops import RANDOM
from ...ir.tensor import SparseTensor, Tensor
from ...ir.types import DType
from .fill import compact, core, tensor_bytes
from .rewriter import is_plain

TIED = 1 << 16
_COMPARED = 1 << 12
"""Bytes up to which two constants that are different objects are compared to find equal nodes."""


def merge_nodes(graph: Graph, *, of_constants: bool = False) -> int:
    """Merge equal nodes of `graph` and of its bodies, or only those that read nothing but constants; returns how many
    went."""
    merged = 0
    for each in graph.graphs():
        seen: dict[Hashable, Node] = {}
        contents: dict[Value, Hashable] = {}
        for node in each:
            if not is_plain(node) or node.op in RANDOM or (node.attributes and node.bodies):
                continue
            if of_constants and any(v is None or v.constant is None for v in node.inputs):
                continue
            key = (
                node.op,
                len(node.outputs),
                tuple(None if v is None else _input_key(v, contents) for v in node.inputs),
                tuple(sorted((k, _attribute_key(a)) for k, a in node.attributes.items())) if node.attributes else (),
            )
            first = seen.setdefault(key, node)
            if first is node or any(a.is_output and b.is_output for a, b in zip(first.outputs, node.outputs)):
                continue
            for old, new in zip(node.outputs, first.outputs, strict=True):
                old.replace_uses(new)
            each.remove(node)
            merged += 1
    return merged


def merge_constants(graph: Graph) -> int:
    """Store equal constants of each graph once; returns how many went."""
    merged = 0
    for each in graph.graphs():
        groups: dict[Hashable, list[Value]] = {}
        for value in each.constants:
            tensor = value.constant
            if tensor is None or isinstance(tensor, SparseTensor) or not (tensor.nbytes >= TIED or _is_index(tensor)):
                continue
            groups.setdefault((tensor.dtype, tensor.shape), []).append(value)
        for look in (_sample, _content):  # weights are read in full only where a sample of them is the same
            groups = _split(groups.values(), look)
        for first, *others in groups.values():
            for value in others:
                value.replace_uses(first)
                each.remove(value)
                merged += 1
    return merged


def _split(groups: Iterable[list[Value]], look: Callable[[Tensor], Hashable]) -> dict[Hashable, list[Value]]:
    """Groups of more than one value, divided by what `look` finds."""
    classes: dict[Hashable, list[Value]] = {}
    for index, group in enumerate(groups):
        for value in group if len(group) > 1 else ():
            assert value.constant is not None
            classes.setdefault((index, look(value.constant)), []).append(value)
            value.constant.release()
    return classes


def _sample(tensor: Tensor) -> Hashable:
    if tensor.dtype is DType.STRING:
        return None
    array = core(tensor.numpy())
    flat = array.reshape(-1) if array.flags.c_contiguous else array[:0]
    return flat[:64].tobytes(), flat[-64:].tobytes()


def _is_index(tensor: Tensor) -> bool:
    return tensor.dtype in (DType.INT64, DType.INT32, DType.BOOL, DType.STRING)


def _input_key(value: Value, contents: dict[Value, Hashable]) -> Hashable:
    tensor = value.constant
    if tensor is None or isinstance(tensor, SparseTensor) or tensor_bytes(tensor) > _COMPARED:
        return value
    if value not in contents:
        contents[value] = (tensor.dtype, tensor.shape, _content(tensor))
    return contents[value]


def _content(tensor: Tensor) -> Hashable:
    if tensor.dtype is DType.STRING:
        return tuple(tensor.numpy().reshape(-1).tolist())
    part = core(compact(tensor.numpy()))
    if part.nbytes <= 64:
        return part.shape, part.tobytes()
    data = np.ascontiguousarray(part).view(np.uint8)
    return part.shape, hashlib.blake2b(data.data, digest_size=16).digest()


def _attribute_key(attribute: Attribute) -> Hashable:
    value = attribute.value
    if isinstance(value, Tensor):
        key: Hashable = (
            value.dtype,
            value.shape,
            _content(value) if not isinstance(value, SparseTensor) else id(value),
        )
    elif isinstance(value, float):
        key = value.hex()
    elif isinstance(value, tuple):
        key = tuple(_element_key(v) for v in value)
    else:
        key = value.encode() if isinstance(value, str) else value if isinstance(value, int | bytes) else repr(value)
    return int(attribute.kind), repr(key)


def _element_key(value: object) -> Hashable:
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, Tensor):
        return id(value)
    return value.encode() if isinstance(value, str) else repr(value)
