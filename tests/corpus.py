"""The models that the onnx package generates or ships for its backend tests, with inputs to run them on."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.reference import ReferenceEvaluator

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator", "light")


@dataclass(frozen=True, slots=True)
class Case:
    """`feeds` is one set of inputs, in the order of the graph's inputs; trailing ones with defaults may be missing."""

    name: str
    kind: str
    model: onnx.ModelProto
    feeds: Sequence[object] = field(default=())


@functools.cache
def cases(kind: str) -> tuple[Case, ...]:
    """All cases of one of `KINDS`, by name. Generating `node` takes about ten seconds."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if kind == "node":
            from onnx.backend.test.case import node

            listed = [_made(case, kind) for case in node.collect_testcases(None)]
        elif kind == "light":
            listed = [_light(path) for path in (_data() / "light").glob("*.onnx")]
        else:
            listed = [_stored(folder, kind) for folder in (_data() / kind).iterdir()]
            if kind == "simple":
                from onnx.backend.test.case import model

                names = {case.name for case in listed}
                models = [c for c in model.collect_testcases() if c.kind == kind and c.model is not None]
                listed += [_made(case, kind) for case in models if case.name not in names]
    return tuple(sorted(listed, key=lambda case: case.name))


def _data() -> Path:
    return Path(os.path.dirname(onnx.backend.test.__file__)) / "data"


def _made(case: TestCase, kind: str) -> Case:
    first = case.data_sets[0][0]
    feeds = [numpy_helper.to_array(item) if isinstance(item, onnx.TensorProto) else item for item in first]
    return Case(case.name, kind, case.model, feeds)


def _stored(folder: Path, kind: str) -> Case:
    model = onnx.load(folder / "model.onnx")
    files = sorted(folder.glob("test_data_set_0/input_*.pb"), key=lambda path: int(path.stem.split("_")[1]))
    feeds = [_read(path.read_bytes(), info.type) for path, info in zip(files, model.graph.input, strict=False)]
    return Case(folder.name, kind, model, feeds)


def _read(data: bytes, type: onnx.TypeProto) -> object:
    if type.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
    if type.HasField("optional_type"):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
    return numpy_helper.to_array(onnx.TensorProto.FromString(data))


def _light(path: Path) -> Case:
    model = onnx.load(path)
    initialized = {tensor.name for tensor in model.graph.initializer}
    random = np.random.default_rng(0)
    feeds = []
    for info in model.graph.input:
        if info.name not in initialized:
            shape = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
            feeds.append(random.standard_normal(shape, np.float32))
    return Case(path.stem, "light", model, feeds)


class CannotRun(Exception):
    """Neither ONNX Runtime nor the reference evaluator runs the model; says why."""


def outputs(models: Iterable[onnx.ModelProto], feeds: Sequence[object]) -> list[list[object]]:
    """The outputs of each model on the same inputs: all on ONNX Runtime, without its optimisations, or all on the
    reference evaluator where ONNX Runtime cannot run the first. Raises `CannotRun`."""
    models = list(models)
    try:
        first = _run(models[0], feeds)
    except Exception as error:
        try:
            first = _evaluate(models[0], feeds)
        except Exception as second:
            raise CannotRun(f"{error}; {second}") from second
        return [first, *(_evaluate(model, feeds) for model in models[1:])]
    return [first, *(_run(model, feeds) for model in models[1:])]


def _run(model: onnx.ModelProto, feeds: Sequence[object]) -> list[object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [info.name for info in session.get_inputs()]
    arrays = [np.asarray(feed) if isinstance(feed, np.generic) else feed for feed in feeds]
    return session.run(None, dict(zip(names, arrays)))


def _evaluate(model: onnx.ModelProto, feeds: Sequence[object]) -> list[object]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        evaluator = ReferenceEvaluator(model)
        return evaluator.run(None, dict(zip(evaluator.input_names, feeds)))


def same(one: object, other: object) -> bool:
    """Equal to the bit; NaN equals NaN."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        if one.dtype == object:
            return one.tolist() == other.tolist()
        return one.tobytes() == other.tobytes() or np.array_equal(one, other, equal_nan=True)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, np.generic) and isinstance(other, np.generic):
        return same(np.asarray(one), np.asarray(other))
    return one == other
