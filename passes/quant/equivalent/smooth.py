"""Per-channel scaling in front of MatMul and Gemm, so that one grid fits all channels.

    x W = (x / s) (s W)

exactly, for any positive s (d,). Transformers have a few channels that are tens of times larger than the rest; one grid
over all of them rounds the rest away. Dividing by s moves the spread into the rows of W, where every output channel has
a scale of its own. The candidates are SmoothQuant's,

    s_j = max|x_j|^a / max|W_j|^(1 - a)                    (Xiao et al. 2023, arXiv:2211.10438, eq. 4)

over several a; each is judged, with the range rule that suits it, by the error of the layers' answers on sampled
rows. Where every reader of a LayerNormalization is such a layer, 1/s goes into its scale and bias; elsewhere one Mul is
added.

Does not fire where the input is already held as codes, where a weight is read elsewhere too, or where it gains less
than `LEAST_GAIN`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ....ir.graph import Graph, Node, Value
from ....ir.origin import Origin
from ....ir.types import DType
from ...base import Context
from ...walk.linear import Linear
from ..calibrate import run
from ..numbers.histogram import Histogram
from ..numbers.multipliers import BLOCKS
from ..numbers.params import activation_params, limits
from ..numbers.ranges import find_range
from ..numbers.weights import quantize_rows
from ..scheme import Schemes

if TYPE_CHECKING:
    from ....runtime.samples import Samples

Rows = NDArray[np.float32]

EXPONENTS = (0.5, 0.65, 0.8, 0.95)
GENTLE = (0.2, 0.35)
"""Those tried besides for weights of few bits."""
LEAST_GAIN = 1.5
"""Decibels of the layers' answers that a scaling must gain."""
ROWS = 768
EXTREMES = 32


@dataclass(frozen=True, slots=True)
class JudgedScale:
    """A scaling, (channels,) or `None`; the range rule that goes with it; the relative squared error of the answers."""

    scale: Rows | None
    how: str
    error: float


def smooth(
    graph: Graph,
    groups: Mapping[Value, Sequence[Linear]],
    ctx: Context,
    samples: Samples,
    *,
    how: Sequence[str],
    schemes: Schemes,
) -> dict[Value, str]:
    """Scale the inputs of `groups` (value -> the MatMul and Gemm layers that read it) where that pays.

    `how` are the range rules to choose from, and the fewer bits a layer's weight has, the less spread it takes.
    Returns what each group reads now, with its range rule.
    """
    sources = list(groups)
    chosen: dict[Value, str] = {}
    for source, x in zip(sources, _sampled(graph, sources, ctx, samples)):
        layers = groups[source]
        weights = np.concatenate([layer.kernel_rows() for layer in layers])
        plain, best = _judge(x, weights, ctx, how, min(schemes[layer.node].bits for layer in layers))
        scalable = all(len(layer.weight.uses) == 1 for layer in layers)
        if best.scale is not None and scalable and best.error < plain.error * 10 ** (-LEAST_GAIN / 10):
            chosen[_apply(graph, source, layers, best.scale)] = best.how
        else:
            chosen[source] = plain.how
    return chosen


