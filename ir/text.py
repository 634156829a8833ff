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
`1` is an int, `1.0` a float, `"a"` a string, `[1, 2]` ints; where the literal does not tell the kind it stands
before it (`axes: ints = []`), and `@a` refers to the attribute `a` of the function. The data of a tensor is its elements,
`base64"..."` of ONNX's `raw_data`, or `{0, ...}` for one element repeated. After a node come its name (`@fc`), the
origin where it is not the node's own name, and `doc`, `metadata`, `extra` where there are any; a body is written in
place (`If<then_branch=graph() -> (z) {...}>(c)`). `#` starts a comment.

Elided tensors (`float[64, 3] {... 1f0c22aa}`: the CRC-32 of the data) read well, but cannot be parsed.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
import struct
import zlib
from collections.abc import Iterable, Mapping
from typing import Literal

from .attributes import Attribute, AttributeKind, AttributeValue
from .graph import Function, Graph, Node, Output, Value
from .names import unique_names
from .origin import Origin
from .tensor import FillTensor, SparseTensor, Tensor, pack
from .types import DType, MapType, OpaqueType, OptionalType, SequenceType, TensorType, Type

WORD = re.compile(r"[A-Za-z_/](?:[\w./$]|::|-(?!>))*", re.ASCII)
RESERVED = frozenset({"_", "by", "doc", "extra", "from", "metadata", "name", "opset"})
"""Words that stand after a node, a value or a graph; as names they are quoted."""
SPELLED = 64
"""Tensors of up to this many elements are written as elements, larger ones as base64."""
ELIDED = 16
"""Tensors of more than this many elements are elided unless asked for."""


def dump(graph: Graph, *, tensors: Literal["inline", "elided"] | int = "elided", origin: bool = True) -> str:
    """The text of `graph`.

    `tensors="inline"` writes all data, so that `parse` gives back everything the IR holds; a number elides tensors of
    more elements. `origin=False` leaves out where the nodes came from. A body alone is written with the names it has
    inside its model.
    """
    limit = math.inf if tensors == "inline" else ELIDED if tensors == "elided" else tensors
    printer = _Printer(limit, origin)
    if graph.parent is not None:
        printer.names = unique_names(graph.root)
        return printer.graph(graph, "") + "\n"
    parts = [*printer.header(graph)]
    printer.names = unique_names(graph)
    parts.append(printer.graph(graph, ""))
    parts.extend(printer.function(function) for function in graph.functions.values())
    return "\n".join(parts) + "\n"


class _Printer:
    def __init__(self, limit: float, origin: bool) -> None:
        self.limit = limit
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
            yield f"doc {quote(header.doc)}"
        if header.metadata:
            yield f"metadata {_pairs(header.metadata)}"
        if header.extra:
            yield f"extra {_base64(header.extra)}"
        yield from _opsets(graph.opsets)

    def function(self, function: Function) -> str:
        graph = function.graph
        outer, self.names = self.names, unique_names(graph)
        attributes = [_name(name) for name in function.attributes]
        attributes += [self.attribute(name, attribute, "  ") for name, attribute in function.defaults.items()]
        head = f"function {operator(function.domain, function.name, function.overload)}"
        head += f"<{', '.join(attributes)}>" if attributes else ""
        own = "" if graph.name == function.name else f" name {quote(graph.name)}"
        text = head + self.signature(graph) + own + self.block(graph, "", opsets=True)
        self.names = outer
        return text

    def graph(self, graph: Graph, indent: str) -> str:
        name = f" {_name(graph.name)}" if graph.name else ""
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
        text = _name(self.names[output])
        if output.type is not None:
            text += f": {type_text(output.type)}"
        elif output.value.type is not None:
            text += ": ?"
        text += _notes(output.doc, output.metadata)
        value = self.names.get(output.value)
        return text if value == self.names[output] else f"{text} = {self.value(output.value)}"

    def block(self, graph: Graph, indent: str, *, opsets: bool) -> str:
        text = _notes(graph.doc, graph.metadata, graph.extra)
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
            return f"{self.value(value)}{_notes(value.doc, value.metadata)} = {self.tensor(tensor)}"
        return f"{self.declared(value, unknown=': ?')} = {self.tensor(tensor)}"

    def node(self, node: Node, indent: str) -> str:
        outputs = ", ".join(self.declared(value) for value in node.outputs)
        attributes = ", ".join(self.attribute(name, attribute, indent) for name, attribute in node.attributes.items())
        text = f"{outputs} = {operator(node.domain, node.op, node.overload)}".lstrip()
        text += f"<{attributes}>" if attributes else ""
        text += f"({', '.join(self.value(value) for value in node.inputs)})"
        if node.name:
            text += f" @{_name(node.name)}"
        if self.origin and node.origin != own_origin(node.name):
            text += f" from ({', '.join(_name(name) for name in node.origin.nodes)})"
            if node.origin.passes:
                text += f" by ({', '.join(_name(name) for name in node.origin.passes)})"
        return text + _notes(node.doc, node.metadata, node.extra)

    def declared(self, value: Value, unknown: str = "") -> str:
        kind = unknown if value.type is None else f": {type_text(value.type)}"
        return f"{self.value(value)}{kind}{_notes(value.doc, value.metadata)}"

    def value(self, value: Value | None) -> str:
        if value is None:
            return "_"
        name = self.names.get(value)
        if name is None:
            return quote(f"not in this model: {value.name}")
        return _name(name) if name else "_"

    def attribute(self, name: str, attribute: Attribute, indent: str) -> str:
        kind, value = attribute.kind, attribute.value
        doc = _notes(attribute.doc)
        spelled = f"{_name(name)}: {kind.name.lower()} = "
        if attribute.ref:
            return f"{spelled}@{_name(attribute.ref)}{doc}"
        if value is None:
            return f"{spelled}none{doc}"
        text = self.literal(value, indent)
        if kind in _TELLING and value != ():
            return f"{_name(name)}={text}{doc}"
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
        if isinstance(value, TensorType | SequenceType | OptionalType | MapType | OpaqueType):
            return type_text(value)
        return str(value)

    def tensor(self, tensor: Tensor) -> str:
        if isinstance(tensor, SparseTensor):
            shape = ", ".join(map(str, tensor.shape))
            return f"sparse[{shape}]({self.tensor(tensor.values)}, {self.tensor(tensor.indices)})"
        head = f"{tensor.dtype.text}[{', '.join(map(str, tensor.shape))}]"
        if isinstance(tensor, FillTensor):
            element = tensor_data(tensor.element)
            return f"{head} {element[:-1]}, ...}}" if element.endswith("}") else f"{head} {element} ..."
        if tensor.size > self.limit:
            return f"{head} {{... {_checksum(tensor):08x}}}"
        return f"{head} {tensor_data(tensor)}"


