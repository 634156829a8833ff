"""Whether a change that keeps the function makes the quantized model answer better: tried, on samples held out.

Equalising channels, turning factors and absorbing means change no answer of the float model, only how well it
quantizes; what they are expected to gain and what they gain are two things. So the model is quantized plainly, every
weight rounded to the nearest code, with grids from a few samples, and compared with the float model:

    loss = sum over outputs of  KL(teacher || student)    or noise over signal, where an output decides nothing.

A change stays if that loss falls. Where plain rounding to few bits leaves nothing of the answers (a loss above
`HOPELESS`), weights are tried with 8 bits, which judges the activations alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...ir.clone import clone
from ...ir.graph import Graph, Node, Value
from ..base import Context
from .calibrate import calibrate
from .grid import Grid, activation_grid, limits
from .insertion import Insertion
from .layers import Kept, Layer, find_layers
from .parameters import encode_biases, encode_weights
from .placement import place
from .ranges import find_range

if TYPE_CHECKING:
    from ...runtime.samples import Samples

SAMPLES = 32
HOPELESS = 0.5

Bits = Callable[[Layer], int]


@dataclass(slots=True)
class Trial:
    """Judges changes to one graph. `exact` are the grids that are known beforehand, `bits` those of each weight."""

    graph: Graph
    ctx: Context
    kept: Kept
    per_channel: Callable[[Layer], bool]
    bits: Bits
    exact: Mapping[Value, Grid] = field(default_factory=dict)
    _loss: float | None = None
    _narrow: bool = True

    def keeps(self, layers: Mapping[Node, Layer], change: Callable[[], int]) -> int:
        """What `change` returns, how much it changed in the weights and biases of `layers`; 0 where it did not help,
        and then all is as it was."""
        if self.ctx.held is None:
            return change()
        if self._loss is None:
            before = {node: node.inputs for node in layers}
            if not (count := change()):
                return 0
            after = {node: node.inputs for node in layers}
            _restore(before)
            self._loss = self._measured()
            if self._loss > HOPELESS and self._narrow:
                self._narrow = False
                self._loss = self._measured()
            _restore(after)
        else:
            before = {node: node.inputs for node in layers}
            if not (count := change()):
                return 0
        loss = self._measured()
        if not loss < self._loss:  # nor where it is no number
            _restore(before)
            return 0
        self._loss = loss
        return count

    def _measured(self) -> float:
        from ...runtime.agreement import agreement

        ctx = self.ctx
        assert ctx.fit is not None
        assert ctx.held is not None
        copy = self._quantized(ctx.fit.take(SAMPLES, ctx.seed))
        told = agreement(self.graph, copy, ctx.held.take(SAMPLES, ctx.seed), threads=ctx.threads, exact=ctx.exact)
        return sum(o.kl if o.kl is not None else 10 ** (-(o.sqnr_db or 0.0) / 10) for o in told.outputs)

    def _quantized(self, samples: Samples) -> Graph:
        import dataclasses

        twins: dict[Value, Value] = {}
        copy = clone(self.graph, twins)
        found, _ = find_layers(copy, self.kept)
        layers = list(found.values())
        plan = place(copy, found, self.kept)
        sources = plan.sources()
        seen = calibrate(copy, [v for group in sources.values() for v in group], layers,
                         dataclasses.replace(self.ctx, fit=samples))  # fmt: skip
        dtype = self.ctx.target.activation_dtype
        low, high = limits(dtype)
        grids: dict[Value, Grid] = {}
        for group, values in sources.items():
            merged = seen.histograms[values[0]]
            for value in values[1:]:
                merged.merge(seen.histograms[value])
            grids[group] = activation_grid(*find_range(merged, "mse", high - low + 1), dtype)
        grids |= {twins[value]: grid for value, grid in self.exact.items()}
        insertion = Insertion(copy, plan, grids, dtype)
        insertion.activations()
        insertion.constants()
        bits = self.bits if self._narrow else lambda layer: 8
        rounded = encode_weights(insertion, layers, seen.energy, self.ctx.target, self.per_channel, bits)
        encode_biases(insertion, layers, {layer: r.grid for layer, r in rounded.items()})
        copy.sweep()
        copy.sort()
        return copy


def _restore(inputs: Mapping[Node, tuple[Value | None, ...]]) -> None:
    for node, values in inputs.items():
        for index, value in enumerate(values):
            if value is not None and (index >= len(node.inputs) or node.inputs[index] is not value):
                node.set_input(index, value)
        for index in range(len(values), len(node.inputs)):
            node.set_input(index, None)
