"""One node, run by ONNX Runtime itself."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ModelError
from ...ir.graph import Graph
from ...ir.node import Node, Value
from ...ir.tensor import ArrayTensor
from ...ir.types import DType, TensorType
from .fill import Array

if TYPE_CHECKING:
    import onnx
    import onnxruntime

_MOST = 16
"""Sessions that are kept."""


class Unknown(Exception):
    """The node cannot be evaluated here; leave it in the graph."""


class Runtime:
    """Sessions of a node each. Nodes that differ in nothing but the elements that they read share one."""

    def __init__(self) -> None:
        self._sessions: dict[Hashable, onnxruntime.InferenceSession] = {}

    def has(self, node: Node, inputs: Sequence[Array | None]) -> bool:
        """Whether there is a session for a node, which is what takes most of the time."""
        return _key(node, inputs) in self._sessions

    def run(self, node: Node, inputs: Sequence[Array | None], *, shared: bool) -> list[Array]:
        """The outputs of a node, those that nobody reads empty. Raises `Unknown`.

        Where it is not `shared` the elements are constants of the session, as they are in the model: kernels may lay
        weights out anew.
        """
        key = _key(node, inputs) if shared else None
        if key is None:
            return _results(node, _alone(node, inputs))
        session = self._sessions.get(key)
        feeds = {f"x{i}": np.ascontiguousarray(a).reshape(a.shape) for i, a in enumerate(inputs) if a is not None}
        try:
            if session is None:
                session = _session(_model(node, inputs, fed=True))
                if len(self._sessions) == _MOST:
                    del self._sessions[next(iter(self._sessions))]
                self._sessions[key] = session
            return _results(node, session.run(None, feeds))
        except Unknown:
            raise
        except Exception:  # ONNX Runtime's errors share no base class
            return _results(node, _alone(node, inputs))


def _key(node: Node, inputs: Sequence[Array | None]) -> Hashable:
    """What two nodes of one session have in common; `None` for a node that shares none."""
    if any(a is not None and a.dtype.kind not in "biuf" for a in inputs):
        return None
    read = tuple(None if a is None else (a.dtype.str, a.shape) for a in inputs)
    opset = node.graph.opset() if node.graph is not None else 0
    key = (node.op, opset, read, tuple(node.attributes.items()), tuple((v.type, bool(v.uses)) for v in node.outputs))
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _model(node: Node, inputs: Sequence[Array | None], *, fed: bool) -> onnx.ModelProto:
    from ...ir.onnx.writer import to_proto

    graph = Graph("fold", opsets={"": node.graph.opset()} if node.graph is not None else {})
    graph.header = node.graph.root.header if node.graph is not None else graph.header
    reads: list[Value | None] = []
    for i, array in enumerate(inputs):
        if array is None:
            reads.append(None)
        elif fed:
            reads.append(graph.add_input(f"x{i}", TensorType(DType.of(array.dtype), array.shape)))
        else:
            reads.append(graph.constant(ArrayTensor(np.ascontiguousarray(array).reshape(array.shape))))
    copy = graph.add(node.op, reads, node.attributes, outputs=len(node.outputs), types=[v.type for v in node.outputs])
    for i, value in enumerate(node.outputs):
        if value.uses:
            graph.add_output(copy.outputs[i], f"y{i}", value.type)
    try:
        return to_proto(graph)
    except (ModelError, ValueError, KeyError, TypeError) as error:
        raise Unknown(str(error)) from error


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _alone(node: Node, inputs: Sequence[Array | None]) -> list[Any]:
    """By ONNX Runtime, or by the ONNX reference evaluator where that refuses."""
    model = _model(node, inputs, fed=False)
    try:
        return list(_session(model).run(None, {}))
    except Exception:
        from onnx.reference import ReferenceEvaluator

        try:
            return list(ReferenceEvaluator(model).run(None, {}))
        except Exception as error:
            raise Unknown(str(error)) from error


def _results(node: Node, results: Sequence[Any]) -> list[Array]:
    outputs: list[Array] = [np.empty(0, np.float32)] * len(node.outputs)
    for i, array in zip((i for i, v in enumerate(node.outputs) if v.uses), results, strict=True):
        if not isinstance(array, np.ndarray | np.generic):
            raise Unknown("the result is not a tensor")
        outputs[i] = np.asarray(array)
    return outputs
