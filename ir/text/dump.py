"""The text of a graph: one node a line, close to ONNX's own text syntax. `parse` reads it back.

    ir_version 10
    opset 21
    opset com.microsoft 1
    graph net(x: float[N, 3]) -> (y: float[N, 2]) {
      w = float[3, 2] {1, 2, 3, 4, 5, 6}
      h: float[N, 2] = MatMul(x, w) @fc
      y: float[N, 2] = com.microsoft.Gelu<axis=-1>(h) @act from (act) by (clean)
    }

Every value has one name (see `names`). A name is bare where it is a word of letters, digits and `_ . / - $ ::`, and a
JSON string elsewhere; `_` is an output left out, and an input left out. `?` is an unknown size or type. Attributes:
`1` is an int, `1.0` a float, `"a"` a string, `[1, 2]` ints; where the literal does not tell the kind it stands before
it (`axes: ints = []`), and `@a` refers to the attribute `a` of the function. The data of a tensor is its elements,
`base64"..."` of ONNX's `raw_data`, or `{0, ...}` for one element repeated; one repeated along axes is
`broadcast[10, 3](float[1, 3] {1, 2, 3})`. After a node come its name (`@fc`), the
origin where it is not the node's own name, and `doc`, `metadata`, `extra` where there are any; a body is written in
place (`If<then_branch=graph() -> (z) {...}>(c)`). `#` starts a comment.

Elided tensors and notes (`float[64, 3] {... 1f0c22aa}`: the CRC-32 of what stood there) read well, but cannot be
parsed.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from ..attributes import Attribute, AttributeKind, AttributeValue
from ..graph import Function, Graph, Node, Output, Value
from ..names import unique_names
from ..origin import Origin
from ..tensor import Tensor
from ..types import MapType, OpaqueType, OptionalType, SequenceType, TensorType
from .literal import base64_text, name_text, quote, tensor_text, type_text
from .scan import WORD

ELIDED = 16
"""Tensors of more than this many elements are elided unless asked for."""
NOTED = 80
"""So are `doc`, `metadata` and `extra` of more than this many characters."""


def dump(
    graph: Graph,
    *,
    tensors: Literal["inline", "elided"] | int = "elided",
    origin: bool = True,
    aside: Callable[[Tensor], int] | None = None,
) -> str:
    """The text of `graph`.

    `tensors="inline"` writes all data, so that `parse` gives back everything the IR holds; a number elides tensors of
    more elements, and long notes. `origin=False` leaves out where the nodes came from. Large tensors that are not
    elided go to `aside`, where that is given, and the text holds the number that it returns for each. A body alone is
    written with the names it has inside its model.
    """
    limit = math.inf if tensors == "inline" else ELIDED if tensors == "elided" else tensors
    printer = _Printer(limit, origin, aside)
    if graph.parent is not None:
        printer.names = unique_names(graph.root)
        return printer.graph(graph, "") + "\n"
    parts = [*printer.header(graph)]
    printer.names = unique_names(graph)
    parts.append(printer.graph(graph, ""))
    parts.extend(printer.function(function) for function in graph.functions.values())
    return "\n".join(parts) + "\n"


class _Printer:
    def __init__(self, limit: float, origin: bool, aside: Callable[[Tensor], int] | None) -> None:
        self.limit = limit
        self.aside = aside
        self.origin = origin
        self.names: Mapping[Value | Output, str] = {}

    def header(self, graph: Graph) -> Iterable[str]:
        header = graph.header
        yield f"ir_version {header.ir_version}"
        if header.producer_name or header.producer_version:
            yield f"producer {quote(header.producer_name)} {quote(header.producer_version)}"
        if header.domain:
            yield f"domain {quote(header.domain)}"
        if header.model_version:
            yield f"model_version {header.model_version}"
        if header.doc:
            yield f"doc {self.note(quote(header.doc))}"
        if header.metadata:
            yield f"metadata {self.note(_pairs(header.metadata))}"
        if header.extra:
            yield f"extra {self.note(base64_text(header.extra))}"
        yield from _opsets(graph.opsets)

    def function(self, function: Function) -> str:
        graph = function.graph
        outer, self.names = self.names, unique_names(graph)
        attributes = [name_text(name) for name in function.attributes]
        attributes += [self.attribute(name, attribute, "  ") for name, attribute in function.defaults.items()]
        head = f"function {operator(function.domain, function.name, function.overload)}"
        head += f"<{', '.join(attributes)}>" if attributes else ""
        own = "" if graph.name == function.name else f" name {quote(graph.name)}"
        text = head + self.signature(graph) + own + self.block(graph, "", opsets=True)
        self.names = outer
        return text

    def graph(self, graph: Graph, indent: str) -> str:
        name = f" {name_text(graph.name)}" if graph.name else ""
        # The outermost graph's operator sets are in the header.
        return f"graph{name}{self.signature(graph)}{self.block(graph, indent, opsets=False)}"

    def signature(self, graph: Graph) -> str:
        inputs = ", ".join(self.input(value) for value in graph.inputs)
        outputs = ", ".join(self.output(output, graph) for output in graph.outputs)
        return f"({inputs}) -> ({outputs})"

    def input(self, value: Value) -> str:
        default = "" if value.default is None else f" = {self.tensor(value.default)}"
        return self.declared(value) + default

    def output(self, output: Output, graph: Graph) -> str:
        text = name_text(self.names[output])
        if output.type is not None:
            text += f": {type_text(output.type)}"
        elif output.value.type is not None:
            text += ": ?"
        text += self.notes(output.doc, output.metadata)
        value = self.names.get(output.value)
        return text if value == self.names[output] else f"{text} = {self.value(output.value)}"

    def block(self, graph: Graph, indent: str, *, opsets: bool) -> str:
        text = self.notes(graph.doc, graph.metadata, graph.extra)
        if opsets:
            text += "".join(f" {line}" for line in _opsets(graph.opsets))
        inner = indent + "  "
        lines = [f"{text} {{"]
        lines.extend(f"{inner}{self.constant(value)}" for value in graph.constants)
        lines.extend(f"{inner}{self.node(node, inner)}" for node in graph)
        lines.append(f"{indent}}}")
        return "\n".join(lines)

    def constant(self, value: Value) -> str:
        tensor = value.constant
        if tensor is None:
            return f"{self.declared(value)} = none"
        if value.type == TensorType(tensor.dtype, tensor.shape):
            return f"{self.value(value)}{self.notes(value.doc, value.metadata)} = {self.tensor(tensor)}"
        return f"{self.declared(value, unknown=': ?')} = {self.tensor(tensor)}"

    def node(self, node: Node, indent: str) -> str:
        outputs = ", ".join(self.declared(value, _unknown(value)) for value in node.outputs)
        attributes = ", ".join(self.attribute(name, attribute, indent) for name, attribute in node.attributes.items())
        text = f"{outputs} = {operator(node.domain, node.op, node.overload)}".lstrip()
        text += f"<{attributes}>" if attributes else ""
        text += f"({', '.join(self.value(value) for value in node.inputs)})"
        if node.name:
            text += f" @{name_text(node.name)}"
        if self.origin and node.origin != Origin.own(node.name):
            text += f" from ({', '.join(name_text(name) for name in node.origin.nodes)})"
            if node.origin.passes:
                text += f" by ({', '.join(name_text(name) for name in node.origin.passes)})"
        return text + self.notes(node.doc, node.metadata, node.extra)

    def declared(self, value: Value, unknown: str = "") -> str:
        kind = unknown if value.type is None else f": {type_text(value.type)}"
        return f"{self.value(value)}{kind}{self.notes(value.doc, value.metadata)}"

    def value(self, value: Value | None) -> str:
        if value is None:
            return "_"
        name = self.names.get(value)
        if name is None:
            return quote(f"not in this model: {value.name}")
        return name_text(name) if name else "_"

    def tensor(self, tensor: Tensor) -> str:
        return tensor_text(tensor, self.limit, self.aside)

    def attribute(self, name: str, attribute: Attribute, indent: str) -> str:
        kind, value = attribute.kind, attribute.value
        doc = self.notes(attribute.doc)
        spelled = f"{name_text(name)}: {kind.name.lower()} = "
        if attribute.ref:
            return f"{spelled}@{name_text(attribute.ref)}{doc}"
        if value is None:
            return f"{spelled}none{doc}"
        text = self.literal(value, indent)
        if kind in _TELLING and value != ():
            return f"{name_text(name)}={text}{doc}"
        return spelled + text + doc

    def literal(self, value: AttributeValue, indent: str) -> str:
        if isinstance(value, tuple):
            return f"[{', '.join(self.literal(item, indent) for item in value)}]"
        if isinstance(value, float):
            return _float(value)
        if isinstance(value, str | bytes):
            return quote(value)
        if isinstance(value, Tensor):
            return self.tensor(value)
        if isinstance(value, Graph):
            return self.graph(value, indent)
        if value is None or isinstance(value, TensorType | SequenceType | OptionalType | MapType | OpaqueType):
            return type_text(value)
        return str(value)

    def notes(self, doc: str, metadata: Mapping[str, str] | None = None, extra: bytes = b"") -> str:
        text = f" doc {self.note(quote(doc))}" if doc else ""
        if metadata:
            text += f" metadata {self.note(_pairs(metadata.items()))}"
        return text + (f" extra {self.note(base64_text(extra))}" if extra else "")

    def note(self, text: str) -> str:
        if self.limit == math.inf or len(text) <= NOTED:
            return text
        return f"{{... {zlib.crc32(text.encode()):08x}}}"


_TELLING = frozenset(AttributeKind) - {AttributeKind.UNDEFINED, AttributeKind.TYPE_PROTO, AttributeKind.TYPE_PROTOS}


def _unknown(value: Value) -> str:
    """What says that a value has no type where the parser would otherwise take the type of the output it is."""
    typed = (user.outputs[index].type is not None for user, index in value.uses if isinstance(user, Graph))
    return ": ?" if value.type is None and any(typed) else ""


def operator(domain: str, op: str, overload: str = "") -> str:
    """`Relu`, `com.microsoft.Gelu`, `local.f:overload`; quoted part by part where the whole is no word."""
    parts = [*([domain] if domain else []), op]
    plain = all(WORD.fullmatch(part) for part in parts) and "." not in op
    text = ".".join(parts) if plain else ".".join(map(quote, parts))
    return f"{text}:{name_text(overload)}" if overload else text


def _float(value: float) -> str:
    if math.isnan(value) and (bits := struct.pack(">d", value)) != struct.pack(">d", math.nan):
        return f"nan({bits.hex()})"
    return repr(float(value))


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"{quote(key)}: {quote(value)}" for key, value in pairs) + "}"


def _opsets(opsets: Mapping[str, int]) -> Iterable[str]:
    for domain, version in opsets.items():
        yield f"opset {name_text(domain)} {version}" if domain else f"opset {version}"
    if not opsets:
        yield "opset none"
