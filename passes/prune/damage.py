"""What changed layers do to the model's outputs, measured on a few samples.

The damage is KL(teacher || student) where an output decides between classes and noise relative to signal elsewhere,
summed over outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...ir.clone import clone
from ..linear import Linear, linear_layer
from ..regression import Array

if TYPE_CHECKING:
    from ...ir.graph import Graph, Value
    from ...runtime.samples import Samples


class Damage:
    """Tries layers of `graph` with other weights on `samples`, which no weights should have been fitted to."""

    def __init__(self, graph: Graph, samples: Samples, threads: int) -> None:
        from ...runtime.session import Session

        self._graph = graph
        self._samples = samples
        self._threads = threads
        self._teacher = Session(graph, threads=threads)

    def of(self, trial: Mapping[Linear, tuple[Array, Array]]) -> float:
        """The damage of giving each layer these weights (groups, n, d) and bias (groups * n,), in a copy."""
        from ...runtime.agreement import agreement

        twins: dict[Value, Value] = {}
        student = clone(self._graph, twins)
        for layer, (weight, bias) in trial.items():
            node = twins[layer.node.output].producer
            assert node is not None
            linear_layer(node).write(weight, bias)
        found = agreement(self._teacher, student, self._samples, threads=self._threads)
        total = 0.0
        for output in found.outputs:
            if output.kl is not None:
                total += output.kl
            elif output.sqnr_db is not None:
                total += 10.0 ** (-output.sqnr_db / 10.0)
        return total
