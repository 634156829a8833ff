"""Our graph as a Relax function.

One walk over the nodes. Convolutions, products, pooling and what stands between them are lowered by rules of ours
(see `table`), so that images keep their channels in blocks from the first convolution to the last; every other operator
goes through TVM's own ONNX converter, in plain layout. Values change layout only where two such parts meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm_ffi import structural_equal

from ....errors import OptcError, TargetError
from ....ir.graph import Graph, Value
from ....ir.node import Node
from ....ir.ops import BROADCASTING
from ....ir.types import DType
from ..blame import where, without_kernel
from ..compute.workload import Workload
from ..cpu.machine import Machine
from ..cpu.tiling import Tile
from .bounds import check_bounds
from .conditions import check
from .converter import convert
from .expressions import Blocked, constant, number
from .importer import EQUAL, FILLED, PACKED, REQUIRED, Importer
from .rules.call import LoweringCall
from .rules.indices import PLACES, within
from .sizes import OpenSizes
from .table import kernel, lowering

MOVES = frozenset(
    {
        "Concat", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice", "Split", "Squeeze", "Transpose",
        "Unsqueeze",
    }
)  # fmt: skip
"""What carries codes about and asks nothing of them but their order."""
CODED = frozenset({"QuantizeLinear", "DequantizeLinear", "Pad"})
"""What asks more of codes, and whose rules know how they are held."""

_SPREADING = BROADCASTING | {"Max", "Mean", "Min", "Sum", "Where"}


def import_graph(
    graph: Graph, machine: Machine, dims: Mapping[str, int], tiles: Mapping[Workload, Tile] | None = None
) -> tvm.IRModule:
    """The module whose function `main` computes `graph`. `dims` gives sizes to symbolic dimensions, `tiles` tells how
    to cut workloads that are not to be cut by default.

    Raises `TargetError` naming the node that cannot be taken.
    """
    return _module(Importer(graph, machine, dims, tiles))


def workloads(graph: Graph, machine: Machine) -> dict[Workload, int]:
    """How often each workload is met in a typed graph. Raises `TargetError` as `import_graph` does."""
    importer = Importer(graph, machine, {})
    _module(importer)
    return importer.workloads


def _module(importer: Importer) -> tvm.IRModule:
    graph, bb = importer.graph, importer.bb
    check_bounds(graph)
    params = [importer.parameter(index, value) for index, value in enumerate(graph.inputs)]
    shapes = {value: tuple(param.ty.shape) for value, param in zip(graph.inputs, params, strict=True)}
    importer.sizes = OpenSizes(graph, {value: tuple(map(_fixed, shape)) for value, shape in shapes.items()})
    with bb.function("main", params=params):
        try:
            with bb.dataflow():
                for node in graph:
                    _take(importer, node)
                results = [bb.emit_output(_output(importer, output.value)) for output in graph.outputs]
                results += [bb.emit_output(truth) for truth in importer.truths]
                results += [bb.emit_output(relax.ShapeExpr(pair)) for pair in importer.equal.values()]
        except BaseException:
            bb._end_block()  # or TVM tells the terminal that it was not
            raise
        bb.emit_func_output(relax.Tuple(results))
    mod = bb.get().with_attr(REQUIRED, importer.required) if importer.required else bb.get()
    mod = mod.with_attr(EQUAL, list(importer.equal)) if importer.equal else mod
    return mod.with_attr(FILLED, True) if importer.sizes.derived else mod


def _output(importer: Importer, value: Value) -> relax.Expr:
    """A value as the caller gets it: sizes of open tensors as numbers."""
    if value.dtype in PACKED:
        raise TargetError(f"output '{value.name}' holds {value.dtype.text}, of which libraries give none; cast it")
    expr = importer.plain(value)
    return importer.emit(relax.op.shape_to_tensor(expr)) if isinstance(expr.ty, relax.ShapeType) else expr


def _take(importer: Importer, node: Node) -> None:
    try:
        _lower(importer, node)
    except OptcError:
        if not _as_sizes(importer, node):
            raise
    except Exception as error:
        if not _as_sizes(importer, node):
            raise without_kernel(node, error) from error


def _as_sizes(importer: Importer, node: Node) -> bool:
    """Define the result of a node that computes sizes by what they are; whether they are known."""
    (value, *rest) = node.outputs
    elements, sizes = importer.sizes.elements(value), value.static_shape
    if any(one.uses for one in rest) or elements is None or sizes is None or value.dtype is None:
        return False
    expr: Any = relax.ShapeExpr(elements)
    if len(sizes) != 1 or value.dtype is not DType.INT64:
        expr = importer.emit(relax.op.shape_to_tensor(importer.emit(expr)))
        expr = importer.emit(relax.op.astype(expr, value.dtype.numpy.name))
        expr = importer.emit(relax.op.reshape(expr, sizes))
    importer.define(value, expr)
    return True


def _lower(importer: Importer, node: Node) -> None:
    if all(0 in (value.static_shape or ()) for value in node.outputs):
        for value in node.outputs:
            assert value.dtype is not None
            importer.define(value, constant(np.zeros(value.static_shape or (), value.dtype.numpy)))
        return
    check(node)
    if node.domain == "" and node.op in _SPREADING:
        importer.spread(node)
    rule = lowering(node.op) if node.domain == "" else None
    codes = [value for value in node.inputs if value in importer.quantized]
    moves = node.op in MOVES and node.inputs[0] in codes and (node.op != "Concat" or len(codes) == len(node.inputs))
    if codes and not moves and node.op not in CODED:
        rule = None
    lowered: Any = rule(importer, node) if rule is not None else None
    if lowered is None and node.domain == "" and not moves and (own := kernel(node.op)) is not None:
        lowered = own(LoweringCall(importer, node))
    if lowered is None:
        take = importer.flat if moves else importer.plain
        operands = [None if v is None else take(v) for v in node.inputs]
        if node.op in PLACES and node.domain == "":
            place = PLACES[node.op]
            operands[place] = within(LoweringCall(importer, node), operands[0], operands[place])
        lowered = convert(importer, node, operands)
    if moves:
        importer.quantized.update(node.outputs)
    results = lowered if isinstance(lowered, list) else [lowered]
    if missing := [value.name for value in node.outputs[len(results) :] if value.uses]:
        raise TargetError(f"{where(node)} cannot be compiled: no kernel gives '{missing[0]}'; build for onnx")
    for value, one in zip(node.outputs, results):
        one = _in_one_way(importer, value, one)
        importer.define(value, one)
        if not isinstance(one, Blocked):
            _check(importer, node, value, one)


def _in_one_way(importer: Importer, value: Value, expr: Any) -> Any:
    """A result with open sizes, these written as every other value of the same sizes has them; see `sizes`."""
    if isinstance(expr, Blocked) or value.static_shape is not None or not isinstance(expr.ty, relax.TensorType):
        return expr
    sizes = None if expr.ty.shape is None else importer.sizes.shape(value)
    if sizes is None or len(sizes) != len(expr.ty.shape):
        return expr
    shape = relax.ShapeExpr(sizes)
    if all(structural_equal(one, size) for one, size in zip(expr.ty.shape, shape.values, strict=True)):
        return expr
    return importer.emit(relax.op.reshape(expr, shape))


def _fixed(size: Any) -> Any:
    fixed = number(size)
    return size if fixed is None else fixed


def _check(importer: Importer, node: Node, value: Value, expr: Any) -> None:
    """Raises `TargetError` where a value is made in another type or of other sizes than ONNX gives it."""
    if value.dtype is None or value in importer.quantized or not isinstance(expr.ty, relax.TensorType):
        return
    dtype = str(expr.ty.dtype.dtype)
    if dtype != value.dtype.numpy.name:
        raise TargetError(f"{where(node)} would give {dtype} for {value.dtype.text} '{value.name}'; build for onnx")
    sizes = None if expr.ty.shape is None else [number(size) for size in expr.ty.shape]
    wanted = value.shape
    if sizes is None or wanted is None:
        return
    pairs = zip(sizes, wanted, strict=False)
    if len(sizes) != len(wanted) or any(isinstance(b, int) and a not in (None, b) for a, b in pairs):
        raise TargetError(f"{where(node)} would give {sizes} for {list(wanted)} '{value.name}'; build for onnx")
