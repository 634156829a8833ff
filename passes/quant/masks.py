"""Layers left float for the sake of a mask: an output that decides at every place of an image.

What the first layers round is carried through all that follow, at the borders of what is found above all; and each
border counts, where a classifier averages over places. So where samples held out are decided below `AIM` in a trial of
rounded activations, the first layers of the model stay float, as few as reach it, and no more than have `SHARE` of the
products: what comes behind them pays for these.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...ir.cost import cost
from ...ir.graph import Graph, Node, Output, Value
from ...runtime.agreement_text import percent
from ...runtime.kinds import Kind, output_kind
from ...runtime.sizes import sizes
from ..base import Context
from ..walk.linear import Linear
from .equivalent.gates import spell_gates
from .equivalent.pooling import pool_spatial_means
from .scheme import Schemes, inherited, left_float, of_copy
from .trial import Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

AIM = 0.985
"""The agreement of a mask (Cohen's kappa, or Dice where that is less) in the trial."""
SHARE = 0.25
"""The share of the products that layers left float have at most."""
WORTH = 0.75
"""The share of what is lost that is left, at most, where float layers are worth their time."""


def is_mask(output: Output) -> bool:
    """Whether an output decides at many places of each sample."""
    rank = len(output.value.shape or ())
    kind = output_kind(output.value)
    return (kind is Kind.DECISIONS and rank >= 3) or (kind is Kind.PROBABILITIES and rank >= 4)


def first_layers(
    graph: Graph, layers: Mapping[Node, Linear], schemes: Schemes, ctx: Context, floats: Collection[Node] = ()
) -> dict[Node, str]:
    """The layers to leave float, each with the reason, besides `floats`, which are float in any case; none where no
    output is a mask, or nothing is held out."""
    masks = [number for number, output in enumerate(graph.outputs) if is_mask(output)]
    rest = {node: layer for node, layer in layers.items() if node not in floats}
    if not masks or ctx.held_out is None or not rest:
        return {}
    most = _affordable(graph, layers, rest, ctx)
    schemes = left_float(schemes, dict.fromkeys(floats, "float in any case"))

    @functools.cache
    def share(count: int) -> float:
        """The agreement of the worst mask where the layers of the first `count` weights are float."""
        copy = graph.clone()
        own = of_copy(left_float(schemes, dict.fromkeys(itertools.chain(*most[:count]), "a mask")), graph, copy)
        for rewrite in (pool_spatial_means, spell_gates):  # as it will be when it is quantized
            own = inherited(own, rewrite(copy))
        results = Trial(copy, ctx, own).results()
        return min((results[n].share for n in masks if not math.isnan(results[n].share)), default=1.0)

    with ctx.progress.task("trying which layers a mask needs in float"):
        before = share(0)
        count = fewest(share, len(most)) if before < AIM else 0
        after = share(count) if count else before
    if not 1 - after < WORTH * (1 - before):
        return {}
    why = f"a mask would agree to {percent(before)} with it and all others in integers, {percent(after)} without"
    return dict.fromkeys(itertools.chain(*most[:count]), why)


def _affordable(
    graph: Graph, layers: Mapping[Node, Linear], rest: Mapping[Node, Linear], ctx: Context
) -> list[list[Node]]:
    """The first of `rest`, by their weights, that together have no more than `SHARE` of the products of all `layers`:
    who reads one weight stays float together, or it would be stored twice."""
    assert ctx.fit is not None
    costs = cost(graph, sizes(graph, ctx.fit)).nodes
    left = SHARE * sum(costs[node].macs for node in layers)
    readers: dict[Value, list[Node]] = {}
    for node in graph:
        if node in rest:
            readers.setdefault(rest[node].weight, []).append(node)
    first = []
    for nodes in readers.values():
        left -= sum(costs[node].macs for node in nodes)
        if left < 0:
            break
        first.append(nodes)
    return first


def fewest(share: Callable[[int], float], most: int) -> int:
    """The least number up to `most` whose share is `AIM`, taken to grow with it; `most` where none is."""
    low, high = 0, min(2, most)
    while high < most and share(high) < AIM:
        low, high = high, min(2 * high, most)
    while high - low > 1 + low // 4:
        middle = (low + high) // 2
        low, high = (low, middle) if share(middle) >= AIM else (middle, high)
    return high
