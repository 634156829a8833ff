"""Which weights that are stored small, and computed with in float, a mask needs in 16 bits rather than in 8.

Behind a filter bank come logarithms, in which what eight bits leave of the loud in the quiet is as large as the quiet.
So where an output decides at many places (`masks.py`) and agrees to less than `AIM` with all weights in eight bits, the
first weights of the model are stored as float16, as few as reach it. They are no more than `SHARE` of the bytes, with
which the weights take two fifths of what they took. Only the weights are rounded in the trial: what codes between
layers cost is another question.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...ir.clone import clone
from ...ir.graph import Graph, Value
from ..base import Context
from ..walk.linear import LARGEST_HALF, Linear
from .calibrate import calibrate
from .layers import find_layers
from .masks import AIM, WORTH, fewest, is_mask
from .scheme import Schemes, of_copy
from .stored.storage import store_weights
from .trial import SAMPLES

if TYPE_CHECKING:
    from ...runtime.samples import Samples

SHARE = 0.6
"""The share of the weights' bytes that may be stored in 16 bits."""


def stored_bytes(layers: Iterable[Linear]) -> int:
    """Bytes of the weights of `layers`, each once."""
    weights = {layer.weight for layer in layers}
    return sum(weight.constant.nbytes for weight in weights if weight.constant is not None)


def wide_weights(graph: Graph, layers: Sequence[Linear], total: int, schemes: Schemes, ctx: Context) -> set[Value]:
    """The weights of `layers` to store as float16; none where no output is a mask, or nothing is held out. `total` are
    the bytes of all weights of the model."""
    from ...runtime.agreement import agreement
    from ...runtime.session import Session

    masks = [number for number, output in enumerate(graph.outputs) if is_mask(output)]
    if not masks or ctx.held_out is None or not layers:
        return set()
    weights = _affordable(layers, total)
    stored, twins = _stored(graph, layers, schemes, ctx)
    samples: Samples = ctx.held_out.take(SAMPLES, ctx.seed)
    teacher = Session(graph, threads=ctx.threads)

    @functools.cache
    def share(count: int) -> float:
        """The agreement of the worst mask where the first `count` weights have 16 bits."""
        copies: dict[Value, Value] = {}
        trial = clone(stored, copies)
        for weight in weights[:count]:
            half = np.asarray(weight.numpy(), np.float16).astype(np.float32)
            copies[twins[weight]].replace_uses(trial.constant(half, weight.name))
        trial.sweep()
        outputs = agreement(teacher, trial, samples, threads=ctx.threads, exact=ctx.exact).outputs
        return min((outputs[n].share for n in masks if not math.isnan(outputs[n].share)), default=1.0)

    with ctx.progress.task("trying which weights a mask needs in 16 bits"):
        before = share(0)
        count = fewest(share, len(weights)) if before < AIM else 0
        worth = count and 1 - share(count) < WORTH * (1 - before)
    return set(weights[:count]) if worth else set()


def _affordable(layers: Iterable[Linear], total: int) -> list[Value]:
    """The first weights of `layers` that together have no more than `SHARE` of `total` bytes; each within float16."""
    left = SHARE * total
    first = []
    for weight in dict.fromkeys(layer.weight for layer in layers):
        numbers = np.asarray(weight.numpy())
        left -= numbers.nbytes
        if left < 0 or np.abs(numbers).max(initial=0.0) > LARGEST_HALF:
            break
        first.append(weight)
    return first


def _stored(graph: Graph, layers: Sequence[Linear], schemes: Schemes, ctx: Context) -> tuple[Graph, dict[Value, Value]]:
    """A copy of `graph` with all weights of `layers` in eight bits, and what is read there of each weight."""
    copy = graph.clone()
    twin_of = dict(zip(graph.walk(), copy.walk(), strict=True))
    own = of_copy(schemes, graph, copy)
    there = find_layers(copy, own)[0]
    twins = {layer: there[twin_of[layer.node]] for layer in layers}
    weights = {layer: layer.weight for layer in layers}
    store_weights(copy, list(twins.values()), calibrate(copy, [], list(twins.values()), ctx), ctx, own)
    return copy, {weights[layer]: twin.weight for layer, twin in twins.items()}
