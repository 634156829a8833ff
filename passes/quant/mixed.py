"""Mixed precision: each layer gets as few weight bits as the answers can do without (`weights=auto`).

How much a layer minds is measured at the model's outputs: with its weights alone rounded to 4 bits (scales by least
square error) and all else float, the loss is

    KL(teacher || student)      where outputs decide between classes,
    noise over signal           otherwise,

on samples held out from calibration. Losses of layers add up to first order (Dong et al. 2020, HAWQ-V2,
arXiv:1911.03852, section 3.1, assumes the same), so who gets 4 bits and who 8 is a knapsack over bytes
(`passes/walk/allocate.py`).

Given `size`, that share of the float weights is the budget. Otherwise budgets are tried from small to large, and the
first whose quantized model agrees with the teacher as far as `min_agreement` stays; all layers have 8 bits if none
does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ...ir.graph import Graph, Node
from ...runtime.agreement import agreement
from ...runtime.agreement_text import percent
from ...runtime.session import Session
from ..base import Context, Report
from ..walk.allocate import knapsack
from ..walk.choice import Choice
from ..walk.linear import Linear
from .numbers.encoding import code_range
from .numbers.params import TINY
from .numbers.search import search
from .numbers.weights import Matrix
from .scheme import FREE, Scheme, Schemes, of_copy

SAMPLES = 32
SHARES = (0.126, 0.15, 0.18, 0.21)
"""Budgets tried under an agreement floor, as shares of the float weights; 8 bits are 0.25."""
SHRINKS = np.linspace(0.4, 1.0, 13)


def quantize_mixed(
    graph: Graph,
    layers: Sequence[Linear],
    schemes: Schemes,
    ctx: Context,
    quantize: Callable[[Graph, Schemes, Report], None],
    report: Report,
    *,
    size: float | None,
    min_agreement: float,
) -> None:
    """Run `quantize` on `graph` with the bits that meet the budget or the floor; layers whose own options say the bits
    have these.

    Raises `BudgetMissed` where not even 4 bits everywhere meet `size`.
    """
    choices = weigh(graph, layers, schemes, ctx)
    whole = sum(map(_float_bytes, choices))
    if size is not None:
        picked = [int(c.settings["bits"]) for c in knapsack(choices, size * whole)]
        _tell(report, picked, f"a budget of {size:g} of the float weights")
        quantize(graph, _with_bits(schemes, layers, picked), report)
        return
    for share in SHARES if ctx.held_out is not None and ctx.teacher is not None else ():
        fixed = sum(c[0].cost - share * _float_bytes(c) for c in choices if len(c) == 1)
        picked = [int(c.settings["bits"]) for c in knapsack(choices, share * whole + fixed)]
        trial, record = graph.clone(), Report()
        quantize(trial, of_copy(_with_bits(schemes, layers, picked), graph, trial), record)
        kept = ctx.agreement(trial).share
        if kept >= min_agreement:
            graph.become(trial)
            report.layers += record.layers
            report.notes += record.notes
            _tell(report, picked, f"an agreement of {percent(kept)}")
            return
    report.notes.append(f"every layer has 8 bits: with less the agreement would fall below {min_agreement:g}")
    quantize(graph, _with_bits(schemes, layers, [8] * len(layers)), report)


def weigh(graph: Graph, layers: Sequence[Linear], schemes: Schemes, ctx: Context) -> list[list[Choice[None]]]:
    """What each layer may become, 8 bits first: its bytes, and what the outputs lose by it. A layer that asked for its
    bits has no choice."""
    samples = ctx.held_out or ctx.fit
    assert samples is not None
    few = samples.take(SAMPLES, ctx.seed)
    teacher = Session(graph, threads=ctx.threads)
    choices: list[list[Choice[None]]] = []
    with ctx.progress.task("weighing layers", len(layers)) as advance:
        for layer in layers:
            count = math.prod(layer.shape)
            scheme = schemes.get(layer.node, FREE)
            if scheme.named:
                own = scheme.bits
                choices.append([Choice(count * own / 8, 0.0, f"int{own}", {"bits": own})])
                advance(1)
                continue
            weight = layer.weight
            layer.node.set_input(1, graph.constant(_rounded(layer, 4), layer.weight.name))
            result = agreement(teacher, Session(graph, threads=ctx.threads, exact=ctx.exact), few)
            layer.node.set_input(1, weight)
            loss = sum(output.loss for output in result.outputs)
            choices.append(
                [Choice(count, 0.0, "int8", {"bits": 8}), Choice(count / 2, max(loss, 1e-12), "int4", {"bits": 4})]
            )
            advance(1)
    graph.sweep()
    return choices


def _rounded(layer: Linear, bits: int) -> Matrix:
    """A layer's weight on a grid of so many bits, one scale a channel."""
    return layer.of_kernel_rows(rounded_rows(layer.kernel_rows(), bits))


def rounded_rows(rows: Matrix, bits: int) -> Matrix:
    """Each row (n, d) on a grid of so many bits of its own, whose scale has the least square error."""
    low, high = code_range(bits)
    peak = np.maximum(np.abs(rows).max(axis=1, keepdims=True), TINY) / high

    def rounded(scale: Matrix) -> Matrix:
        return np.asarray(np.clip(np.rint(rows / scale), low, high) * scale, np.float32)

    def loss(scale: Matrix) -> Matrix:
        return np.asarray(np.square(rows - rounded(scale)).sum(axis=1, keepdims=True))

    return rounded(search(peak, ((peak * shrink).astype(np.float32) for shrink in SHRINKS), loss))


def _float_bytes(choices: Sequence[Choice[None]]) -> float:
    return choices[0].cost * 32 / float(choices[0].settings["bits"])


def _with_bits(schemes: Schemes, layers: Sequence[Linear], bits: Sequence[int]) -> dict[Node, Scheme]:
    picked = {layer.node: width for layer, width in zip(layers, bits, strict=True) if not schemes[layer.node].named}
    return {**schemes, **{node: replace(schemes[node], bits=width) for node, width in picked.items()}}


def _tell(report: Report, bits: Sequence[int], why: str) -> None:
    report.notes.append(f"{bits.count(4)} of {len(bits)} layers have weights of 4 bits, for {why}")
