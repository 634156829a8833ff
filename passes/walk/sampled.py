"""A graph that answers at sampled positions: they are picked inside, and what is not sampled never leaves it.

The answers of all layers are far larger than the rows that are wanted of them. Returned whole, each takes memory of its
own until the end of the run, and more time than the run itself (MobileNetV2: six times).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...ir.clone import clone
from ...ir.graph import Graph, Value
from ...ir.types import DType, TensorType
from ...runtime.columns import Array
from ...runtime.session import Session
from .picked import picked

Pick = tuple[int, Value]
"""A value (samples, channels, *positions) to be sampled, and the number of the positions that are its own."""

OLDEST = 5
"""The opset in which Reshape reads its shape as an input."""


class Sampled:
    """`graph` as it returns of `picks` what stands at positions that a run is given, and `whole` values."""

    def __init__(self, graph: Graph, picks: Sequence[Pick], whole: Sequence[Value], threads: int) -> None:
        twins: dict[Value, Value] = {}
        copy = clone(graph, twins)
        self._picks, self._whole = list(dict.fromkeys(picks)), list(dict.fromkeys(whole))
        self._names = {number: f"optc.at.{number}" for number, _ in self._picks}
        # Each size has a name of its own: ONNX Runtime takes those of one name for equal.
        kinds = {number: TensorType(DType.INT64, (f"{name}.size",)) for number, name in self._names.items()}
        at = {number: copy.add_input(name, kinds[number]) for number, name in self._names.items()}
        outputs = []
        for number, value in self._picks:
            sizes = [size for size in (value.shape or ())[2:] if isinstance(size, int)]
            rows = picked(copy, twins[value], sizes, at[number])
            rows.type = TensorType(value.type.dtype) if isinstance(value.type, TensorType) else None
            outputs.append(rows)
        outputs += [twins[value] for value in self._whole]
        self._session = Session(copy, outputs=outputs, threads=threads, spins=False)

    def run(
        self, feeds: Mapping[str, Array], positions: Mapping[int, Array]
    ) -> tuple[dict[Pick, Array], dict[Value, Array]]:
        """Of picks (samples, positions, channels), for the flat `positions` by number, and the whole values."""
        at = {name: np.asarray(positions[number], np.int64) for number, name in self._names.items()}
        arrays = self._session.run({**feeds, **at})
        count = len(self._picks)
        return dict(zip(self._picks, arrays, strict=False)), dict(zip(self._whole, arrays[count:], strict=True))


def can_pick(graph: Graph, value: Value, shape: Sequence[int], samples: int) -> bool:
    """Whether `value`, which came out in `shape` for so many samples, has positions that are the same for any."""
    return (
        (graph.opset() == 0 or graph.opset() >= OLDEST)
        and value.shape is not None
        and len(shape) > 2
        and shape[0] == samples
        and tuple(value.shape[1:]) == tuple(shape[1:])
    )
