"""What changed layers do to the model's outputs, measured on a few samples.

The damage is KL(teacher || student) where an output decides between classes and noise relative to signal elsewhere,
summed over outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from ...ir.clone import clone
from ..linear import Linear, linear_layer
from ..regression import Array

if TYPE_CHECKING:
    from ...ir.graph import Graph, Value
    from ...runtime.samples import Samples

_BATCH = 16
"""Samples a batch."""


class Damage:
    """Tries layers of `graph` with other weights on `samples`, which no weights should have been fitted to.

    Use it as a context manager: the unchanged answers wait in a `Spill`.
    """

    def __init__(self, graph: Graph, samples: Samples, threads: int) -> None:
        from ...runtime.session import Session
        from ...runtime.spill import Spill

        self._graph = graph
        self._samples = samples
        self._threads = threads
        self._kept = Spill()
        session = Session(graph, threads=threads)
        for feeds in samples.batches(_BATCH):
            for place, answer in enumerate(session.run(feeds)):
                self._kept.append(place, answer)

    def __enter__(self) -> Damage:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._kept.close()

    def of(self, trial: Mapping[Linear, tuple[Array, Array]]) -> float:
        """The damage of giving each layer these weights (groups, n, d) and bias (groups * n,), in a copy."""
        from ...runtime.agreement import Sums, output_axis, output_kind
        from ...runtime.session import Session

        twins: dict[Value, Value] = {}
        student = clone(self._graph, twins)
        for layer, (weight, bias) in trial.items():
            node = twins[layer.node.output].producer
            assert node is not None
            linear_layer(node).write(weight, bias)
        session = Session(student, threads=self._threads)
        outputs = [Sums(o.name, output_kind(o.value), output_axis(o.value)) for o in self._graph.outputs]
        for batch, feeds in enumerate(self._samples.batches(_BATCH)):
            for place, (sums, answer) in enumerate(zip(outputs, session.run(feeds), strict=True)):
                sums.add(self._kept.get(place, batch), answer)
        total = 0.0
        for found in (sums.result() for sums in outputs):
            if found.kl is not None:
                total += found.kl
            elif found.sqnr_db is not None:
                total += 10.0 ** (-found.sqnr_db / 10.0)
        return total
