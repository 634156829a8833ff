"""Weights of four bits with a scale a block, rounded on the walk (`activations=none:weights=int4`).

As in `reconstruct.py`, with float activations: W*, which repairs what the layers before lost, is rounded in the metric
H of the inputs' second moments. A block's scale is first the one with the least error of plain rounding, each column
weighed by what an error in it costs; codes are found on these scales (`rounding.py`). Then, for the codes q of a row,
the scales s of its blocks b are those with the least loss,

    sum_c (q_b H_bc q_c) s_c = w* H_b q_b          for every block b of the row

a small linear system (the normal equations of min over s of ||sum_b s_b q_b - w*||_H), and codes are moved once more.
Scales are kept as float16: half a bit a weight at blocks of 32.

Left to `blocks.py`: layers that the walk cannot take, and reductions that are not made of blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....ir.graph import Graph, Node
from ....ir.types import DType
from ...base import Context, Report
from ...walk.choice import Choice
from ...walk.layerwise import Layerwise, rewrite
from ...walk.linear import Linear
from ...walk.refit import refit_masked
from ...walk.walk import Step
from ..equivalent.fusions import keep_apart
from ..numbers.encoding import code_range, column_costs, kernel_order
from ..numbers.multipliers import block_scales
from ..numbers.rounding import Elimination, descend, losses, round_to_grid
from ..qdq.reconstruct import walkable
from .blocks import has_blocks, write_blocks
from .four_bits import kernel_pays

Array = NDArray[np.float64]
Box = tuple[Array, Array]

FARTHEST = 1.5
"""How much a scale may change for the sake of its row."""
CHUNK = 256
"""Rows whose systems are solved together."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """`weight` (groups, n, d) is what the quantized `values` (n, d) with `scale` (n, d / block) stand for; the layer
    multiplies `few` rows a sample, or many."""

    weight: Array
    values: NDArray[np.int8]
    scale: NDArray[np.float32]
    few: bool


class BlockRounding(Layerwise[int, Blocks]):
    """Rounds the target weights of each layer in blocks of so many, and stores them."""

    begins_late = False

    def __init__(self, graph: Graph, ctx: Context, block: int, *, fit_biases: bool) -> None:
        super().__init__(block, ctx)
        self.graph = graph
        self.fit_biases = fit_biases

    @property
    def eases(self) -> bool:
        return False

    def choose(self, step: Step, options: int, allotted: Choice[Blocks] | None) -> Choice[Blocks]:
        layer, target, now = step.layer, step.target, step.layer.weights()
        groups, n, d = now.shape
        order = kernel_order(d, d // layer.channels)
        mask, goal = now != 0.0, target.weight
        if not mask.all():
            goal = np.stack([refit_masked(w, h, m) for w, h, m in zip(goal, target.hessian, mask, strict=True)])
        low, high = code_range(DType.INT4.bits)
        box = np.where(mask, float(low), 0.0)[..., order], np.where(mask, float(high), 0.0)[..., order]
        values, scale = round_blocks(goal[..., order], target.hessian[:, order][:, :, order], box, options)
        weight = np.empty_like(goal)
        weight[..., order] = values * np.repeat(scale, options, axis=2)
        few = layer.op != "Conv" and kernel_pays(step.positions, d, n, options, self.ctx)
        rows = values.reshape(groups * n, d).astype(np.int8), scale.reshape(groups * n, -1).astype(np.float32)
        return Choice(0.0, 0.0, "blocks", form=Blocks(weight, *rows, few))

    def dense(self, form: Blocks) -> Array:
        return form.weight

    def write(self, layer: Linear, form: Blocks, bias: Array | None) -> None:
        if bias is not None and self.fit_biases:
            layer.write_bias(bias)
        write_blocks(self.graph, layer, form.values, form.scale, DType.INT4, self.options, form.few)


def walk_blocks(
    graph: Graph, layers: Sequence[Linear], ctx: Context, block: int, report: Report, *, fit_biases: bool
) -> list[Linear]:
    """Store `layers` in int4, told to `report`; returns those that are left."""
    own = {layer: block for layer in walkable(layers) if has_blocks(layer.shape[2], block)}
    done: set[Node] = set()
    for one in rewrite(BlockRounding(graph, ctx, block, fit_biases=fit_biases), graph, list(own), own, Report()):
        layer = one.step.layer
        report.done(layer.name, layer.op, bits=DType.INT4.bits, block=block, error=round(one.error, 6))
        done.add(layer.node)
    keep_apart(graph, [layer for layer in layers if _decoded_in_place(layer)])
    return [layer for layer in layers if layer.node not in done]


def round_blocks(goal: Array, metric: Array, box: Box, block: int) -> tuple[Array, Array]:
    """Codes (groups, n, d) of `goal` in the `metric` (groups, d, d), and scales (groups, n, d / block)."""
    eliminations = [Elimination.of(h) for h in metric]
    scale = _halves(block_scales(goal, column_costs(metric, eliminations), box, block))
    codes = round_to_grid(goal, metric, scale, *box, sweeps=2, eliminations=eliminations)
    better = np.stack([refit_scales(*parts) for parts in zip(codes, goal, metric, scale, strict=True)])
    better = _halves(np.clip(better, scale / FARTHEST, scale * FARTHEST))
    parts = zip(codes, goal, metric, better, *box, strict=True)
    moved = np.stack([descend(*arrays, sweeps=1) for arrays in parts])
    gain = losses(moved, goal, metric, better) < losses(codes, goal, metric, scale)
    return np.where(gain[..., None], moved, codes), np.where(gain[..., None], better, scale)


def refit_scales(codes: Array, target: Array, hessian: Array, scale: Array) -> Array:
    """The scales (n, blocks) of the given `codes` (n, d) with the least loss; those of blocks of zeros stay."""
    n, blocks = scale.shape
    parted = (n, blocks, -1)
    q, metric = codes.astype(np.float32), hessian.astype(np.float32)
    right = ((target.astype(np.float32) @ metric) * q).reshape(parted).sum(axis=2, dtype=np.float64)
    size = codes.shape[1] // blocks
    refitted = np.empty_like(scale)
    for start in range(0, n, CHUNK):
        part = slice(start, start + CHUNK)
        rows = q[part]
        system = np.empty((len(rows), blocks, blocks))
        for b in range(blocks):
            inside = slice(b * size, (b + 1) * size)
            pushed = (rows[:, inside] @ metric[inside]) * rows
            system[:, b] = pushed.reshape(len(rows), blocks, -1).sum(axis=2)
        diagonal = np.einsum("nbb->nb", system)
        empty = diagonal <= 0.0
        diagonal += np.where(empty, 1.0, 1e-6 * diagonal)
        refitted[part] = np.where(empty, scale[part], np.linalg.solve(system, right[part][..., None])[..., 0])
    return refitted


def _halves(scale: Array) -> Array:
    """What float16 makes of scales that it holds to all of its digits, and the rest as they are."""
    from .blocks import fits_half

    return scale.astype(np.float16).astype(np.float64) if fits_half(scale) else scale


def _decoded_in_place(layer: Linear) -> bool:
    """Whether the runtime is to make one kernel of a layer and the node that decodes its weight: it does not where an
    activation follows that it takes for a part of the layer first."""
    maker = layer.weight.producer
    return maker is not None and maker.op == "DequantizeLinear"
