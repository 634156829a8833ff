"""The node tests of ONNX's backend suite on targets of TVM: each is answered as the suite or ONNX Runtime does, or
refused by name."""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import interpreted
import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from optc.errors import OptcError
from optc.targets.tvm.cpu.machine import Machine

if TYPE_CHECKING:
    from emulated import Run


@dataclass(frozen=True, slots=True)
class Case:
    """A model of the suite, a set of inputs, what they give, and how near an answer must be."""

    name: str
    model: onnx.ModelProto
    feeds: Sequence[Any]
    answers: Sequence[Any]
    rtol: float
    atol: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """`kind` is equal, refused, wrong or crash; `why` says what differs, or what was said."""

    name: str
    kind: str
    why: str = ""


def cases() -> Iterator[Case]:
    """Those whose inputs and outputs are tensors of numbers, by name. Generating them takes about ten seconds."""
    from onnx.backend.test.case import node

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        everything = sorted(node.collect_testcases(None), key=lambda case: str(case.name))
    for case in everything:
        values = [*case.model.graph.input, *case.model.graph.output]
        if all(v.type.HasField("tensor_type") and v.type.tensor_type.elem_type != TensorProto.STRING for v in values):
            feeds, answers = (list(map(_array, part)) for part in case.data_sets[0])
            yield Case(case.name, case.model, feeds, answers, case.rtol, case.atol)


def _array(item: object) -> np.ndarray:
    return numpy_helper.to_array(item) if isinstance(item, TensorProto) else np.asarray(item)


def commit() -> int:
    """A number of the commit, which says what share is run: so all are run in time, and a run can be repeated."""
    here = Path(__file__).parent
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return int(done.stdout[:8] or "0", 16)


def judge(case: Case, machine: Machine) -> Verdict:
    """Build a case for a machine that runs here, and run it."""
    return verdict(case, lambda model, feeds: interpreted.run(interpreted.build(model, machine), feeds))


def judge_emulated(every: Sequence[Case], machine: Machine, folder: Path, batch: int = 64) -> Iterator[Verdict]:
    """Build cases for a machine that an emulator runs here, and run them, in batches; files go to `folder`."""
    from emulated import Emulator

    emulator = Emulator(machine, folder)
    for start in range(0, len(every), batch):
        part = every[start : start + batch]
        for case, run in zip(part, emulator.answers([(one.model, one.feeds) for one in part]), strict=True):

            def answer(model: onnx.ModelProto, feeds: Sequence[Any], run: Run = run) -> Sequence[np.ndarray]:
                if run.refused is not None:
                    raise run.refused
                if run.failure:
                    raise RuntimeError(run.failure)
                return run.outputs

            yield verdict(case, answer)


def verdict(case: Case, answers: Callable[[onnx.ModelProto, Sequence[Any]], Sequence[np.ndarray]]) -> Verdict:
    """The verdict on what `answers` gives for the model and inputs of a case."""
    try:
        outputs = answers(case.model, case.feeds)
    except OptcError as error:
        text = str(error)
        named = any(op in text for op in _operators(case.model.graph)) or "put '" in text
        return Verdict(case.name, "refused", text) if named else Verdict(case.name, "unnamed", text)
    except Exception as error:
        return Verdict(case.name, "crash", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
    why = _difference(case, outputs, case.answers)
    if why and (runtime := _runtime(case)) is not None:
        # Where the suite and ONNX Runtime differ, as in where a corner is when sizes are rounded, either is right.
        why = _difference(case, outputs, runtime) and why
    return Verdict(case.name, "wrong" if why else "equal", why)


def _operators(graph: onnx.GraphProto) -> Iterator[str]:
    """The operators of a graph and of the bodies in it, which may be written out."""
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _operators(body)


def _runtime(case: Case) -> list[np.ndarray] | None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(case.model.SerializeToString(), options)
        names = [value.name for value in session.get_inputs()]
        return list(session.run(None, dict(zip(names, case.feeds, strict=True))))
    except Exception:
        return None


def _difference(case: Case, outputs: Sequence[np.ndarray], answers: Sequence[np.ndarray]) -> str:
    """How outputs differ from the answers; nothing where they do not. Halves have their own steps."""
    for index, (one, other) in enumerate(zip(outputs, answers, strict=True)):
        if one.dtype != other.dtype or one.shape != other.shape:
            return f"output {index} is {one.dtype} {one.shape}, not {other.dtype} {other.shape}"
        if one.dtype.kind in "iub":
            if not np.array_equal(one, other):
                return f"output {index}: {np.sum(one != other)} of {one.size} numbers differ"
            continue
        rtol = max(case.rtol, {"float16": 2e-3, "bfloat16": 2e-2}.get(one.dtype.name, 0))
        a, b = one.astype(np.float64), other.astype(np.float64)
        with np.errstate(all="ignore"):
            near = np.isclose(a, b, rtol=rtol, atol=max(case.atol, 1e-7), equal_nan=True)
        if not near.all():
            return f"output {index}: {np.sum(~near)} of {one.size} numbers differ"
    return ""