_TELLING = frozenset(AttributeKind) - {AttributeKind.UNDEFINED, AttributeKind.TYPE_PROTO, AttributeKind.TYPE_PROTOS}


def own_origin(name: str) -> Origin:
    """The origin that a node of this name has when nothing else is said: itself."""
    return Origin((name,)) if name else Origin()


def operator(domain: str, op: str, overload: str = "") -> str:
    """`Relu`, `com.microsoft.Gelu`, `local.f:overload`; quoted part by part where the whole is no word."""
    parts = [*([domain] if domain else []), op]
    plain = all(WORD.fullmatch(part) for part in parts) and "." not in op
    text = ".".join(parts) if plain else ".".join(map(quote, parts))
    return f"{text}:{_name(overload)}" if overload else text


def type_text(type: Type | None) -> str:
    """`float[N, 3]`, `float` (unknown rank), `seq(float[])`, `?` (unknown)."""
    if type is None:
        return "?"
    if isinstance(type, SequenceType):
        return f"seq({type_text(type.element)})"
    if isinstance(type, OptionalType):
        return f"optional({type_text(type.element)})"
    if isinstance(type, MapType):
        return f"map({type.key.text}, {type_text(type.value)})"
    if isinstance(type, OpaqueType):
        return f"opaque({quote(type.domain)}, {quote(type.name)})"
    text = ("sparse " if type.sparse else "") + type.dtype.text
    if type.shape is not None:
        sizes = ("?" if d is None else str(d) if isinstance(d, int) else _name(d) for d in type.shape)
        text += f"[{', '.join(sizes)}]"
    if type.denotation or type.axes:
        text += f"<{quote(type.denotation)}{''.join(f', {quote(axis)}' for axis in type.axes)}>"
    return text


def tensor_data(tensor: Tensor) -> str:
    """`{1, 2, 3}`, or base64 where the tensor is large or its numbers would not read back to the same bytes."""
    from .parse import elements

    array = tensor.numpy()
    if tensor.dtype is DType.STRING:
        return "{" + ", ".join(quote(_readable(item)) for item in array.reshape(-1).tolist()) + "}"
    data = None
    if tensor.size <= SPELLED:
        texts = [_number(str(item)) for item in array.reshape(-1)]
        data = pack(array, tensor.dtype)
        if pack(elements(texts, tensor.dtype), tensor.dtype) == data:
            return f"{{{', '.join(texts)}}}"
    return _base64(pack(array, tensor.dtype) if data is None else data)


def _number(text: str) -> str:
    if text in ("True", "False"):
        return text.lower()
    return text.strip("()").removesuffix(".0")


def _float(value: float) -> str:
    if math.isnan(value) and (bits := struct.pack(">d", value)) != struct.pack(">d", math.nan):
        return f"nan({bits.hex()})"
    return repr(float(value))


def _checksum(tensor: Tensor) -> int:
    if tensor.dtype is DType.STRING:
        return zlib.crc32(b"\0".join(tensor.numpy().reshape(-1).tolist()))
    sink = _Checksum()
    tensor.write(sink)
    return sink.crc


class _Checksum(io.BytesIO):
    """A file that keeps nothing but the checksum of what is written to it."""

    crc = 0

    def write(self, data, /) -> int:  # type: ignore[no-untyped-def]
        self.crc = zlib.crc32(data, self.crc)
        return len(data)


def quote(text: str | bytes) -> str:
    """A JSON string; bytes are `b"..."` with one character a byte."""
    return f"b{json.dumps(text.decode('latin-1'))}" if isinstance(text, bytes) else json.dumps(text)


def _readable(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _name(name: str) -> str:
    return name if WORD.fullmatch(name) and name not in RESERVED else quote(name)


def _base64(data: bytes) -> str:
    return f'base64"{base64.b64encode(data).decode()}"'


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"{quote(key)}: {quote(value)}" for key, value in pairs) + "}"


def _notes(doc: str, metadata: Mapping[str, str] | None = None, extra: bytes = b"") -> str:
    text = f" doc {quote(doc)}" if doc else ""
    if metadata:
        text += f" metadata {_pairs(metadata.items())}"
    return text + (f" extra {_base64(extra)}" if extra else "")


def _opsets(opsets: Mapping[str, int]) -> Iterable[str]:
    for domain, version in opsets.items():
        yield f"opset {_name(domain)} {version}" if domain else f"opset {version}"
    if not opsets:
        yield "opset none"
