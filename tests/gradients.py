"""Whether a gradient is one: central differences in double precision, along random directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnxruntime
import scipy.special
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from optc.ir.gradient.differentiate import differentiate
from optc.ir.graph import Graph, Value
from optc.ir.onnx.writer import to_bytes, to_proto
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType

Array = npt.NDArray[np.generic]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """One operator: floats are differentiated, integers and booleans are not; `None` is an absent input."""

    op: str
    inputs: Sequence[Array | None]
    attributes: Mapping[str, object] = field(default_factory=dict)
    outputs: int = 1
    opset: int = 21
    domain: str = ""
    constants: tuple[int, ...] = ()
    """Inputs that are constants: operators read sizes, axes and repeats from them."""
    fixed: tuple[int, ...] = ()
    """Inputs whose sizes are known even where those of the others are open."""
    open: bool = True
    """Whether the rule works where sizes are open."""
    judge: Literal["reference", "runtime", "single"] = "reference"
    """Who answers in double precision: onnx's reference, or ONNX Runtime where that is not right about the operator; or
    ONNX Runtime in single precision, with a larger step, where it has nothing else."""
    into: tuple[int, ...] | None = None
    """The inputs that have a gradient; all floats by default."""

    def graph(self, dtype: DType, open_sizes: bool) -> tuple[Graph, dict[str, Array]]:
        graph = Graph("case", opsets={"": self.opset, **({self.domain: 1} if self.domain else {})})
        values: list[Value | None] = []
        feeds: dict[str, Array] = {}
        for i, array in enumerate(self.inputs):
            if array is None:
                values.append(None)
                continue
            data = array.astype(dtype.numpy) if array.dtype.kind == "f" else array
            if i in self.constants:
                values.append(graph.constant(data, f"x{i}"))
                continue
            named = open_sizes and i not in self.fixed
            sizes = tuple(f"s{i}_{axis}" if named else size for axis, size in enumerate(data.shape))
            values.append(graph.add_input(f"x{i}", TensorType(DType.of(data.dtype), sizes)))
            feeds[f"x{i}"] = data
        node = graph.add(self.op, values, self.attributes, outputs=self.outputs, domain=self.domain)  # type: ignore[arg-type]
        infer(graph)
        for i, value in enumerate(node.outputs):
            if value.dtype is None or value.dtype.is_float:
                graph.add_output(value, f"y{i}", TensorType(dtype))
        return graph, feeds


class ConvTranspose(OpRun):  # type: ignore[misc]
    """Onnx's own takes one sample, and neither dilations nor groups."""

    op_domain = ""

    def _run(
        self, x: Doubles, weight: Doubles, bias: Doubles | None = None, *, auto_pad: str | None = None,
        dilations: Sequence[int] | None = None, group: int | None = None, kernel_shape: Sequence[int] | None = None,
        output_padding: Sequence[int] | None = None, output_shape: Sequence[int] | None = None,
        pads: Sequence[int] | None = None, strides: Sequence[int] | None = None,
    ) -> tuple[Doubles]:  # fmt: skip
        kernel, rank, groups = weight.shape[2:], x.ndim - 2, group or 1
        steps, holes = strides or (1,) * rank, dilations or (1,) * rank
        more, borders = output_padding or (0,) * rank, pads or (0,) * 2 * rank
        reach = [s * (n - 1) + d * (k - 1) + 1 for s, n, d, k in zip(steps, x.shape[2:], holes, kernel)]
        whole = np.zeros((x.shape[0], groups, weight.shape[1], *(r + m for r, m in zip(reach, more))))
        parts = x.reshape(x.shape[0], groups, -1, *x.shape[2:])
        kernels = weight.reshape(groups, -1, *weight.shape[1:])
        for place in np.ndindex(*kernel):
            spots = tuple(slice(i * d, i * d + s * n, s) for i, d, s, n in zip(place, holes, steps, x.shape[2:]))
            product = np.einsum("ngc...,gco->ngo...", parts, kernels[(..., *place)])
            view = whole[(slice(None),) * 3 + spots]
            view += product[tuple(slice(0, size) for size in view.shape)]
        cut = tuple(slice(borders[i], whole.shape[3 + i] - borders[rank + i]) for i in range(rank))
        result = whole.reshape(x.shape[0], -1, *whole.shape[3:])[(slice(None), slice(None), *cut)]
        return (result if bias is None else result + bias.reshape(-1, *(1,) * rank),)


