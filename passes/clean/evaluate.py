"""The value of a node whose inputs are known.

The cheap, common operators are evaluated with numpy, which rounds as IEEE 754 asks and so agrees with ONNX Runtime
to the bit; anything whose result depends on a library's approximation (Exp, Erf, MatMul, Conv ...) is run by ONNX
Runtime itself on a one-node model, with the ONNX reference evaluator behind it. An operator is missing here when
its numpy spelling differs in a corner (integer division by zero, string casts): then the runtime decides.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...ir.allowance import MOST, Effort
from ...ir.node import Node
from ...ir.ops import BROADCASTING, VIEWS, cut
from ...ir.types import DType
from .expected import cost
from .fill import Array, elementwise, expand, is_uniform, reshape, stored_bytes
from .one_node import Runtime, Unknown

Inputs = list["Array | None"]


SMALL_VIEW = 1 << 20
"""Bytes up to which what is repeated may be written out to be computed with."""
OUTPUTS = 1024
"""Outputs of a node that ONNX Runtime is asked for at most."""

_VIEWS = VIEWS | {"Cast", "Expand", "Identity", "Slice", "Transpose"}
_ELEMENTWISE = (BROADCASTING - {"Pow", "Xor"}) | {"Abs", "Ceil", "Floor", "Max", "Min", "Neg", "Not", "Sqrt", "Where"}
_MOVES = frozenset({"Concat", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze", "Equal"})
"""Operators that make no string longer than those they read."""


def evaluate(
    node: Node, inputs: Inputs, opset: int, effort: Effort, limit: int = MOST, runtime: Runtime | None = None
) -> list[Array]:
    """The outputs of a node of the default domain, without bodies. Raises `Unknown`.

    They are computed only where it follows from the inputs that they take at most `limit` bytes, and `effort` is left
    for it; what takes no memory of its own (a view, one element repeated) always is. `runtime` has the sessions of
    nodes before this one.
    """
    runtime = Runtime() if runtime is None else runtime
    rule = _NUMPY.get(node.op)
    free = rule is not None and is_free(node, [a for a in inputs if a is not None])
    if not free:
        shared = _spend(node, inputs, opset, effort, limit, None if rule else runtime)
    if rule is not None:
        try:
            with np.errstate(all="ignore"):
                result = rule(node, inputs, opset)
        except (ValueError, IndexError, TypeError, ArithmeticError):
            result = None
        if result is not None:
            return [result]
        shared = _spend(node, inputs, opset, effort, limit, runtime)
    return runtime.run(node, inputs, shared=shared)


def is_free(node: Node, arrays: list[Array]) -> bool:
    """Whether the result takes no memory of its own: a view, or one element repeated."""
    uniform = [is_uniform(a) or a.size == 1 for a in arrays]
    if node.op in _ELEMENTWISE:
        return all(uniform)
    return node.op in ("Constant", "ConstantOfShape") or (node.op in _VIEWS and uniform[:1] == [True])


def _spend(node: Node, inputs: Inputs, opset: int, effort: Effort, limit: int, runtime: Runtime | None) -> bool:
    """Whether the node computes no products, in which kernels do with constants what they do not with inputs.

    Raises `Unknown` where a node would take too much, or nobody can tell what it takes.
    """
    arrays = [a for a in inputs if a is not None]
    if any(a.nbytes > max(SMALL_VIEW, stored_bytes(a)) for a in arrays):
        raise Unknown("it reads a large repeated value, which would be written out")
    if any(a.dtype == object for a in arrays) and node.op not in _MOVES:
        raise Unknown("strings may grow without bound")
    if runtime is not None and len(node.outputs) > OUTPUTS:
        raise Unknown("the runtime takes the square of its outputs in time")
    taken = cost(node, inputs, opset)
    if taken is None:
        raise Unknown("what it takes does not follow from its inputs")
    size, work = taken
    # A runtime gets a copy of whatever is read, as often as it is read.
    size_there = sum(a.nbytes for a in arrays) if runtime is not None else 0
    opens = runtime is not None and (work > 0 or not runtime.has(node, inputs))
    if size > limit or not effort.spend(size + size_there, work, int(opens)):
        raise Unknown("it would take too much")
    return work == 0


def _ints(array: Array | None) -> list[int]:
    if array is None:
        raise ValueError("an input is absent")
    return [int(v) for v in array.reshape(-1).tolist()]


def _given(inputs: Inputs, index: int) -> Array | None:
    return inputs[index] if index < len(inputs) else None


def _first(inputs: Inputs) -> Array:
    array = inputs[0]
    if array is None:
        raise ValueError("an input is absent")
    return array


def _all(inputs: Inputs) -> list[Array]:
    return [a for a in inputs if a is not None]


def _elementwise(function: Callable[..., Array]) -> Callable[[Node, Inputs, int], Array | None]:
    def rule(node: Node, inputs: Inputs, opset: int) -> Array | None:
        arrays = _all(inputs)
        if opset < 7 or len(arrays) != len(inputs) or any(a.dtype.kind not in "biuf" for a in arrays):
            return None
        return elementwise(function, *arrays)

    return rule


def _fold_left(function: Callable[..., Array]) -> Callable[..., Array]:
    def folded(*arrays: Array) -> Array:
        result = arrays[0]
        for array in arrays[1:]:
            result = function(result, array)
        return result

    return folded


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.asarray(np.true_divide(a, b))
    if not np.all(b):
        raise ValueError("division of integers by zero")
    quotient = np.floor_divide(a, b)
    inexact = (quotient * b != a) & ((a < 0) != (b < 0))
    return np.asarray(quotient + inexact.astype(quotient.dtype), a.dtype)


def _axes(node: Node, inputs: Inputs, index: int) -> list[int]:
    if "axes" in node.attributes:
        return list(node.get_ints("axes"))
    return [] if _given(inputs, index) is None else _ints(_given(inputs, index))


def _constant(node: Node, inputs: Inputs, opset: int) -> Array | None:
    tensor = node.get_tensor("value")
    if tensor is not None:
        return tensor.numpy()
    if "value_int" in node.attributes:
        return np.asarray(node.get_int("value_int"), np.int64)
    if "value_ints" in node.attributes:
        return np.asarray(node.get_ints("value_ints"), np.int64)
    if "value_float" in node.attributes:
        return np.asarray(node.get_float("value_float"), np.float32)
    if "value_floats" in node.attributes:
        return np.asarray(node.attributes["value_floats"].value, np.float32)
    return None


def _constant_of_shape(node: Node, inputs: Inputs, opset: int) -> Array | None:
    tensor = node.get_tensor("value")
    one = np.zeros((), np.float32) if tensor is None else tensor.numpy().reshape(())
    shape = _ints(_first(inputs))
    if any(d < 0 for d in shape):
        return None
    return np.broadcast_to(one, shape) if shape else one


def _cast(node: Node, inputs: Inputs, opset: int) -> Array | None:
    array, to = _first(inputs), DType(node.get_int("to"))
    plain = "biuf"
    if array.dtype.kind not in plain or to is DType.STRING or to.numpy.kind not in plain:
        return None
    if array.dtype.kind == "f" and to.numpy.kind in "iu":
        info = np.iinfo(to.numpy.str)
        if not np.all(np.isfinite(array)) or np.any(array < info.min) or np.any(array >= float(info.max)):
            return None
    return elementwise(lambda a: a.astype(to.numpy), array)


def _reshape(node: Node, inputs: Inputs, opset: int) -> Array | None:
    array = _first(inputs)
    shape = _ints(_given(inputs, 1)) if opset >= 5 else list(node.get_ints("shape"))
    if not node.get_int("allowzero"):
        shape = [array.shape[i] if d == 0 else d for i, d in enumerate(shape)]
    return reshape(array, shape)


def _flatten(node: Node, inputs: Inputs, opset: int) -> Array | None:
    array, axis = _first(inputs), node.get_int("axis", 1)
    axis += array.ndim if axis < 0 else 0
    rows = int(np.prod(array.shape[:axis], dtype=np.int64))
    return reshape(array, (rows, int(np.prod(array.shape[axis:], dtype=np.int64))))


def _transpose(node: Node, inputs: Inputs, opset: int) -> Array | None:
    array = _first(inputs)
    return array.transpose(node.get_ints("perm", range(array.ndim)[::-1]))


def _squeeze(node: Node, inputs: Inputs, opset: int) -> Array | None:
    array, axes = _first(inputs), _axes(node, inputs, 1)
    return np.squeeze(array, tuple(axes)) if axes else np.squeeze(array)


def _unsqueeze(node: Node, inputs: Inputs, opset: int) -> Array | None:
    return np.expand_dims(_first(inputs), tuple(_axes(node, inputs, 1)))


def _slice(node: Node, inputs: Inputs, opset: int) -> Array | None:
    array = _first(inputs)
    if opset < 10:
        starts, ends = list(node.get_ints("starts")), list(node.get_ints("ends"))
        axes, steps = list(node.get_ints("axes")), []
    else:
        starts, ends = _ints(inputs[1]), _ints(inputs[2])
        axes = [] if _given(inputs, 3) is None else _ints(_given(inputs, 3))
        steps = [] if _given(inputs, 4) is None else _ints(_given(inputs, 4))
    axes = axes or list(range(len(starts)))
    steps = steps or [1] * len(starts)
    index = [slice(None)] * array.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[axis] = cut(start, end, step, array.shape[axis])
    return array[tuple(index)]


def _gather(node: Node, inputs: Inputs, opset: int) -> Array | None:
    array, at = _first(inputs), inputs[1]
    if at is None:
        return None
    return np.asarray(np.take(array, at.astype(np.int64), axis=node.get_int("axis")))


def _concat(node: Node, inputs: Inputs, opset: int) -> Array | None:
    return np.concatenate(_all(inputs), axis=node.get_int("axis", 1 if opset < 4 else 0))


def _expand(node: Node, inputs: Inputs, opset: int) -> Array | None:
    return expand(_first(inputs), _ints(inputs[1]))


def _range(node: Node, inputs: Inputs, opset: int) -> Array | None:
    start, limit, delta = (a.reshape(()) for a in _all(inputs))
    if start.dtype.kind != "i":
        return None
    return np.arange(int(start), int(limit), int(delta), dtype=start.dtype)


def _where(condition: Array, a: Array, b: Array) -> Array:
    return np.where(condition, a, b)


_NUMPY: dict[str, Callable[[Node, Inputs, int], Array | None]] = {
    "Abs": _elementwise(np.abs),
    "Add": _elementwise(np.add),
    "And": _elementwise(np.logical_and),
    "Cast": _cast,
    "Ceil": _elementwise(np.ceil),
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Div": _elementwise(_divide),
    "Equal": _elementwise(np.equal),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _elementwise(np.floor),
    "Gather": _gather,
    "Greater": _elementwise(np.greater),
    "GreaterOrEqual": _elementwise(np.greater_equal),
    "Identity": lambda node, inputs, opset: _first(inputs),
    "Less": _elementwise(np.less),
    "LessOrEqual": _elementwise(np.less_equal),
    "Max": _elementwise(_fold_left(np.maximum)),
    "Min": _elementwise(_fold_left(np.minimum)),
    "Mul": _elementwise(np.multiply),
    "Neg": _elementwise(np.negative),
    "Not": _elementwise(np.logical_not),
    "Or": _elementwise(np.logical_or),
    "Range": _range,
    "Reshape": _reshape,
    "Shape": lambda node, inputs, opset: np.asarray(
        _first(inputs).shape[slice(node.get_int("start"), node.get_int("end", _first(inputs).ndim))], np.int64
    ),
    "Size": lambda node, inputs, opset: np.asarray(_first(inputs).size, np.int64),
    "Slice": _slice,
    "Sqrt": _elementwise(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _elementwise(np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _elementwise(_where),
}
