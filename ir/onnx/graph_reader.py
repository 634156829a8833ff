"""Building the graph of a ModelProto.

Names become references (see `scope`); what nothing here interprets is kept as bytes. Initializers of IR version 3 and
older are listed among the graph's inputs too and are still constants; from version 4 on such an input is one a caller
may override, and its data a default.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import onnx
from google.protobuf.message import Message

from ...errors import ModelError
from ..attributes import Attribute, AttributeKind, AttributeValue
from ..calls import Calls
from ..graph import Function, FunctionKey, Graph, Header, Node, Value
from ..origin import NODES_KEY, PASSES_KEY, Origin
from ..printable import has_control
from ..tensor import Tensor
from ..types import Type
from . import wire
from .scope import Scope, as_name
from .tensor_proto import TensorReader
from .type_proto import read_type

_RUNTIMES = "com.microsoft"
"""ONNX Runtime's own domain, which it imports where a model does not say so."""


class GraphReader:
    """Builds the graph of one ModelProto, its data found by `tensors`. Raises `ModelError` for whatever is broken."""

    def __init__(self, tensors: TensorReader) -> None:
        self.tensors = tensors
        self.overridable = True

    def model(self, model: onnx.ModelProto) -> Graph:
        if not model.HasField("graph"):
            raise ModelError("holds no graph; it is not an ONNX model")
        if not 1 <= model.ir_version <= onnx.IR_VERSION:
            raise ModelError(
                f"IR version {model.ir_version} is unknown; the installed onnx {onnx.__version__} reads 1 to "
                f"{onnx.IR_VERSION}"
            )
        graph = Graph(opsets=_opsets(model.opset_import, model.ir_version, "the model"))
        graph.header = Header(
            ir_version=model.ir_version,
            producer_name=wire.text(model.producer_name),
            producer_version=wire.text(model.producer_version),
            domain=wire.text(model.domain),
            model_version=model.model_version,
            doc=wire.text(model.doc_string),
            metadata=tuple((wire.text(entry.key), wire.text(entry.value)) for entry in model.metadata_props),
            extra=_extra(model, ("training_info", "configuration")),
        )
        self.overridable = model.ir_version >= 4
        self.graph(model.graph, graph, None)
        for proto in model.functions:
            function = self.function(proto, model.ir_version)
            key: FunctionKey = (function.domain, function.name, function.overload)
            if key in graph.functions:
                raise ModelError(f"function {function.name!r} of domain {function.domain!r} is defined twice")
            graph.functions[key] = function
        Calls.of(graph)
        return graph

    def graph(self, proto: onnx.GraphProto, graph: Graph, outer: Scope | None) -> None:
        """Fill an empty graph."""
        graph.name, graph.doc = wire.text(proto.name), wire.text(proto.doc_string)
        graph.metadata = _strings(proto.metadata_props) or {}
        graph.extra = _extra(proto, ("quantization_annotation",))
        scope = Scope(graph, outer)
        infos = {info.name: info for info in proto.value_info}
        initializers = {tensor.name for tensor in proto.initializer}
        initializers.update(sparse.values.name for sparse in proto.sparse_initializer)
        for info in proto.input:
            if info.name in initializers and not self.overridable:
                infos[info.name] = info
                continue
            value = graph.add_input(info.name, _type_of(info))
            _annotate(value, info)
            scope.define(info.name, value)
        for tensor in proto.initializer:
            self._initializer(scope, tensor.name, tensor, infos.get(tensor.name))
        for sparse in proto.sparse_initializer:
            self._initializer(scope, sparse.values.name, sparse, infos.get(sparse.values.name))
        self.nodes(proto.node, scope, infos)
        for info in proto.output:
            type = _type_of(info)
            value = scope.find(info.name)
            output = graph.add_output(value, as_name(info.name), type)
            output.type = type
            output.doc, output.metadata = wire.text(info.doc_string), _strings(info.metadata_props)
            if value.type is None:
                value.type = type
        scope.close()

    def _initializer(
        self,
        scope: Scope,
        name: str,
        proto: onnx.TensorProto | onnx.SparseTensorProto,
        info: onnx.ValueInfoProto | None,
    ) -> None:
        tensor: Tensor
        if isinstance(proto, onnx.SparseTensorProto):
            tensor = self.tensors.read_sparse(proto)
            described = proto.values
        else:
            tensor = self.tensors.read(proto)
            described = proto
        value = scope.names.get(name)
        if value is not None and value.is_input and value.default is None:
            value.default = tensor
            return
        value = scope.graph.constant(tensor, name)
        if info is not None:
            _annotate(value, info)
        value.doc = wire.text(described.doc_string) or value.doc
        value.metadata = _strings(described.metadata_props) or value.metadata
        scope.define(name, value)

    def nodes(self, protos: Iterable[onnx.NodeProto], scope: Scope, infos: dict[str, onnx.ValueInfoProto]) -> None:
        names, find, add = scope.names, scope.find, scope.graph.add
        for proto in protos:
            op, title, domain, overload = proto.op_type, proto.name, proto.domain, proto.overload
            outputs = proto.output[:]
            try:
                sound = not has_control("".join((op, title, domain, overload, *outputs)))
            except TypeError:
                sound = False
            if not sound:
                raise ModelError(
                    f"graph {scope.graph.name!r}: node {title!r} ({op!r}) has a name that is not UTF-8 or holds a "
                    f"control character, or makes one: {outputs}; export the model again"
                )
            origin = title or (outputs[0] if outputs else "")
            node = add(
                op,
                [(names.get(name) or find(name)) if name else None for name in proto.input[:]],
                outputs=outputs,
                name=title,
                domain=_domain(domain) if domain else "",
                origin=Origin((origin,)) if origin else None,
            )
            node.overload = overload
            if domain == _RUNTIMES:
                scope.graph.root.opsets.setdefault(domain, 1)
            for value in node.outputs:
                name = value.name
                if not name:
                    continue
                if name in names:
                    raise ModelError(
                        f"graph {scope.graph.name!r}: node {title!r} ({op}) makes {name!r}, "
                        f"which is defined already; names must be unique"
                    )
                names[name] = value
                info = infos.get(name)
                if info is not None:
                    value.type = _type_of(info)
                    _annotate(value, info)
            for attribute in proto.attribute[:]:
                try:
                    node.set_attribute(as_name(attribute.name), self._attribute(attribute, scope, node))
                except ModelError as error:
                    raise ModelError(
                        f"graph {scope.graph.name!r}: node {origin!r} ({op}), attribute {attribute.name!r}: {error}"
                    ) from error
            doc = proto.doc_string
            if doc:
                node.doc = wire.text(doc)
            if proto.metadata_props:
                _describe(node, proto.metadata_props)
            if proto.device_configurations:
                node.extra = _extra(proto, ("device_configurations",))

    def _attribute(self, proto: onnx.AttributeProto, scope: Scope, node: Node | None) -> Attribute:
        kind = AttributeKind(proto.type) if proto.type else _guessed(proto)
        if proto.ref_attr_name:
            return Attribute(kind, None, as_name(proto.ref_attr_name), wire.text(proto.doc_string))
        value: AttributeValue
        if kind is AttributeKind.INT:
            value = proto.i
        elif kind is AttributeKind.INTS:
            value = tuple(proto.ints)
        elif kind is AttributeKind.FLOAT:
            value = proto.f
        elif kind is AttributeKind.FLOATS:
            value = tuple(proto.floats)
        elif kind is AttributeKind.STRING:
            value = _string(proto.s)
        elif kind is AttributeKind.STRINGS:
            value = tuple(_string(s) for s in proto.strings)
        elif kind is AttributeKind.TENSOR:
            value = self.tensors.read(proto.t)
        elif kind is AttributeKind.TENSORS:
            value = tuple(self.tensors.read(t) for t in proto.tensors)
        elif kind is AttributeKind.SPARSE_TENSOR:
            value = self.tensors.read_sparse(proto.sparse_tensor)
        elif kind is AttributeKind.SPARSE_TENSORS:
            value = tuple(self.tensors.read_sparse(t) for t in proto.sparse_tensors)
        elif kind is AttributeKind.TYPE_PROTO:
            value = read_type(proto.tp)
        elif kind is AttributeKind.TYPE_PROTOS:
            value = tuple(t for t in map(read_type, proto.type_protos) if t is not None)
        elif kind is AttributeKind.GRAPH:
            value = self._body(proto.g, scope, node)
        elif kind is AttributeKind.GRAPHS:
            value = tuple(self._body(g, scope, node) for g in proto.graphs)
        else:
            raise ModelError("it has no kind that ONNX knows")
        return Attribute(kind, value, "", wire.text(proto.doc_string))

    def _body(self, proto: onnx.GraphProto, scope: Scope, node: Node | None) -> Graph:
        body = Graph()
        body.parent = node
        self.graph(proto, body, scope)
        return body

    def function(self, proto: onnx.FunctionProto, ir_version: int) -> Function:
        graph = Graph(as_name(proto.name), opsets=_opsets(proto.opset_import, ir_version, f"function {proto.name!r}"))
        graph.doc = wire.text(proto.doc_string)
        graph.metadata = _strings(proto.metadata_props) or {}
        scope = Scope(graph, None)
        infos = {info.name: info for info in proto.value_info}
        for name in proto.input:
            info = infos.get(name)
            value = graph.add_input(name, None if info is None else _type_of(info))
            if info is not None:
                _annotate(value, info)
            scope.define(name, value)
        self.nodes(proto.node, scope, infos)
        for name in proto.output:
            graph.add_output(scope.find(name), as_name(name))
        scope.close()
        defaults = {as_name(a.name): self._attribute(a, scope, None) for a in proto.attribute_proto}
        domain = _domain(proto.domain)
        attributes = tuple(map(as_name, proto.attribute))
        return Function(domain, graph.name, as_name(proto.overload), graph, attributes, defaults)


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else as_name(domain)


