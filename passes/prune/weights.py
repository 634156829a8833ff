"""Unstructured and n:m pruning: masks on the target weights, then a least-squares refit of what stays.

Masks are tried (SparseGPT, magnitude, magnitude scaled by the inputs) and the one whose refit answers the teacher best
is kept, then weights are exchanged for dropped ones as long as that helps. n:m groups run along the reduction
axis: over the input channels at a fixed kernel tap, as kernels that use them read the weights.

Left dense: layers that read the graph's input and depthwise layers (a few percent of the weights, and the most
fragile), but their remaining weights are refitted too. With `scope=global` a first walk over the unchanged student
records each layer's error at several sparsities, and the knapsack spreads the ratio. Without a ratio each layer loses
what `error` allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..base import Detail, Report, Skip
from ..walk.choice import Choice
from ..walk.layerwise import Layerwise, Rewritten
from ..walk.linear import Linear
from ..walk.refit import Fit, fit_masked
from ..walk.target import Array, LayerTarget, inverse_factor
from ..walk.walk import Step
from .exchange import FEW, GAIN, ROUNDS, exchange, settled, single
from .masks import Grouped, Pattern, Unstructured, keep_largest, sparsegpt_mask
from .storage import store_sparse

if TYPE_CHECKING:
    from .prune import Prune

LEVELS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97)


@dataclass(frozen=True, slots=True)
class Pruned:
    """Weights (groups, n, d) on a mask of `pattern`."""

    weight: Array
    pattern: Pattern


class PruneWeights(Layerwise["Prune", Pruned]):
    begins_late = False
    sketches = True

    @property
    def eases(self) -> bool:
        return self.options.kind != "nm"  # n:m groups gain nothing from it that can be told from noise

    def stays(self, layer: Linear) -> str:
        return "depthwise: few weights, and every one of them matters" if layer.depthwise else ""

    def tolerance(self, options: Prune) -> float | None:
        return options.error if options.ratio is None else None

    def share(self, options: Prune) -> float | None:
        if options.kind == "nm" or options.ratio is None or options.scope != "global":
            return None
        return 1.0 - options.ratio

    def candidates(self, step: Step, options: Prune) -> Sequence[Choice[Pruned]]:
        """Weights kept against relative error, at every level of `LEVELS`; cheap masks, refitted."""
        weights = float(step.target.weight.size)
        return [
            Choice((1.0 - s) * weights, _error_at(step.target, s), "prune" if s else "keep", {"sparsity": s})
            for s in LEVELS
        ]

    def choose(self, step: Step, options: Prune, allotted: Choice[Pruned] | None) -> Choice[Pruned]:
        pattern: Pattern
        if options.kind == "nm":
            pattern = Grouped(options.n, options.m)
        elif allotted is not None:
            pattern = Unstructured(allotted.settings["sparsity"])
        elif options.ratio is not None:
            pattern = Unstructured(options.ratio)
        else:
            pattern = _sparsest(step.target, options.error or 0.0)
        few = allotted is None and options.kind != "nm" and options.ratio is None
        weight = prune_layer(step.target, pattern, step.layer, rounds=FEW if few else ROUNDS)
        return Choice(float(np.mean(weight != 0.0)), step.target.error(weight), "prune", form=Pruned(weight, pattern))

    def sketch(self, step: Step, options: Prune) -> Array:
        pattern, target = _sparsest(step.target, options.error or 0.0), step.target
        return np.stack([_cheap(w, h, pattern).weight for w, h in zip(*_singles(target), strict=True)]).astype(float)

    def dense(self, form: Pruned) -> Array:
        return form.weight

    def refit(self, layer: Linear, target: LayerTarget, form: Pruned) -> Pruned:
        if self.tolerance(self.options) is None:
            return Pruned(prune_layer(target, form.pattern, layer, form.weight), form.pattern)
        # Little is lost, and the target has moved by a part of that: the same weights stay.
        parts = zip(target.weight, target.hessian, form.weight, strict=True)
        return Pruned(np.stack([settled(*part) for part in parts]), form.pattern)

    def write(self, layer: Linear, form: Pruned, bias: Array | None) -> None:
        """Where one number is the bias of all outputs it stays one, and a bias that others read stays as it is: zeros
        make up for no larger a file."""
        place = layer.bias_place
        old = None if place is None else place[0].inputs[place[1]]
        if old is not None and not {reader.bias_place for reader in layer.readers}.issuperset(old.uses):
            bias = None
        if bias is not None and old is not None and old.constant is not None and old.constant.size == 1:
            bias = bias.mean().reshape(old.constant.shape)
        layer.write(form.weight, bias)

    def figures(self, done: Rewritten[Pruned]) -> dict[str, Detail]:
        return {"sparsity": round(float(np.mean(done.form.weight == 0.0)), 4), "ridge": done.step.target.ridge}

    def end(self, layers: Sequence[Linear], report: Report) -> None:
        if self.options.store != "sparse":
            return
        if not self.ctx.target.sparse_initializers:
            report.notes.append("stored dense: the target reads no sparse initializers")
            return
        stored, left = store_sparse(layers)
        rest = f"; {left} dense, because more than a third of their weights stays" if left else ""
        report.notes.append(f"weights stored sparse: {stored}{rest}")


def prune_layer(
    target: LayerTarget, pattern: Pattern, layer: Linear, start: Array | None = None, *, rounds: int = ROUNDS
) -> Array:
    """The pruned weights (groups, n, d) nearest to the target under `pattern`, found from those of `start` on."""
    if isinstance(pattern, Grouped) and layer.channels < pattern.m:
        raise Skip(f"{layer.channels} input channels are fewer than m={pattern.m}")
    order = _reduction_order(layer, pattern)
    out = np.empty_like(target.weight)
    for group in range(len(out)):
        w, h = target.weight[group][:, order], target.hessian[group][np.ix_(order, order)]
        mask = _first_mask(w, h, pattern, few=rounds == FEW) if start is None else start[group][:, order]
        out[group][:, order] = exchange(w, h, pattern, mask, rounds=rounds)
    return out


def _first_mask(w: Array, h: Array, pattern: Pattern, *, few: bool) -> Array:
    """The best of three masks, with the weights on it fitted. Where `few` exchanges follow, little is lost: SparseGPT's
    is then no better than the others, which are told apart by a short fit."""
    magnitude = w**2
    masks = [keep_largest(magnitude, pattern), keep_largest(magnitude * np.diagonal(h), pattern)]
    if not few:
        masks = [sparsegpt_mask(w, inverse_factor(h), pattern), *masks]
    tried = [fit_masked(single(w), single(h), mask, steps=4 if few else 12, gain=GAIN) for mask in masks]
    return min(tried, key=lambda one: float(one.loss.sum())).weight


def _reduction_order(layer: Linear, pattern: Pattern) -> NDArray[np.intp]:
    """Columns as (kernel, channel) for n:m groups, so that a group runs over input channels; unchanged otherwise."""
    d = layer.shape[2]
    if isinstance(pattern, Unstructured):
        return np.arange(d)
    return np.arange(d).reshape(layer.channels, -1).T.reshape(-1)


def _error_at(target: LayerTarget, sparsity: float) -> float:
    """The loss at a sparsity as a share of the answer's variance, from a cheap mask and a short refit."""
    parts = zip(*_singles(target), strict=True)
    lost = sum(float(_cheap(w, h, Unstructured(sparsity)).loss.sum()) for w, h in parts)
    return lost / max(target.energy, 1e-30)


def _cheap(w: Array, h: Array, pattern: Pattern) -> Fit:
    """Weights (n, d) on the cheapest of masks, after a short refit."""
    return fit_masked(w, h, keep_largest(w**2 * np.diagonal(h), pattern), steps=6)


def _singles(target: LayerTarget) -> tuple[Array, Array]:
    return single(target.weight), single(target.hessian)


def _sparsest(target: LayerTarget, error: float) -> Unstructured:
    """The highest of `LEVELS` whose loss stays within `error`. Raises `Skip` where none does."""
    low, high = 0, len(LEVELS)
    while high - low > 1:
        middle = (low + high) // 2
        if _error_at(target, LEVELS[middle]) <= error:
            low = middle
        else:
            high = middle
    if low == 0:
        raise Skip(f"no share of its weights can go within an error of {error:g}")
    return Unstructured(LEVELS[low])
