"""Whether two models answer alike: the same seeded inputs, ONNX Runtime with its own optimisations off.

The difference of an output is measured against the scale of that output: `max |a - b| / max |a|`, in units of the
last place (ulp) of its element type. A lossless pass may reorder and merge roundings, so it is allowed a few;
integers, booleans and strings must be equal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
from corpus import outputs, same

from optc.ir.graph import Graph
from optc.ir.onnx.writer import to_proto
from optc.ir.types import TensorType

Array = npt.NDArray[np.generic]

FEW = 16.0
"""Units of the last place that merged roundings may cost over a whole network."""


def distance(before: object, after: object) -> float:
    """Units of the last place between two outputs, at the scale of the first; infinite where they are incomparable."""
    if same(before, after):
        return 0.0
    if isinstance(before, list | tuple) and isinstance(after, list | tuple):
        if len(before) != len(after):
            return np.inf
        return max((distance(a, b) for a, b in zip(before, after)), default=0.0)
    if before is None or after is None:
        return 0.0 if before is after else np.inf
    a, b = np.asarray(before), np.asarray(after)
    if a.dtype != b.dtype or a.shape != b.shape:
        return np.inf
    if a.size == 0:
        return 0.0
    if a.dtype.kind not in "fc":
        return np.inf
    with np.errstate(all="ignore"):
        finite = np.isfinite(a)
        if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(b[finite]).all():
            return np.inf
        if not finite.any():
            return 0.0
        info = np.finfo(a.dtype)
        x, y = a[finite].astype(np.complex128), b[finite].astype(np.complex128)
        scale = max(float(np.abs(x).max()), float(info.tiny))
        return float(np.abs(x - y).max()) / scale / float(info.eps)


def feeds(graph: Graph, seed: int = 0, *, size: int = 2, dims: dict[str, int] | None = None) -> list[Array]:
    """Seeded inputs for `graph`: normal floats, integers in [0, 4), sizes that are not numbers set to `size`."""
    random = np.random.default_rng(seed)
    arrays: list[Array] = []
    for value in graph.inputs:
        assert isinstance(value.type, TensorType), f"input {value.name!r} is no tensor"
        assert value.type.shape is not None, f"input {value.name!r} has no known rank"
        shape = [d if isinstance(d, int) else (dims or {}).get(d or "", size) for d in value.type.shape]
        dtype = value.type.dtype.numpy
        if dtype.kind == "f":
            arrays.append(random.standard_normal(shape).astype(dtype))
        elif dtype.kind == "b":
            arrays.append(random.integers(0, 2, shape).astype(dtype))
        else:
            arrays.append(random.integers(0, 4, shape).astype(dtype))
    return arrays


def assert_equivalent(
    before: Graph | onnx.ModelProto, after: Graph | onnx.ModelProto, inputs: Sequence[object], *, ulps: float = FEW
) -> None:
    """Fail where an output of `after` differs from that of `before` by more than `ulps`, or in type or shape."""
    models = [model if isinstance(model, onnx.ModelProto) else to_proto(model) for model in (before, after)]
    first, second = outputs(models, inputs)
    far = distance(first, second)
    assert far <= ulps, f"the outputs differ by {far:.3g} ulp of their scale"
