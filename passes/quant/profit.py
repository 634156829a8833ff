"""Layers whose integer kernel is slower here than the float one, which are better left float.

Integer kernels do not always pay: a first convolution over three colour channels, depthwise convolutions at high
resolution, and most small layers on CPUs without an int8 dot product run faster in float. But every change between
float and codes costs a pass over the tensor, so layers cannot be judged one by one. With f_n and q_n the measured
seconds of node n in float and in codes, and c_v the cost of encoding or decoding value v, the fastest assignment

    min  sum_{n float} f_n  +  sum_{n integer} q_n  +  sum_{v between both kinds} c_v

is a minimum cut between "integer" and "float" (Greig, Porteous, Seheult 1989): exact, in polynomial time.

Times come from the runtime's profile of the float graph and of one that is quantized with made-up numbers, which run no
faster or slower than the right ones. Nothing is looked into where the integer graph as a whole runs at least `PAYS`
times as fast, and the cut is believed only where the graph that it gives was measured to be faster.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ...ir.graph import Graph, Node, Value
from ...ir.names import unique_names
from ...ir.types import DType
from ..base import Context
from ..recall import texts
from ..walk.linear import Linear
from .equivalent.fusions import keep_apart
from .equivalent.gates import spell_gates
from .equivalent.input_lanes import fill_inputs
from .equivalent.lanes import fill_lanes
from .equivalent.pooling import pool_spatial_means
from .layers import find_layers, sharing
from .numbers.minimum_cut import sink_side
from .numbers.params import QuantParams, activation_params, limits
from .qdq.insertion import Insertion
from .qdq.parameters import encode_biases
from .qdq.placement import Placement, bounds, operands, place
from .qdq.ramps import laid_through
from .scheme import Form, Schemes, inherited, left_float, of_copy

if TYPE_CHECKING:
    from ...runtime.samples import Feeds
    from ...runtime.session import Session

PAYS = 2.0
LEAST = 1e-4
"""Seconds below which a run is mostly the runtime's own, and not looked into."""
GAIN = 0.98
"""The share of the run time that is left, at most, where a cut is worth its layers."""
ELEMENT = 1.5e-9
"""Seconds to encode or decode one element and to change its layout, on x86 with AVX2."""
CALL = 5e-6
PROFILES = 2
STRETCH = 2e-3
"""Seconds of one measurement of a whole graph."""
SHORTEST, LONGEST = 0.05, 0.25
"""Seconds that a comparison of whole graphs may take: as long as the samples take once, within these."""


def slower_layers(graph: Graph, layers: Mapping[Node, Linear], schemes: Schemes, ctx: Context) -> dict[Node, str]:
    """The layers to leave float, each with the reason. Measured on one sample, or as measured before."""
    names = unique_names(graph)  # what passes made may have none
    named = {names[node.outputs[0]]: node for node in layers}

    def measured() -> str:
        copy = graph.clone()
        name_of = {twin: names[node.outputs[0]] for node, twin in zip(graph, copy, strict=True) if node in layers}
        own = of_copy(schemes, graph, copy)
        for rewrite in (pool_spatial_means, spell_gates):  # as it will be when it is quantized
            own = inherited(own, rewrite(copy))
        integer = find_layers(copy, own, Form.INTEGER)[0]
        return json.dumps({name_of[node]: why for node, why in _measured(copy, integer, own, ctx).items()})

    reasons = ctx.recall("layers to leave float", measured, texts)
    return {named[name]: why for name, why in reasons.items() if name in named}


def _measured(graph: Graph, layers: Mapping[Node, Linear], schemes: Schemes, ctx: Context) -> dict[Node, str]:
    from ...runtime.latency import latency
    from ...runtime.session import Session

    assert ctx.fit is not None
    feeds = next(ctx.fit.batches(1))
    trial, twins = _trial(graph, schemes, ctx)
    sessions = [Session(g, threads=ctx.threads) for g in (graph, trial)]
    limit = _limit(sessions[0], feeds, ctx.fit.count)
    before, after = latency(sessions, feeds, limit=limit, stretch=STRETCH, border=1.0 / PAYS)
    if after.ratio <= 1.0 / PAYS or before.seconds < LEAST:
        return {}
    floats, codes = _fastest(graph, feeds, ctx), _fastest(trial, feeds, ctx)
    integer = {node: codes.get(twin, 0.0) for node, twin in twins.items()}
    slow = _cut(graph, place(graph, layers, schemes), floats, integer, feeds, ctx)
    reasons = {
        node: f"in integers it is not faster here ({1e3 * integer[node]:.3f} ms against {1e3 * floats[node]:.3f} ms)"
        if integer[node] >= floats.get(node, 0.0)
        else "the layers around it are faster in float, and encoding its input costs more than it gains"
        for node in layers
        if node in slow and node in floats
    }
    if not reasons:
        return {}
    reasons = {
        **dict.fromkeys(sharing(reasons, layers), "its weight is shared with layers that are faster in float"),
        **reasons,
    }
    mixed, _ = _trial(graph, left_float(schemes, reasons), ctx)
    pair = [sessions[1], Session(mixed, threads=ctx.threads)]
    cut = latency(pair, feeds, limit=limit, stretch=STRETCH, border=GAIN)[1]
    # On a busy machine rounds differ, and nothing can be told.
    return reasons if cut.ratio < GAIN and cut.high < 1 else {}


