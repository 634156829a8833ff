"""What changed layers do to the model's outputs, measured on a few samples.

The damage is KL(teacher || student) where an output decides between classes and noise relative to signal elsewhere,
summed over outputs. What lies before the layers that are still to be tried is run once: trials run the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from ...ir.types import TensorType
from ..walk.frontier import Frontier
from ..walk.linear import Linear
from ..walk.readers import linear_layer
from ..walk.target import Array

if TYPE_CHECKING:
    from ...ir.graph import Graph, Value
    from ...runtime.samples import Samples

_BATCH = 16
"""Samples a batch."""


class Damage:
    """Tries layers of `graph` with other weights on `samples`, which no weights should have been fitted to.

    Use it as a context manager: the unchanged answers, and what trials start from, wait in a `Spill`.
    """

    def __init__(self, graph: Graph, samples: Samples, threads: int) -> None:
        from ...runtime.kinds import output_axis, output_kind
        from ...runtime.session import Session
        from ...storage.spill import Spill

        self._kept = Spill()
        self._frontier = Frontier(graph, samples, _BATCH, self._kept, threads)
        outputs = [o.value for o in graph.outputs if o.value.constant is None]
        self._outputs = [v for v in outputs if v.type is None or isinstance(v.type, TensorType)]
        self._kinds = [(value.name, output_kind(value), output_axis(value)) for value in self._outputs]
        session = Session(graph, outputs=self._outputs, threads=threads)
        for feeds in samples.batches(_BATCH):
            for place, answer in enumerate(session.run(feeds)):
                self._kept.append(place, answer)

    def __enter__(self) -> Damage:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._kept.close()

    def advance(self, value: Value) -> None:
        """No layer that `value` depends on will be tried from now on."""
        for _ in self._frontier.advance([value], lambda batch, values: None):
            pass

    def of(self, trial: Mapping[Linear, tuple[Array, Array]]) -> float:
        """The damage of giving each layer these weights (groups, n, d) and bias (groups * n,), in a copy."""

        def edit(twins: Mapping[Value, Value]) -> None:
            for layer, (weight, bias) in trial.items():
                node = twins[layer.node.output].producer
                assert node is not None
                linear_layer(node).write(weight, bias)

        return self.of_edit(edit)

    def of_edit(self, edit: Callable[[Mapping[Value, Value]], None]) -> float:
        """The damage of what `edit` does to a copy of the graph, whose values it is given with their twins there."""
        from ...runtime.sums import Sums

        sums = [Sums(*kind) for kind in self._kinds]
        for batch, answers in enumerate(self._frontier.rest(self._outputs, edit)):
            for place, (total, answer) in enumerate(zip(sums, answers, strict=True)):
                total.add(self._kept.get(place, batch), answer)
        return sum(total.result().loss for total in sums)