def _opsets(imports: Sequence[onnx.OperatorSetIdProto], ir_version: int, where: str) -> dict[str, int]:
    opsets: dict[str, int] = {}
    for entry in imports:
        domain = _domain(entry.domain)
        if opsets.setdefault(domain, entry.version) != entry.version:
            raise ModelError(f"{where} imports two versions of opset {domain or 'ai.onnx'!r}")
    if not opsets:
        if ir_version >= 3:
            raise ModelError(f"{where} imports no opset; the file is damaged or cut off")
        return {"": 1}
    latest = onnx.defs.onnx_opset_version()
    version = opsets.get("", 1)
    if not 1 <= version <= latest:
        raise ModelError(
            f"{where} imports opset {version} of ai.onnx; the installed onnx {onnx.__version__} knows 1 to {latest}"
        )
    return opsets


def _type_of(info: onnx.ValueInfoProto) -> Type | None:
    try:
        return read_type(info.type) if info.HasField("type") else None
    except ModelError as error:
        raise ModelError(f"value {info.name!r}: {error}") from error


def _annotate(value: Value, info: onnx.ValueInfoProto) -> None:
    """The description that ValueInfoProto adds, and its type where the value's own says less."""
    if info.doc_string:
        value.doc = wire.text(info.doc_string)
    if info.metadata_props:
        value.metadata = _strings(info.metadata_props)


