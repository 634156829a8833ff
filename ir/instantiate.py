"""A model-local function's graph for one call of it: a copy in which the attributes of the call are filled in."""

from __future__ import annotations

from .attributes import Attribute
from .graph import Function, Graph
from .node import Node


def instantiate(function: Function, call: Node) -> Graph:
    """A copy of the function's graph with every attribute reference replaced by the call's attribute, or by the
    function's default; a reference to neither is dropped, as ONNX asks. Inputs and outputs correspond by position.
    """
    copy = function.graph.clone()
    arguments = {**function.defaults, **call.attributes}
    for node in copy.walk():
        for name, attribute in tuple(node.attributes.items()):
            if not attribute.ref:
                continue
            value = arguments.get(attribute.ref)
            if value is None:
                del node.attributes[name]
            else:
                node.attributes[name] = Attribute(value.kind, value.value, value.ref, attribute.doc)
    return copy
