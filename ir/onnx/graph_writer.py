"""Building the ModelProto of a graph.

The header says which IR version and opsets are written; nothing here chooses them. A value returned under a name that
it cannot have (a graph input, a value returned twice, a value of the graph around) is returned through an `Identity`.
A large constant of repeated elements is written as the node that makes it. Constants of a function, which has no
initializers, become Constant nodes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx

from ...errors import ModelError
from ..attributes import Attribute, AttributeKind
from ..graph import Function, Graph, Node, Output, Value
from ..names import second_names, unique_names
from ..origin import NODES_KEY, PASSES_KEY
from ..tensor import ArrayTensor, BroadcastTensor, FillTensor, SparseTensor, Tensor
from ..types import DType, TensorType, Type
from . import wire
from .tensor_proto import describe_tensor, tensor_bytes
from .type_proto import write_type


class GraphWriter:
    """Builds one ModelProto.

    Data of `large` bytes or more is kept out of it: `streamed` has those weights, each with the TensorProto whose
    `raw_data` is `wire.stand_in` of its index. Raises `ModelError` where the rest takes more than `limit` bytes.
    """

    def __init__(self, *, large: int | None, limit: int) -> None:
        self.large = large
        self.limit = limit
        self.streamed: list[tuple[onnx.TensorProto, Tensor]] = []
        self.inlined = 0
        self.taken: set[str] = set()
        self.shapes: dict[tuple[Graph | None, tuple[int, ...]], str] = {}
        self.names: Mapping[Value | Output, str] = {}
        self.ir_version = 0

    def model(self, graph: Graph) -> onnx.ModelProto:
        header = graph.header
        model = onnx.ModelProto()
        model.MergeFromString(header.extra)
        self.ir_version = model.ir_version = header.ir_version
        for field, text in (
            ("producer_name", header.producer_name),
            ("producer_version", header.producer_version),
            ("domain", header.domain),
            ("doc_string", header.doc),
        ):
            if text:
                setattr(model, field, text)
        if header.model_version:
            model.model_version = header.model_version
        for key, text in header.metadata:
            model.metadata_props.add(key=key, value=text)
        _write_opsets(graph, model)
        self._name(graph)
        self.graph(graph, model.graph)
        for function in graph.functions.values():
            self._name(function.graph)
            self.function(function, model.functions.add())
        return model

    def _name(self, graph: Graph) -> None:
        self.names = unique_names(graph)
        self.taken = set(self.names.values())

    def graph(self, graph: Graph, proto: onnx.GraphProto) -> None:
        proto.MergeFromString(graph.extra)
        proto.name = graph.name
        if graph.doc:
            proto.doc_string = graph.doc
        _write_strings(graph.metadata, proto)
        for value in graph.inputs:
            self._info(self.names[value], value, value.type, proto.input.add())
            if value.default is not None:
                self._initializer(value, value.default, proto)
        for value in graph.constants:
            tensor = value.constant
            assert tensor is not None
            if isinstance(tensor, FillTensor | BroadcastTensor) and _pays(tensor, graph):
                self._repeat(value, tensor, proto)
            else:
                self._initializer(value, tensor, proto)
                if self.ir_version < 4:
                    self._info(self.names[value], value, value.type, proto.input.add())
        self.nodes(graph, proto)
        for output in graph.outputs:
            self._info(self.names[output], output, output.type, proto.output.add())
        outputs = {output.value for output in graph.outputs if self.names[output] == self.names[output.value]}
        for node in graph:
            for value in node.outputs:
                if _has_info(value) and value not in outputs and self.names[value]:
                    self._info(self.names[value], value, value.type, proto.value_info.add())

    def nodes(self, graph: Graph, proto: onnx.GraphProto | onnx.FunctionProto) -> None:
        renamed = second_names(graph)
        for node in graph:
            self._node(node, renamed.get(node, node.name), proto.node.add())
        for output in graph.outputs:
            name, source = self.names[output], self.names[output.value]
            if name != source or output.value.graph is not graph:
                if not graph.opset():
                    raise ModelError(
                        f"graph {graph.name!r}: output {name!r} returns {source!r}, which takes an Identity, "
                        f"but the model does not import the ai.onnx opset"
                    )
                proto.node.add(op_type="Identity", input=[source], output=[name])

    def _node(self, node: Node, name: str, proto: onnx.NodeProto) -> None:
        names = self.names
        if node.extra:
            proto.MergeFromString(node.extra)
        proto.op_type = node.op
        proto.input.extend([names[value] if value is not None else "" for value in node.inputs])
        proto.output.extend([names[value] for value in node.outputs])
        if name:
            proto.name = name
        if node.domain:
            proto.domain = node.domain
        if node.overload:
            proto.overload = node.overload
        if node.doc:
            proto.doc_string = node.doc
        for name, attribute in node.attributes.items():
            self._attribute(name, attribute, proto.attribute.add())
        if node.metadata:
            _write_strings(node.metadata, proto)
        if node.origin.passes and self.ir_version >= 10:
            proto.metadata_props.add(key=NODES_KEY, value=json.dumps(node.origin.nodes))
            proto.metadata_props.add(key=PASSES_KEY, value=json.dumps(node.origin.passes))

    def _attribute(self, name: str, attribute: Attribute, proto: onnx.AttributeProto) -> None:
        kind, value = attribute.kind, attribute.value
        proto.name = name
        proto.type = int(kind)  # type: ignore[assignment]
        if attribute.doc:
            proto.doc_string = attribute.doc
        if attribute.ref:
            proto.ref_attr_name = attribute.ref
        elif kind is AttributeKind.INT:
            proto.i = value  # type: ignore[assignment]
        elif kind is AttributeKind.INTS:
            proto.ints.extend(value)
        elif kind is AttributeKind.FLOAT:
            proto.f = value  # type: ignore[assignment]
        elif kind is AttributeKind.FLOATS:
            proto.floats.extend(value)
        elif isinstance(value, str | bytes):
            proto.s = _encoded(value)
        elif isinstance(value, SparseTensor):
            self._sparse("", value, proto.sparse_tensor)
        elif isinstance(value, Tensor):
            self._tensor("", value, proto.t)
        elif isinstance(value, Graph):
            self.graph(value, proto.g)
        elif isinstance(value, tuple):
            for item in value:
                if isinstance(item, str | bytes):
                    proto.strings.append(_encoded(item))
                elif isinstance(item, SparseTensor):
                    self._sparse("", item, proto.sparse_tensors.add())
                elif isinstance(item, Tensor):
                    self._tensor("", item, proto.tensors.add())
                elif isinstance(item, Graph):
                    self.graph(item, proto.graphs.add())
                else:
                    write_type(item, proto.type_protos.add())  # type: ignore[arg-type]
        else:
            proto.tp.SetInParent()
            write_type(value, proto.tp)  # type: ignore[arg-type]

    def function(self, function: Function, proto: onnx.FunctionProto) -> None:
        graph = function.graph
        proto.name, proto.domain = function.name, function.domain
        if function.overload:
            proto.overload = function.overload
        if graph.doc:
            proto.doc_string = graph.doc
        _write_strings(graph.metadata, proto)
        _write_opsets(graph, proto)
        proto.attribute.extend(function.attributes)
        for name, attribute in function.defaults.items():
            self._attribute(name, attribute, proto.attribute_proto.add())
        proto.input.extend(self.names[value] for value in graph.inputs)
        proto.output.extend(self.names[output] for output in graph.outputs)
        for value in graph.constants:  # a function has no initializers
            assert value.constant is not None
            if isinstance(value.constant, FillTensor | BroadcastTensor) and _pays(value.constant, graph):
                self._repeat(value, value.constant, proto)
            else:
                self._constant(self.names[value], value.constant, proto)
        self.nodes(graph, proto)
        for value in (*graph.inputs, *(v for node in graph for v in node.outputs)):
            if _has_info(value) and self.names[value]:
                self._info(self.names[value], value, value.type, proto.value_info.add())

    def _info(self, name: str, item: Value | Output, type: Type | None, proto: onnx.ValueInfoProto) -> None:
        proto.name = name
        if type is not None:
            write_type(type, proto.type)
        if item.doc:
            proto.doc_string = item.doc
        if item.metadata:
            _write_strings(item.metadata, proto)

    def _initializer(self, value: Value, tensor: Tensor, proto: onnx.GraphProto) -> None:
        if isinstance(tensor, SparseTensor):
            sparse = proto.sparse_initializer.add()
            self._sparse(self.names[value], tensor, sparse)
            values = sparse.values
        else:
            values = proto.initializer.add()
            self._tensor(self.names[value], tensor, values)
        if value.constant is not None:
            if value.doc:
                values.doc_string = value.doc
            if value.metadata:
                _write_strings(value.metadata, values)

    def _constant(self, name: str, tensor: Tensor, proto: onnx.GraphProto | onnx.FunctionProto) -> None:
        node = proto.node.add(op_type="Constant", output=[name])
        key = "sparse_value" if isinstance(tensor, SparseTensor) else "value"
        self._attribute(key, Attribute.of(tensor), node.attribute.add())

    def _repeat(
        self, value: Value, tensor: FillTensor | BroadcastTensor, proto: onnx.GraphProto | onnx.FunctionProto
    ) -> None:
        """A large tensor of repeated elements is made by a node: its shape is stored, and what is repeated."""
        name = self.names[value]
        shape = self.shapes.get((value.graph, tensor.shape), "")
        if not shape:
            shape = self._stored(f"{name}/shape", ArrayTensor(np.array(tensor.shape, np.int64)), proto)
            self.shapes[value.graph, tensor.shape] = shape
        if isinstance(tensor, FillTensor):
            node = proto.node.add(op_type="ConstantOfShape", input=[shape], output=[name])
            element = ArrayTensor(tensor.element.numpy().reshape(1), tensor.dtype)
            self._attribute("value", Attribute.of(element), node.attribute.add())
        else:
            core = self._stored(f"{name}/core", tensor.core, proto)
            proto.node.add(op_type="Expand", input=[core, shape], output=[name])

    def _stored(self, name: str, tensor: Tensor, proto: onnx.GraphProto | onnx.FunctionProto) -> str:
        """Store a tensor under a new name like `name`, which is returned."""
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        if isinstance(proto, onnx.FunctionProto):
            self._constant(name, tensor, proto)
            return name
        self._tensor(name, tensor, proto.initializer.add())
        if self.ir_version < 4:
            info = proto.input.add(name=name)
            write_type(TensorType(tensor.dtype, tensor.shape), info.type)
        return name

    def _sparse(self, name: str, tensor: SparseTensor, proto: onnx.SparseTensorProto) -> None:
        proto.dims.extend(tensor.shape)
        self._tensor(name, tensor.values, proto.values)
        indices = np.asarray(tensor.indices.numpy(), np.int64).reshape(-1)
        length = _varint_bytes(indices)
        if tensor.indices.dtype is not DType.INT64 or length >= tensor.indices.nbytes:
            self._tensor("", tensor.indices, proto.indices)
            return
        # Indices are small numbers: most take two or three bytes, not eight.
        describe_tensor(tensor.indices, proto.indices)
        self.inlined += length
        check_length(self.inlined, self.limit)
        proto.indices.int64_data.extend(indices.tolist())

    def _tensor(self, name: str, tensor: Tensor, proto: onnx.TensorProto) -> None:
        if name:
            proto.name = name
        describe_tensor(tensor, proto)
        if tensor.dtype is DType.STRING:
            proto.string_data.extend(tensor.numpy().reshape(-1).tolist())
            return
        if self.large is None or tensor.nbytes < self.large:
            self.inlined += tensor.nbytes
            check_length(self.inlined, self.limit)
            raw = tensor_bytes(tensor)
            if self.large is None or not raw.startswith(wire.STAND_IN):
                proto.raw_data = raw
                return
        proto.raw_data = wire.stand_in(len(self.streamed))
        self.streamed.append((proto, tensor))


_REPEATED = 256
"""Bytes that must be saved for a tensor of repeated elements to be written as a ConstantOfShape or Expand node."""


def _pays(tensor: FillTensor | BroadcastTensor, graph: Graph) -> bool:
    plain = tensor.dtype.bits >= 8 and tensor.dtype.numpy.kind in "fiub"
    core = tensor.element if isinstance(tensor, FillTensor) else tensor.core
    return tensor.nbytes - core.nbytes >= _REPEATED and plain and graph.opset() >= 9


def _varint_bytes(numbers: npt.NDArray[np.int64]) -> int:
    """What integers take as protobuf packs them: seven bits a byte, and ten bytes where one is negative."""
    longer = sum(int(np.count_nonzero(numbers >= 1 << 7 * k)) for k in range(1, 9))
    return numbers.size + longer + 9 * int(np.count_nonzero(numbers < 0))


def _has_info(value: Value) -> bool:
    return value.type is not None or bool(value.doc) or value.metadata is not None


def _encoded(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def _write_opsets(graph: Graph, proto: onnx.ModelProto | onnx.FunctionProto) -> None:
    for domain, version in graph.opsets.items():
        proto.opset_import.add(domain=domain or None, version=version)


def _write_strings(
    strings: Mapping[str, str],
    proto: onnx.GraphProto | onnx.FunctionProto | onnx.NodeProto | onnx.TensorProto | onnx.ValueInfoProto,
) -> None:
    for key, text in strings.items():
        proto.metadata_props.add(key=key, value=text)


def check_length(length: int, limit: int) -> None:
    """Raises `ModelError` where a message takes more than `limit` bytes."""
    if length > limit:
        raise ModelError(
            f"the model takes {length} bytes, more than the {limit} that one ONNX file can hold; "
            f"save it with external data"
        )