class Conv(OpRun):  # type: ignore[misc]
    """Onnx's own is right and takes minutes for a network."""

    op_domain = ""

    def _run(
        self, x: Doubles, weight: Doubles, bias: Doubles | None = None, *, auto_pad: str | None = None,
        dilations: Sequence[int] | None = None, group: int | None = None, kernel_shape: Sequence[int] | None = None,
        pads: Sequence[int] | None = None, strides: Sequence[int] | None = None,
    ) -> tuple[Doubles]:  # fmt: skip
        kernel, rank, groups = weight.shape[2:], x.ndim - 2, group or 1
        steps, holes = strides or (1,) * rank, dilations or (1,) * rank
        borders = list(pads or (0,) * 2 * rank)
        for axis in range(rank):
            if (auto_pad or "NOTSET").startswith("SAME"):
                reach = (kernel[axis] - 1) * holes[axis] + 1
                total = max((-(-x.shape[axis + 2] // steps[axis]) - 1) * steps[axis] + reach - x.shape[axis + 2], 0)
                first = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
                borders[axis], borders[axis + rank] = first, total - first
            elif auto_pad == "VALID":
                borders[axis] = borders[axis + rank] = 0
        x = np.pad(x, [(0, 0), (0, 0), *zip(borders[:rank], borders[rank:])])
        sizes = [(n - (k - 1) * d - 1) // s + 1 for n, k, d, s in zip(x.shape[2:], kernel, holes, steps)]
        parts = x.reshape(x.shape[0], groups, -1, *x.shape[2:])
        kernels = weight.reshape(groups, -1, *weight.shape[1:])
        whole = np.zeros((x.shape[0], groups, kernels.shape[1], int(np.prod(sizes))), x.dtype)
        for place in np.ndindex(*kernel):
            spots = [slice(i * d, i * d + s * (n - 1) + 1, s) for i, d, s, n in zip(place, holes, steps, sizes)]
            read = parts[(..., *spots)].reshape(x.shape[0], groups, parts.shape[2], -1)
            factor = kernels[(..., *place)]
            whole += factor * read if factor.shape[1:] == (1, 1) else np.matmul(factor, read)
        result = whole.reshape(x.shape[0], weight.shape[0], *sizes)
        return (result if bias is None else result + bias.reshape(-1, *(1,) * rank),)


class GlobalLpPool(OpRun):  # type: ignore[misc]
    op_domain = ""

    def _run(self, x: Doubles, *, p: int | None = None) -> tuple[Doubles]:
        power = p or 2
        total = (np.abs(x) ** power).sum(axis=tuple(range(2, x.ndim)), keepdims=True)
        return (total ** (1 / power),)


class LpNormalization(OpRun):  # type: ignore[misc]
    op_domain = ""

    def _run(self, x: Doubles, *, p: int | None = None, axis: int | None = None) -> tuple[Doubles]:
        return (x / np.linalg.norm(x, p or 2, axis=-1 if axis is None else axis, keepdims=True),)


class Erf(OpRun):  # type: ignore[misc]
    op_domain = ""

    def _run(self, x: Doubles) -> tuple[Doubles]:
        return (scipy.special.erf(x),)


def reference(graph: Graph, feeds: Mapping[str, Array]) -> list[Array]:
    answers: list[Array] = ReferenceEvaluator(to_proto(graph), new_ops=_OWN).run(None, dict(feeds))
    return answers


def runtime(graph: Graph, feeds: Mapping[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(to_bytes(graph), options, providers=["CPUExecutionProvider"])
    answers: list[Array] = session.run(None, dict(feeds))
    return answers


_OWN = [Conv, ConvTranspose, Erf, GlobalLpPool, LpNormalization]
"""What onnx's reference lacks, does in single precision, or has only for some attributes."""

Run = Callable[[Graph, Mapping[str, Array]], list[Array]]


def differences(
    graph: Graph, feeds: Mapping[str, Array], seeds: Sequence[Doubles], name: str, move: Doubles, run: Run
) -> float:
    """The derivative of sum(seed * output) along `move`, a small step of one input; times its length."""
    values = []
    for sign in (1.0, -1.0):
        moved = {**feeds, name: (feeds[name] + sign * move).astype(feeds[name].dtype)}
        answers = run(graph, moved)
        values.append(sum(float((seed * answer.astype(np.float64)).sum()) for seed, answer in zip(seeds, answers)))
    return (values[0] - values[1]) / 2


def with_gradients(graph: Graph, wrt: Sequence[Value]) -> tuple[Graph, list[str]]:
    """`graph`, with a seed for each of its outputs as an input, and one gradient a value of `wrt` as its outputs."""
    seeds: dict[Value, Value | None] = {}
    answers = [(output.name, output.value) for output in graph.outputs]
    for output in graph.outputs:
        seeds[output.value] = graph.add_input(f"seed.{output.name}", output.value.type)
    gradients = differentiate(graph, seeds, wrt)
    while graph.outputs:
        graph.remove_output(len(graph.outputs) - 1)
    names = []
    for value in wrt:
        if value in gradients.of:
            graph.add_output(gradients.of[value], f"d.{value.name}", TensorType(value.dtype or DType.FLOAT))
            names.append(value.name)
    for name, value in answers:
        graph.add_output(value, name, value.type)
    return graph, names


def check(case: Case, seed: int = 0, *, tolerance: float = 1e-6) -> None:
    """Fail where a gradient of the case is not that of central differences, or ONNX Runtime computes another one."""
    for open_sizes in (False, True) if case.open else (False,):
        if case.judge == "single":
            _check(case, seed, runtime, 1e-2, open_sizes, DType.FLOAT, 1e-2)
        else:
            run = runtime if case.judge == "runtime" else reference
            _check(case, seed, run, tolerance, open_sizes, DType.DOUBLE, 1e-5)


def _check(case: Case, seed: int, run: Run, tolerance: float, open_sizes: bool, dtype: DType, step: float) -> None:
    random = np.random.default_rng(seed)
    graph, feeds = case.graph(dtype, open_sizes)
    answers = run(graph, feeds)
    seeds = [random.standard_normal(answer.shape) for answer in answers]
    floats = [v for v in graph.inputs if feeds[v.name].dtype.kind == "f"]
    expected = [f"x{i}" for i in case.into] if case.into is not None else [v.name for v in floats]
    arrived = {f"seed.{output.name}": one for output, one in zip(graph.outputs, seeds)}
    both, names = _differentiated(graph)
    assert names == expected, (names, expected)
    arrived = {name: one.astype(dtype.numpy) for name, one in arrived.items()}
    gradients = dict(zip(names, run(both, {**feeds, **arrived})))
    single, narrow = case.graph(DType.FLOAT, open_sizes)
    on_runtime, _ = _differentiated(single)
    seeds32 = {name: one.astype(np.float32) for name, one in arrived.items()}
    results = runtime(on_runtime, {**narrow, **seeds32})
    beside = dict(zip(names, results))
    for before, after in zip(runtime(single, narrow), results[len(names) :]):
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
    for name in names:
        gradient = gradients[name]
        assert gradient.shape == feeds[name].shape, (name, gradient.shape, feeds[name].shape)
        scale = max(float(np.abs(gradient).max(initial=0.0)), 1e-3)
        far = float(np.abs(beside[name].astype(np.float64) - gradient).max(initial=0.0))
        assert far <= 3e-4 * scale, f"{name}: ONNX Runtime differs by {far} of {scale}"
        for _ in range(4):
            direction = random.standard_normal(feeds[name].shape)
            direction /= max(float(np.linalg.norm(direction)), 1e-12)
            numeric = differences(graph, feeds, seeds, name, step * direction, run) / step
            analytic = float((gradient * direction).sum())
            size = max(float(np.linalg.norm(gradient)), 1e-3)
            assert abs(numeric - analytic) <= tolerance * size, (name, open_sizes, numeric, analytic, size)


def _differentiated(graph: Graph) -> tuple[Graph, list[str]]:
    copy = graph.clone()
    return with_gradients(copy, [v for v in copy.inputs if v.dtype is not None and v.dtype.is_float])


def doubled(graph: Graph) -> Graph:
    """A copy that computes in double precision."""
    copy = graph.clone()
    for value in tuple(copy.constants):
        data = value.numpy()
        if value.dtype is DType.FLOAT and data is not None:
            value.replace_uses(copy.constant(data.astype(np.float64), value.name))
            copy.remove(value)
    for value in (*copy.inputs, *(output.value for output in copy.outputs)):
        if value.dtype is DType.FLOAT:
            value.type = TensorType(DType.DOUBLE, value.shape)
    for output in copy.outputs:
        output.type = output.value.type
    for node in copy:
        if node.op == "Cast" and node.get_int("to") == int(DType.FLOAT):
            node.set_attribute("to", int(DType.DOUBLE))
        for name in ("value", "value_float"):
            tensor = node.get_tensor(name)
            if tensor is not None and tensor.dtype is DType.FLOAT:
                node.set_attribute(name, tensor.numpy().astype(np.float64))
        for value in node.outputs:
            value.type = None
    infer(copy)
    return copy


def along_weights(graph: Graph, feeds: Mapping[str, Array], seed: int = 0, step: float = 1e-8) -> tuple[float, float]:
    """The derivative of a random mixture of the outputs along a random direction of all weights, as fractions of
    themselves: from the gradients, and from differences. All in double precision.
    """
    random = np.random.default_rng(seed)
    wide = doubled(graph)
    constants = [(value, value.numpy()) for value in wide.constants if value.dtype is DType.DOUBLE]
    weights = [value for value, data in constants if data is not None and data.size > 1]
    arrays = {}
    for i, value in enumerate(weights):
        name = f"weight{i}"
        data = value.numpy()
        assert data is not None
        arrays[name] = data.astype(np.float64)
        value.replace_uses(wide.add_input(name, value.type))
        wide.remove(value)
    fed = {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in feeds.items()} | arrays
    answers = reference(wide, fed)
    seeds = [random.standard_normal(answer.shape) if answer.dtype.kind == "f" else None for answer in answers]
    for index in reversed(range(len(seeds))):
        if seeds[index] is None:
            wide.remove_output(index)
    seeds = [one for one in seeds if one is not None]
    moves = {name: random.standard_normal(array.shape) * np.abs(array) for name, array in arrays.items()}
    values = []
    for sign in (step, -step):
        moved = reference(wide, fed | {name: arrays[name] + sign * move for name, move in moves.items()})
        values.append(sum(float((one * answer).sum()) for one, answer in zip(seeds, moved)))
    inputs = [v for v in wide.inputs if v.name in arrays]
    arrived = {f"seed.{output.name}": one for output, one in zip(wide.outputs, seeds)}
    both, names = with_gradients(wide, inputs)
    gradients = dict(zip(names, reference(both, fed | arrived)))
    analytic = sum(float((gradients[name] * moves[name]).sum()) for name in gradients)
    return analytic, (values[0] - values[1]) / (2 * step)
