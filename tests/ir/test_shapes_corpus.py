"""Shape inference against what runs produce, over the ONNX backend corpus.

Every case is inferred twice, with its small integer and float inputs turned into constants so that shapes which depend
on data can be known: with the sizes that the case declares, and with a symbol for every one of them. Declared types of
the outputs are taken away first. Whatever the inference claims must be what the run produced: sizes, element types, and
elements of small tensors; symbolic sizes after the symbols are replaced by the real sizes.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx.shape_inference
import pytest
from corpus import CannotRun, Case, cases, outputs
from onnx import numpy_helper

from optc.ir.graph import Graph, Value
from optc.ir.onnx.reader import from_proto
from optc.ir.shapes.infer import Inference, analyse
from optc.ir.shapes.symbols import Sym, symbol
from optc.ir.types import DType

KNOWN = {"node": 0.95, "simple": 0.6, "pytorch-converted": 1.0, "pytorch-operator": 1.0}
"""The least share of output tensors all of whose sizes are known. The others depend on data: NonZero, Unique, …"""

EVALUATOR = "ONNX Runtime does not run it, and the reference evaluator returns what the operator does not declare"
NOT_COMPARED = {
    "test_cast_FLOAT16_to_FLOAT8E4M3FN": EVALUATOR,
    "test_cast_FLOAT_to_FLOAT8E4M3FN": EVALUATOR,
    "test_cast_no_saturate_FLOAT16_to_FLOAT8E4M3FN": EVALUATOR,
    "test_cast_no_saturate_FLOAT_to_FLOAT8E4M3FN": EVALUATOR,
    "test_range_bfloat16_type_positive_delta_expanded": EVALUATOR,
}


def prepared(case: Case) -> onnx.ModelProto:
    """The case without declared output shapes, and with its small inputs as constants."""
    model = onnx.ModelProto.FromString(case.model.SerializeToString())
    for output in model.graph.output:
        if output.type.HasField("tensor_type"):
            output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    have = {tensor.name for tensor in model.graph.initializer}
    for info, feed in list(zip(model.graph.input, case.feeds)):
        if not isinstance(feed, np.ndarray | np.generic) or info.name in have:
            continue
        array = np.asarray(feed)
        small = array.ndim <= 1 and array.size <= 64
        if small and array.dtype in (np.int64, np.int32, np.bool_, np.float32):
            model.graph.initializer.append(numpy_helper.from_array(array, info.name))
            model.graph.input.remove(info)
    model.ir_version = max(4, model.ir_version)
    return model


def with_symbols(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, int]]:
    """The model with a name for every positive size of its inputs, and the sizes by name."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    sizes = {}
    for index, info in enumerate(copy.graph.input):
        for axis, dim in enumerate(info.type.tensor_type.shape.dim):
            if dim.dim_value > 0:
                sizes[f"s{index}_{axis}"] = dim.dim_value
                dim.dim_param = f"s{index}_{axis}"
    return copy, sizes


def wrong(graph: Graph, inference: Inference, real: list[object], sizes: dict[str, int]) -> list[str]:
    """What the inference claims of the outputs and the run refutes."""
    faults = []
    for output, array in zip(graph.outputs, real):
        if not isinstance(array, np.ndarray | np.generic) or output.value.constant is not None:
            continue
        shape, fact = inference.shape(output.value), inference.facts[output.value]
        if fact.dtype not in (DType.UNDEFINED, DType.STRING) and fact.dtype.numpy != array.dtype:
            faults.append(f"{output.name}: {fact.dtype.text}, not {array.dtype}")
        if shape is None:
            continue
        bound = [symbol(str(s), sizes) if isinstance(s, Sym) and s.named else s for s in shape]
        if len(shape) != array.ndim or any(isinstance(s, int) and s != r for s, r in zip(bound, array.shape)):
            faults.append(f"{output.name}: {[str(s) for s in shape]}, not {array.shape}")
        elif fact.elements is not None and fact.dtype in (DType.INT64, DType.INT32, DType.BOOL):
            for element, right in zip(fact.elements.reshape(-1).tolist(), array.reshape(-1).tolist(), strict=True):
                value = symbol(str(element), sizes) if isinstance(element, Sym) else element
                if isinstance(value, int) and value != right:
                    faults.append(f"{output.name}: element {element}, not {right}")
    return faults


def full(inference: Inference, value: Value) -> bool:
    shape = inference.shape(value)
    return shape is not None and all(isinstance(size, int) for size in shape)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KNOWN)
def test_no_claim_is_refuted(kind: str) -> None:
    faults, count, ours, theirs = [], 0, 0, 0
    for case in cases(kind):
        if case.name in NOT_COMPARED:
            continue
        try:
            [real] = outputs([case.model], case.feeds)
        except CannotRun:
            continue
        model = prepared(case)
        graph = from_proto(model)
        inference = analyse(graph, fresh=True)
        faults += [f"{case.name}: {fault}" for fault in wrong(graph, inference, real, {})]
        tensors = {o.name for o, array in zip(graph.outputs, real) if isinstance(array, np.ndarray)}
        count += len(tensors)
        ours += sum(full(inference, output.value) for output in graph.outputs if output.name in tensors)
        theirs += onnx_full(model, tensors)

        model, sizes = with_symbols(model)
        graph = from_proto(model)
        inference = analyse(graph, fresh=True)
        faults += [f"{case.name}, symbolic: {fault}" for fault in wrong(graph, inference, real, sizes)]
    assert not faults
    assert count > 0
    assert theirs <= ours
    assert theirs < ours or kind != "node"
    assert ours >= KNOWN[kind] * count


def onnx_full(model: onnx.ModelProto, names: set[str]) -> int:
    """How many of these outputs onnx's own inference, with data propagation, knows every size of."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes = [o.type.tensor_type for o in inferred.graph.output if o.name in names]
    return sum(s.HasField("shape") and all(d.HasField("dim_value") for d in s.shape.dim) for s in shapes)
