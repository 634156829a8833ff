"""A small model in few words: what the file says besides its numbers.

Names of values that are not the model's interface become short, the most used ones shortest; what attributes, declared
types and notes on the origin of nodes say that is known without them is left out: attributes that have their default,
types that every reader infers, the origin of a node whose sources others name.

Fires where words are a good part of the file (`has_many_words`); elsewhere names that tell something are worth more.
Not in models with bodies of control flow, whose types not every runtime infers, nor with functions.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator

from ..ir.graph import Graph, Node, Value
from ..ir.origin import Origin
from .qlinear import has_many_words

CONVOLUTIONS = frozenset({"Conv", "QLinearConv"})


def shorten(graph: Graph) -> bool:
    """Say `graph` in few words; returns whether it is small enough for that."""
    if graph.functions or len(list(graph.graphs())) > 1 or not has_many_words(graph):
        return False
    names = {node.name for node in graph}
    for node in graph:
        _drop_defaults(node, graph.opset(node.domain))
        if set(node.origin.nodes) <= ({node.name} if node.name else names):
            node.origin = Origin()
        else:
            names.update(node.origin.nodes)
        if not node.domain:
            for value in node.outputs:
                value.type = None
    _shorten(graph)
    return True


def _drop_defaults(node: Node, opset: int) -> None:
    """Drop attributes that say what holds without them."""
    import onnx

    try:
        declared = onnx.defs.get_schema(node.op, opset, node.domain).attributes
    except onnx.defs.SchemaError:
        return
    for name, attribute in tuple(node.attributes.items()):
        default = declared[name].default_value if name in declared else None
        said = None if default is None or not default.type else onnx.helper.get_attribute_value(default)
        said = said.decode() if isinstance(said, bytes) else said
        if (said is not None and attribute.value == said) or _is_plain(node, name):
            del node.attributes[name]


def _is_plain(node: Node, name: str) -> bool:
    """Whether an attribute of a convolution says that nothing is strided, dilated or padded, or how large its kernel
    is, which the kernel tells."""
    if node.op not in CONVOLUTIONS or node.domain:
        return False
    if name == "kernel_shape":
        return True
    plain = {"strides": 1, "dilations": 1, "pads": 0}.get(name)
    return plain is not None and all(n == plain for n in node.get_ints(name))


def _shorten(graph: Graph) -> None:
    values: list[Value] = [*graph.constants, *(value for node in graph for value in node.outputs)]
    own = {output.value for output in graph.outputs}
    names = _short({v.name for v in graph.inputs} | {o.name for o in graph.outputs})
    for value in sorted((v for v in values if v not in own and v.uses), key=lambda v: -len(v.uses)):
        value.name = next(names)


def _short(taken: set[str]) -> Iterator[str]:
    for size in itertools.count(1):
        for letters in itertools.product(string.ascii_letters, repeat=size):
            name = "".join(letters)
            if name not in taken:
                yield name