def _sampled(graph: Graph, values: Sequence[Value], ctx: Context, samples: Samples) -> list[Rows]:
    """Rows of each value: some `ROWS` drawn at random, and the `EXTREMES` with the largest elements.

    What a grid must span is decided by rare rows that a draw would miss.
    """
    drawn: list[list[Rows]] = [[] for _ in values]
    extreme = [np.zeros((0, 0), np.float32)] * len(values)
    random = np.random.default_rng(ctx.seed)  # a fixed stride would keep step with positions in the sequence
    each = -(-ROWS // samples.count)
    for batch in run(graph, values, ctx, "sampling rows", lambda arrays, share: arrays, samples):
        for i, array in enumerate(batch):
            flat = np.asarray(array, np.float32).reshape(-1, array.shape[-1])
            most = min(len(flat), each * max(1, len(array)))
            drawn[i].append(flat[np.sort(random.choice(len(flat), most, replace=False))])
            pool = np.concatenate([extreme[i], flat]) if len(extreme[i]) else flat
            extreme[i] = pool[np.argsort(-np.abs(pool).max(axis=1), kind="stable")[:EXTREMES]]
    return [np.concatenate([*rows, top]) for rows, top in zip(drawn, extreme)]


def _judge(x: Rows, rows: Rows, ctx: Context, how: Sequence[str], bits: int) -> tuple[JudgedScale, JudgedScale]:
    """The best without scaling, and the best with; `rows` is the weights of all layers, (outputs, channels).

    Rows of `x` that are not finite tell nothing. The unit of either side changes no relative error, but squares of
    numbers as they are could overflow.
    """
    x = x[np.isfinite(x).all(axis=1)]
    if not (x.any() and rows.any()) or not np.isfinite(rows).all():
        return JudgedScale(None, how[0], 0.0), JudgedScale(None, how[0], 0.0)
    x, rows = x / np.abs(x).max(), rows / np.abs(rows).max()
    high, wide = np.abs(x).max(axis=0, initial=0.0), np.abs(rows).max(axis=0, initial=0.0)
    # Channels that hardly fired here may fire elsewhere: none is taken for smaller than the ordinary one that did. Of
    # words that are one of many, most channels are zero in any few rows.
    high, wide = (np.maximum(size, np.median(size[size > 0])) for size in (high, wide))
    answer = x @ rows.T
    # Each output channel against its own variance: what reads them next is often a normalisation.
    energy = np.maximum(answer.var(axis=0), 1e-6 * answer.var(axis=0).max(initial=0.0) + 1e-30)
    plain = _error(x, rows, None, answer, ctx, how, energy, bits)
    best = plain
    for a in (*GENTLE, *EXPONENTS) if bits < 8 else EXPONENTS:
        logs = a * np.log(high) - (1.0 - a) * np.log(wide)
        tried = _error(x, rows, np.exp(logs - logs.mean()).astype(np.float32), answer, ctx, how, energy, bits)
        if tried.error < best.error:
            best = tried
    return plain, best


def _error(
    x: Rows,
    rows: Rows,
    scale: Rows | None,
    answer: Rows,
    ctx: Context,
    how: Sequence[str],
    energy: Rows,
    bits: int,
) -> JudgedScale:
    if scale is not None:
        x, rows = x / scale, rows * scale
    dtype = ctx.target.activation_dtype
    saturating = ctx.target.saturating_int8 and dtype is DType.UINT8
    if bits < 8:
        parts = rows.reshape(-1, next((block for block in BLOCKS if rows.shape[1] % block == 0), rows.shape[1]))
        codes, scales = quantize_rows(parts, DType.INT8, bits=bits, search=False)
        weight = (codes * scales[:, None]).reshape(rows.shape).T
    else:
        codes, scales = quantize_rows(rows, DType.INT8, saturating=saturating, search=False)
        weight = (codes * scales[:, None]).T
    histogram = Histogram()
    histogram.add(x)
    low, high = limits(dtype)
    judged_rules = []
    for rule in how:
        params = activation_params(*find_range(histogram, rule, high - low + 1), dtype)
        off = params.dequantize(params.quantize(x)) @ weight - answer
        # The bias takes the mean.
        judged_rules.append(JudgedScale(scale, rule, float(np.mean(off.var(axis=0) / energy))))
    return min(judged_rules, key=lambda judged: judged.error)


def _apply(graph: Graph, source: Value, layers: Sequence[Linear], scale: Rows) -> Value:
    for layer in layers:
        layer.write(layer.weights() * scale, None)
    readers = {layer.node for layer in layers}
    norm = source.producer
    if norm is not None and _foldable(norm, source, readers):
        for index in (1, 2):
            value = norm.input(index)
            if value is not None:
                numbers = np.asarray(value.numpy(), np.float32)
                norm.set_input(index, graph.constant((numbers / scale).astype(np.float32), value.name))
        return source
    origin = Origin.merge([layers[0].node.origin], "quant")
    inverse = graph.constant((1.0 / scale).astype(np.float32), f"{source.name}_inverse_scale")
    first = next(node for node in graph if node in readers)
    scaled = graph.add(
        "Mul", [source, inverse], outputs=[f"{source.name}_scaled"], types=[source.type], origin=origin, before=first
    ).output
    for layer in layers:
        layer.node.set_input(0, scaled)
    return scaled


def _foldable(norm: Node, source: Value, readers: set[Node]) -> bool:
    if norm.op != "LayerNormalization" or source.is_output or not set(source.users) <= readers:
        return False
    read = [norm.input(1), norm.input(2)]
    size = source.shape[-1] if source.shape else None
    return all(v is None or (v.constant is not None and v.constant.shape == (size,)) for v in read)
