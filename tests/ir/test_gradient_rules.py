"""Each gradient rule against central differences in double precision, over seeded random shapes and attributes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gradients import Array, Case, check

RANDOM = np.random.default_rng(7)


def normal(*shape: int) -> Array:
    return RANDOM.standard_normal(shape)


def apart(*shape: int, step: float = 0.1) -> Array:
    """Numbers no two of which are close, none of them near a multiple of one half: no kink is within a step."""
    size = int(np.prod(shape))
    return (RANDOM.permutation(size).reshape(shape) - size / 2 + 0.29) * step


def positive(*shape: int) -> Array:
    return RANDOM.uniform(0.3, 2.0, shape)


def inside(*shape: int) -> Array:
    return RANDOM.uniform(-0.8, 0.8, shape)


def ints(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def elementwise() -> Iterator[Case]:
    shapes = [
        ((2, 3, 4), (2, 3, 4)),
        ((2, 3, 4), (4,)),
        ((3, 1), (2, 1, 4)),
        ((), (2, 3)),
        ((2, 3), ()),
        ((1, 3), (2, 3)),
    ]
    for one, other in shapes:
        for op in ("Add", "Sub", "Mul"):
            yield Case(op, [normal(*one), normal(*other)])
        yield Case("Div", [normal(*one), positive(*other)])
        yield Case("Pow", [positive(*one), normal(*other)])
        values = apart(int(np.prod(one)) + int(np.prod(other)))
        for op in ("Max", "Min"):
            yield Case(op, [values[: int(np.prod(one))].reshape(one), values[int(np.prod(one)) :].reshape(other)])
        yield Case("Where", [np.asarray(RANDOM.random(one) < 0.5), normal(*other), normal(*one)])
    yield Case("Pow", [normal(3, 4), np.array(2.0)], constants=(1,))
    yield Case("Pow", [normal(3, 4), np.array([3.0])], constants=(1,))
    yield Case("Pow", [normal(3, 4), np.array([0.0, 1.0, 2.0, 3.0])], constants=(1,))
    yield Case("Sum", [normal(2, 3), normal(3), normal(2, 1)])
    yield Case("Mean", [normal(2, 3), normal(3), normal(2, 1)])
    yield Case("Max", [apart(3, 4), apart(3, 4) + 0.03, apart(3, 4) + 0.06])
    yield Case("Mod", [positive(3, 4) * 5, np.array(1.3)], {"fmod": 1})
    for op in ("Neg", "Abs", "Exp", "Erf", "Sin", "Cos", "Sinh", "Cosh", "Asinh", "Identity"):
        yield Case(op, [normal(3, 4)])
    for op in ("Sqrt", "Log", "Reciprocal"):
        yield Case(op, [positive(3, 4)])
    for op in ("Tan", "Asin", "Acos", "Atan", "Atanh"):
        yield Case(op, [inside(3, 4)])
    yield Case("Acosh", [positive(3, 4) + 1.0])


def activations() -> Iterator[Case]:
    for op in ("Relu", "Sigmoid", "HardSwish", "Tanh", "Softplus", "Softsign", "Mish", "Elu", "Selu", "Celu"):
        yield Case(op, [apart(4, 12)])
    yield Case("Gelu", [apart(4, 12)], judge="single")
    yield Case("LeakyRelu", [apart(4, 5)], {"alpha": 0.3})
    yield Case("ThresholdedRelu", [apart(4, 5)], {"alpha": 0.4})
    yield Case("Elu", [apart(4, 5)], {"alpha": 0.7})
    yield Case("Celu", [apart(4, 5)], {"alpha": 1.7})
    yield Case("Selu", [apart(4, 5)], {"alpha": 1.5, "gamma": 1.2})
    yield Case("HardSigmoid", [apart(4, 5)], {"alpha": 0.4, "beta": 0.6})
    yield Case("HardSigmoid", [apart(4, 20)])
    yield Case("Gelu", [normal(4, 5)], {"approximate": "tanh"})
    yield Case("PRelu", [apart(2, 3, 4), normal(3, 1)])
    yield Case("PRelu", [apart(2, 3), normal(1)])
    yield Case("Clip", [apart(4, 5), np.array(-0.5), np.array(0.5)])
    yield Case("Clip", [apart(4, 5), None, np.array(0.5)])
    yield Case("Clip", [apart(4, 5), np.array(-0.5)])
    for axis in (-1, 0, 1):
        for opset in (11, 13):
            for op in ("Softmax", "LogSoftmax"):
                yield Case(op, [normal(2, 3, 4)], {"axis": axis}, opset=opset, judge="runtime")


def products() -> Iterator[Case]:
    shapes = [
        ((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 1, 3, 4), (5, 4, 2)), ((3, 4), (2, 4, 5)),
        ((4,), (4,)), ((4,), (4, 5)), ((3, 4), (4,)), ((4,), (2, 4, 5)), ((2, 3, 4), (4,)), ((1, 3, 4), (2, 4, 5)),
    ]  # fmt: skip
    for a, b in shapes:
        static_batches = (len(a) > 2 and len(b) > 2) or (len(b) > 2 and len(a) > 1)
        yield Case("MatMul", [normal(*a), normal(*b)], open=not static_batches)
    for turn_a in (0, 1):
        for turn_b in (0, 1):
            a, b = normal(3, 4), normal(4, 5)
            attributes = {"transA": turn_a, "transB": turn_b, "alpha": 0.7, "beta": 1.3}
            yield Case("Gemm", [a.T if turn_a else a, b.T if turn_b else b, normal(5)], attributes)
    yield Case("Gemm", [normal(3, 4), normal(4, 5)])
    yield Case("Gemm", [normal(3, 4), normal(4, 5), normal(3, 1)])
    for equation, operands in (
        ("ij,jk->ik", ((2, 3), (3, 4))),
        ("bij,bjk->bik", ((2, 2, 3), (2, 3, 4))),
        ("bhid,bhjd->bhij", ((2, 2, 3, 4), (2, 2, 5, 4))),
        ("ij->i", ((2, 3),)),
        ("ij,jk", ((2, 3), (3, 4))),
        ("i,j,k->ikj", ((2,), (3,), (4,))),
        ("ij,k->ik", ((2, 3), (4,))),
    ):
        yield Case("Einsum", [normal(*shape) for shape in operands], {"equation": equation})


def normalisations() -> Iterator[Case]:
    for shape in ((2, 3, 4, 5), (2, 3), (2, 3, 6)):
        yield Case("BatchNormalization", [normal(*shape), normal(3), normal(3), normal(3), positive(3)])
        yield Case("LpNormalization", [apart(*shape)], {"axis": 1, "p": 2})
        yield Case("LpNormalization", [apart(*shape)], {"axis": -1, "p": 1})
    for axis in (-1, 1):
        tail = (4,) if axis == -1 else (3, 4)
        yield Case("LayerNormalization", [normal(2, 3, 4), normal(*tail), normal(*tail)], {"axis": axis})
        yield Case("LayerNormalization", [normal(2, 3, 4), normal(*tail)], {"axis": axis, "epsilon": 0.1})
        yield Case("RMSNormalization", [normal(2, 3, 4), normal(*tail)], {"axis": axis, "epsilon": 0.1}, opset=23)
    yield Case("InstanceNormalization", [normal(2, 3, 4, 5), normal(3), normal(3)])
    yield Case(
        "GroupNormalization", [normal(2, 6, 4, 3), normal(3), normal(3)], {"num_groups": 3}, opset=18, judge="single"
    )
    channels = [normal(2, 6, 4, 3), normal(6), normal(6)]
    yield Case("GroupNormalization", channels, {"num_groups": 3}, open=False, judge="single")
    yield Case("LRN", [normal(2, 6, 3, 3)], {"size": 3, "alpha": 0.3, "beta": 0.6, "bias": 1.5}, judge="single")
    yield Case("LRN", [normal(2, 6, 3, 3)], {"size": 5, "alpha": 0.3}, judge="single")
    yield Case("MeanVarianceNormalization", [normal(2, 3, 4, 5)], judge="single")


def convolutions() -> Iterator[Case]:
    """Random sizes, strides, dilations, borders and groups in one to three axes."""
    for seed in range(60):
        random = np.random.default_rng(seed)
        rank = int(random.integers(1, 4)) if seed >= 30 else 2
        kernel = random.integers(1, 4, rank)
        strides, dilations = random.integers(1, 4, rank), random.integers(1, 3, rank)
        pads = random.integers(0, 3, 2 * rank)
        reach = (kernel - 1) * dilations + 1
        group = int(random.integers(1, 4))
        each, out = int(random.integers(1, 3)), int(random.integers(1, 3))
        if seed % 5 == 0:  # depthwise
            each = out = 1
        sizes = reach + random.integers(0, 5, rank)
        x, w = normal(2, group * each, *sizes), normal(group * out, each, *kernel)
        attributes: dict[str, Any] = {
            "strides": strides.tolist(), "dilations": dilations.tolist(), "pads": pads.tolist(), "group": group,
        }  # fmt: skip
        inputs = [x, w, normal(group * out)][: 2 + seed % 2]
        yield Case("Conv", inputs, attributes, fixed=(1,))
        for auto in ("SAME_UPPER", "SAME_LOWER", "VALID"):
            if seed % 10 == 3:
                plain = {**attributes, "auto_pad": auto, "dilations": [1] * rank}
                del plain["pads"]
                yield Case("Conv", inputs, plain, fixed=(1,), open=auto == "VALID" or max(strides) == 1)
        w = normal(group * each, out, *kernel)
        inputs = [x, w, normal(group * out)][: 2 + seed % 2]
        attributes = {**attributes, "pads": np.minimum(pads, np.tile(reach - 1, 2) // 2).tolist()}
        yield Case("ConvTranspose", inputs, attributes, fixed=(1,))
        extra = np.minimum(random.integers(0, 3, rank), strides - 1)
        ends = np.maximum(attributes["pads"][rank:], extra).tolist()
        attributes = {**attributes, "output_padding": extra.tolist(), "pads": attributes["pads"][:rank] + ends}
        yield Case("ConvTranspose", inputs, attributes, fixed=(1,))


def reductions() -> Iterator[Case]:
    for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare",
               "ReduceLogSumExp", "ReduceLogSum", "ReduceProd"):  # fmt: skip
        data = positive(2, 3, 4) if op == "ReduceLogSum" else apart(2, 3, 4)
        for axes in ((1,), (0, 2), (-1,), (0, 1, 2)):
            for keepdims in (0, 1):
                if op != "ReduceProd" or len(axes) == 1:
                    inputs = [data, ints(*axes)]
                    yield Case(op, inputs, {"keepdims": keepdims}, constants=(1,), open=op != "ReduceProd")
        if op != "ReduceProd":
            yield Case(op, [data])
        yield Case(op, [data, ints()], {"noop_with_empty_axes": 1}, constants=(1,))
        if op not in ("ReduceSum", "ReduceProd"):
            yield Case(op, [data], {"axes": [1]}, opset=13)
    for exclusive in (0, 1):
        for reverse in (0, 1):
            attributes = {"exclusive": exclusive, "reverse": reverse}
            yield Case("CumSum", [normal(3, 4), np.array(1)], attributes, constants=(1,))


def pools() -> Iterator[Case]:
    yield Case("GlobalAveragePool", [normal(2, 3, 4, 5)])
    yield Case("GlobalMaxPool", [apart(2, 3, 4, 5)])
    yield Case("GlobalLpPool", [apart(2, 3, 4)], {"p": 2})
    yield Case("GlobalLpPool", [apart(2, 3, 4, 5)], {"p": 3})
    for seed in range(40):
        random = np.random.default_rng(seed)
        rank = int(random.integers(1, 4)) if seed > 20 else 2
        kernel, strides = random.integers(1, 4, rank), random.integers(1, 4, rank)
        pads = np.minimum(random.integers(0, 3, 2 * rank), np.tile(kernel - 1, 2))
        ceil = int(seed % 3 == 2)
        attributes: dict[str, Any] = {"kernel_shape": kernel.tolist(), "strides": strides.tolist(), "ceil_mode": ceil}
        sizes = kernel + random.integers(0, 6, rank)
        if seed % 4 == 3 and not ceil:
            attributes["auto_pad"] = ("SAME_UPPER", "SAME_LOWER", "VALID")[seed % 3]
            attributes["strides"] = np.minimum(strides, kernel).tolist()  # else the pads would be negative
        else:
            attributes["pads"] = pads.tolist()
        x = apart(2, 3, *sizes)
        fixed = (0,) if ceil or attributes.get("auto_pad", "").startswith("SAME") else ()
        yield Case("MaxPool", [x], attributes, fixed=fixed, judge="runtime")
        if ceil:
            continue  # how windows past the end are counted is told differently by onnx and by its runtimes
        fixed = fixed or ((0,) if pads.any() else ())
        attributes["count_include_pad"] = seed // 2 % 2
        # Onnx's reference cannot pad in front only.
        judge: Any = "single" if attributes.get("auto_pad") == "SAME_LOWER" else "reference"
        yield Case("AveragePool", [x], attributes, fixed=fixed, judge=judge)
        del attributes["count_include_pad"]
        if seed % 4 != 3:
            yield Case("LpPool", [x], {**attributes, "p": 2 + seed % 2}, opset=18)


def structure() -> Iterator[Case]:
    x = normal(2, 3, 4)
    yield Case("Reshape", [x, ints(4, -1)], constants=(1,))
    yield Case("Flatten", [x], {"axis": 2})
    yield Case("Squeeze", [normal(2, 1, 3), ints(1)], constants=(1,), fixed=(0,))
    yield Case("Unsqueeze", [x, ints(0, 2)], constants=(1,))
    yield Case("Transpose", [x], {"perm": [2, 0, 1]})
    yield Case("Transpose", [x])
    yield Case("Expand", [normal(3, 1), ints(2, 3, 4)], constants=(1,))
    yield Case("Expand", [normal(1), ints(2, 1)], constants=(1,))
    yield Case("Tile", [x, ints(2, 1, 3)], constants=(1,))
    for axis in (0, 1, -1):
        shapes = [[2, 3, 4], [2, 3, 4], [2, 3, 4]]
        shapes[1][axis], shapes[2][axis] = 1, 5
        for opset in (11, 13):
            yield Case("Concat", [normal(*shape) for shape in shapes], {"axis": axis}, opset=opset)
    yield Case("Split", [normal(4, 6), ints(1, 2, 3)], {"axis": 1}, outputs=3, constants=(1,))
    yield Case("Split", [normal(4, 6)], {"axis": -1, "num_outputs": 2}, outputs=2)
    for starts, ends, axes, steps in (
        ((1,), (3,), (1,), (1,)), ((0, -2), (1 << 40, 9), (0, 2), (1, 1)), ((0,), (9,), (2,), (2,)),
        ((-1,), (-(1 << 40),), (1,), (-1,)), ((4, 1), (0, 3), (2, 0), (-2, 1)), ((1, 0), (9, 9), (2, 1), (3, 2)),
        ((3, 5), (-9, 0), (0, 2), (-3, -2)),
    ):  # fmt: skip
        yield Case(
            "Slice", [normal(4, 5, 6), ints(*starts), ints(*ends), ints(*axes), ints(*steps)], constants=(1, 2, 3, 4)
        )
        yield Case(
            "Slice",
            [normal(4, 5, 6), ints(*starts), ints(*ends), ints(*axes), ints(*steps)],
            constants=(3, 4),
            fixed=(1, 2),
        )
    yield Case("Slice", [normal(4, 5), ints(1, 1), ints(3, 4)], constants=(1, 2))
    for mode in ("constant", "reflect", "edge", "wrap"):
        yield Case("Pad", [normal(3, 4), ints(1, 0, 2, 3)], {"mode": mode}, constants=(1,), open=mode == "constant")
        only = [normal(3, 4), ints(2, 1), None, ints(1)]
        yield Case("Pad", only, {"mode": mode}, constants=(1, 3), open=mode == "constant")
    yield Case("DepthToSpace", [normal(2, 8, 3, 2)], {"blocksize": 2})
    yield Case("DepthToSpace", [normal(2, 8, 3, 2)], {"blocksize": 2, "mode": "CRD"}, open=False)
    yield Case("SpaceToDepth", [normal(2, 3, 4, 6)], {"blocksize": 2})
    yield Case("Trilu", [normal(3, 4), np.array(1)], {"upper": 0}, constants=(1,))
    yield Case("Dropout", [normal(3, 4)])


def selection() -> Iterator[Case]:
    x = normal(4, 5, 3)
    for axis in (0, 1, -1):
        for indices in (ints(1, 0, 1), np.array([[0, 2], [-1, 2]]), np.array(1), np.array(-1), ints(2)):
            yield Case("Gather", [x, indices], {"axis": axis})
            yield Case("Gather", [x, indices], {"axis": axis}, constants=(1,))
        index = RANDOM.integers(-3, 3, x.shape)
        yield Case("GatherElements", [x, np.take(index, range(2), axis)], {"axis": axis}, judge="runtime")
    yield Case("GatherND", [x, np.array([[0, 1], [3, -1], [0, 1]])])
    yield Case("GatherND", [x, np.array([[[1], [0]], [[2], [2]], [[-1], [2]], [[0], [1]]])], {"batch_dims": 1})
    unique = np.argsort(RANDOM.random((4, 5, 3)), axis=0)[:2]
    yield Case("ScatterElements", [x, unique, normal(2, 5, 3)], {"axis": 0})
    yield Case("ScatterElements", [x, unique, normal(2, 5, 3)], {"axis": 0, "reduction": "add"})
    yield Case("ScatterND", [x, np.array([[0, 1], [3, 2]]), normal(2, 3)])
    yield Case("ScatterND", [x, np.array([[0, 1], [0, 1]]), normal(2, 3)], {"reduction": "add"})


def resizing() -> Iterator[Case]:
    x = normal(2, 3, 4, 5)
    for mode in ("nearest", "linear", "cubic"):
        for coordinates in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"):
            attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
            for scales in ((1, 1, 2, 3), (1, 1, 1.5, 0.5)):
                inputs = [x, None, np.array(scales, np.float32)]
                judge = "single" if mode == "nearest" or scales[2] == 1.5 else "reference"
                yield Case("Resize", inputs, attributes, constants=(2,), into=(0,), judge=judge)
            # Onnx's reference rounds the nearest of corners that are aligned another way than runtimes do.
            judge: Any = "single" if (mode, coordinates) == ("nearest", "align_corners") else "reference"
            yield Case("Resize", [x, None, None, ints(2, 3, 7, 3)], attributes, constants=(3,), judge=judge)
    for rounding in ("floor", "ceil", "round_prefer_ceil", "round_prefer_floor"):
        for coordinates in ("half_pixel", "asymmetric"):
            attributes = {"nearest_mode": rounding, "coordinate_transformation_mode": coordinates}
            yield Case("Resize", [x, None, np.array([1, 1, 2.0, 3])], attributes, constants=(2,), into=(0,))
    yield Case("Resize", [x, None, None, ints(6, 10)], {"mode": "linear", "axes": [2, 3]}, constants=(3,))


def contrib() -> Iterator[Case]:
    for op in ("Gelu", "BiasGelu", "FastGelu", "QuickGelu"):
        bias = [normal(5)] if op in ("BiasGelu", "FastGelu") else []
        yield Case(op, [normal(2, 3, 5), *bias], domain="com.microsoft", judge="single")
    yield Case("FastGelu", [normal(2, 3, 5)], domain="com.microsoft", judge="single")


def fused() -> Iterator[Case]:
    x, skip, gamma, beta, bias = normal(2, 3, 8), normal(2, 3, 8), normal(8), normal(8), normal(8)
    ours: Any = {"domain": "com.microsoft", "judge": "single"}
    yield Case("SkipLayerNormalization", [x, skip, gamma, beta, bias], {"epsilon": 1e-3}, fixed=(2, 3, 4), **ours)
    yield Case("SkipLayerNormalization", [x, skip, gamma], {"epsilon": 1e-3}, fixed=(0, 1, 2), **ours)
    yield Case("SkipSimplifiedLayerNormalization", [x, skip, gamma], {"epsilon": 1e-3}, fixed=(0, 1, 2), **ours)
    yield Case(
        "FusedMatMul", [normal(2, 4, 3), normal(2, 5, 4)], {"transA": 1, "transB": 1, "alpha": 0.5}, open=False, **ours
    )
    layers = [normal(2, 3, 5, 5), normal(4, 3, 3, 3), normal(4)]
    yield Case("FusedConv", layers, {"activation": "Sigmoid", "pads": [1] * 4}, fixed=(1,), **ours)
    clipped = {"activation": "Clip", "activation_params": [-50.0, 50.0]}
    yield Case("FusedConv", [*layers, normal(2, 4, 3, 3)], clipped, fixed=(1,), open=False, **ours)
    yield Case("FusedGemm", [normal(2, 3), normal(3, 4), normal(4)], {"activation": "Tanh"}, **ours)
    for causal in (0, 1):
        attributes = {"num_heads": 2, "unidirectional": causal}
        mask = np.array([[1, 1, 0], [1, 1, 1]], np.int32)
        yield Case("Attention", [x, normal(8, 24), normal(24), mask], attributes, fixed=(1, 2), open=False, **ours)
    yield Case("Attention", [x, normal(8, 24), normal(24)], {"num_heads": 4}, fixed=(1, 2), open=False, **ours)
    sides = [normal(2, 3, 8), normal(2, 5, 8), normal(2, 5, 8)]
    yield Case("MultiHeadAttention", sides, {"num_heads": 2}, open=False, **ours)
    yield Case("MultiHeadAttention", [*sides, normal(24)], {"num_heads": 2, "scale": 0.3}, open=False, **ours)


def recurrent() -> Iterator[Case]:
    samples, steps, width, hidden = 2, 3, 4, 3
    for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        for direction in ("forward", "reverse", "bidirectional"):
            d = 2 if direction == "bidirectional" else 1
            outputs = 3 if op == "LSTM" else 2
            x, w = normal(steps, samples, width), normal(d, gates * hidden, width)
            r, b = normal(d, gates * hidden, hidden), normal(d, 2 * gates * hidden)
            state, attributes = normal(d, samples, hidden), {"direction": direction, "hidden_size": hidden}
            plain: Any = {"outputs": outputs, "judge": "single", "open": False}
            yield Case(op, [x, w, r], attributes, **plain)
            lengths = np.array([3, 2], np.int32)
            states = [state, normal(d, samples, hidden)] if op == "LSTM" else [state]
            yield Case(op, [x, w, r, b, None, *states], attributes, **plain)
            yield Case(op, [x, w, r, b, lengths, *states], attributes, **plain)
        if op == "GRU":
            yield Case(
                op, [x[:, :, :], w[:1], r[:1], b[:1]], {"linear_before_reset": 1, "hidden_size": hidden}, **plain
            )
        if op == "LSTM":
            full = [x, w[:1], r[:1], b[:1], None, state[:1], state[1:], normal(1, 3 * hidden)]
            yield Case(op, full, {"hidden_size": hidden}, **plain)
            yield Case(op, full[:4], {"hidden_size": hidden, "input_forget": 1}, **plain)
            names = {
                "activations": ["HardSigmoid", "Softsign", "Tanh"],
                "activation_alpha": [0.3],
                "activation_beta": [0.4],
            }
            yield Case(op, full[:4], {"hidden_size": hidden, **names}, **plain)


FAMILIES = (
    elementwise, activations, products, normalisations, convolutions, reductions, pools, structure, selection, resizing,
    contrib, fused, recurrent,
)  # fmt: skip


def _cases() -> Iterator[Any]:
    for family in FAMILIES:
        for i, case in enumerate(family()):
            yield pytest.param(case, id=f"{family.__name__}-{i}-{case.op}")


@pytest.mark.parametrize("case", list(_cases()))
def test_the_gradient_is_that_of_differences(case: Case) -> None:
    check(case)