def _limit(session: Session, feeds: Feeds, count: int) -> float:
    """Seconds that a comparison may take: those of `count` runs, within bounds."""
    session.run(feeds)  # the first one allocates
    start = time.perf_counter()
    session.run(feeds)
    return min(max(count * (time.perf_counter() - start), SHORTEST), LONGEST)


def _fastest(graph: Graph, feeds: Feeds, ctx: Context) -> dict[Node, float]:
    """The least time of each node over a few profiles: what else the machine does only ever adds."""
    from ...runtime.profile import node_seconds

    least: dict[Node, float] = {}
    for _ in range(PROFILES):
        for node, seconds in node_seconds(graph, feeds, threads=ctx.threads).items():
            least[node] = min(seconds, least.get(node, np.inf))
    return least


def _trial(graph: Graph, schemes: Schemes, ctx: Context) -> tuple[Graph, dict[Node, Node]]:
    """A copy in the integer form, with made-up numbers, and the copy of each node of `graph` in it."""
    copy = graph.clone()
    twins = dict(zip(graph, copy))
    own = of_copy(schemes, graph, copy)
    fill_lanes(copy, find_layers(copy, own, Form.INTEGER)[0], ctx.target.depthwise_lanes)
    fill_inputs(copy, find_layers(copy, own, Form.INTEGER)[0], ctx.target.input_lanes)
    layers = find_layers(copy, own, Form.INTEGER)[0]
    plan = place(copy, layers, own)
    laid, dtype = plan.laid(), ctx.target.activation_dtype
    params_of = {
        group: laid_through(_params(group, values, plan, dtype), laid.get(group, ()))
        for group, values in plan.sources().items()
    }
    insertion = Insertion(copy, plan, params_of, dtype)
    insertion.activations()
    insertion.constants()
    low, high = limits(ctx.target.weight_dtype)
    weights: dict[Node, QuantParams] = {}
    for layer in layers.values():
        scale = np.full(layer.outputs, 1e-2, np.float32)
        params = QuantParams(scale, 0, ctx.target.weight_dtype, layer.axis, low, high)
        ones = copy.constant(np.ones(layer.weight.static_shape or (), ctx.target.weight_dtype.numpy), layer.weight.name)
        layer.node.set_input(1, insertion.dequantize(ones, params, before=layer.node, origin=layer.node.origin))
        weights[layer.node] = params
    encode_biases(insertion, list(layers.values()), weights)
    if ctx.target.contrib_ops:
        keep_apart(copy, list(layers.values()))
    copy.sweep()
    copy.sort()
    left = set(copy)
    return copy, {node: twin for node, twin in twins.items() if twin in left}


def _params(group: Value, values: Iterable[Value], plan: Placement, dtype: DType) -> QuantParams:
    """A grid that absorbs the clamps of its values, as theirs will."""
    low, high = plan.ends(group) or (-4.0, 4.0)
    for value in values:
        clamp = bounds(plan.clamp[value]) if value in plan.clamp else None
        if clamp is not None:
            low, high = max(low, clamp[0]), min(high, clamp[1])
    return activation_params(low, high, dtype)


def _cut(
    graph: Graph,
    plan: Placement,
    floats: Mapping[Node, float],
    integer: Mapping[Node, float],
    feeds: Feeds,
    ctx: Context,
) -> set[Node]:
    """The nodes on the float side of the minimum cut."""
    from ...runtime.session import Session

    coded = list(plan.coded)
    sizes = {
        v: a.size for v, a in zip(coded, Session(graph, outputs=coded, threads=ctx.threads).run(feeds), strict=True)
    }
    apart: dict[tuple[Node, Node], float] = {}
    alone = dict.fromkeys((node for node in graph if plan.integer(node)), 0.0)
    for value in coded:
        cost = CALL + ELEMENT * sizes[value]
        maker = plan.maker.get(value)
        readers = [user for user in value.users if plan.integer(user) and value in _read(user, plan)]
        if maker is None or not plan.integer(maker) or (maker in plan.layers and maker.op != "Conv"):
            for reader in readers[:1]:  # encoded once, whoever reads the codes
                alone[reader] += cost
            continue
        for reader in readers:
            apart[maker, reader] = cost
        if value.is_output or len(readers) < len(value.users):
            alone[maker] += cost
    left = {node: floats.get(node, 0.0) for node in alone}
    right = {node: integer.get(node, 0.0) + extra for node, extra in alone.items()}
    return sink_side(left, right, apart)


def _read(node: Node, plan: Placement) -> tuple[Value, ...]:
    return (plan.reads[node],) if node in plan.layers else operands(node)