def _strings(entries: Sequence[onnx.StringStringEntryProto]) -> dict[str, str] | None:
    return {wire.text(entry.key): wire.text(entry.value) for entry in entries} or None


def _listed(text: str) -> tuple[str, ...]:
    """The names in an origin entry: a JSON list, or anything else as one name."""
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        return (text,)
    return tuple(str(name) for name in names) if isinstance(names, list) else (text,)


def _string(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _describe(node: Node, entries: Sequence[onnx.StringStringEntryProto]) -> None:
    """Metadata, out of which comes the origin that an earlier run wrote."""
    metadata = _strings(entries) or {}
    nodes, passes = metadata.pop(NODES_KEY, None), metadata.pop(PASSES_KEY, None)
    if nodes is not None and passes is not None:
        node.origin = Origin(_listed(nodes), _listed(passes))
    node.metadata = metadata or None


def _extra(proto: Message, fields: tuple[str, ...]) -> bytes:
    """A serialised message of only these fields; empty where all of them are."""
    kept = type(proto)()
    for name in fields:
        if getattr(proto, name):
            getattr(kept, name).MergeFrom(getattr(proto, name))
    data: bytes = kept.SerializeToString(deterministic=True)
    return data


def _guessed(proto: onnx.AttributeProto) -> AttributeKind:
    """The kind of an attribute that does not state it, as before IR version 3."""
    for name, kind in _FIELDS.items():
        present = len(getattr(proto, name)) if kind in _REPEATED else proto.HasField(name)
        if present:
            return kind
    return AttributeKind.UNDEFINED


_FIELDS = {
    "f": AttributeKind.FLOAT,
    "i": AttributeKind.INT,
    "s": AttributeKind.STRING,
    "t": AttributeKind.TENSOR,
    "g": AttributeKind.GRAPH,
    "floats": AttributeKind.FLOATS,
    "ints": AttributeKind.INTS,
    "strings": AttributeKind.STRINGS,
    "tensors": AttributeKind.TENSORS,
    "graphs": AttributeKind.GRAPHS,
    "sparse_tensor": AttributeKind.SPARSE_TENSOR,
    "sparse_tensors": AttributeKind.SPARSE_TENSORS,
    "tp": AttributeKind.TYPE_PROTO,
    "type_protos": AttributeKind.TYPE_PROTOS,
}
_REPEATED = frozenset(kind for name, kind in _FIELDS.items() if name.endswith("s") and name != "s")
