"""Whether four-bit weights multiply faster in the runtime's own kernel than decoded once and multiplied as floats.

MatMulNBits reads an eighth of the bytes and decodes at every run: it gains where a product has few rows, and how few is
a matter of the machine. So both are timed here on a product of the same sizes, once for all builds (`Context.measure`),
and the answer is recorded (`Context.recall`), so that a build can be repeated. For another machine, `FEW_ROWS` decides.
"""

from __future__ import annotations

import numpy as np

from ....ir.graph import Graph
from ....ir.types import DType, TensorType
from ...base import Context
from ...recall import ratio

FEW_ROWS = 16
"""Rows a sample up to which MatMulNBits was at least as fast as the float kernel on AVX2: a transformer of width 384
took 0.94 of the float one's time at 16 rows, and 1.15 at 48."""
MOST_ROWS = 64
"""Rows beyond which no machine gained."""


def kernel_pays(rows: int, reduction: int, outputs: int, block: int, ctx: Context) -> bool:
    """Whether a product of (rows, reduction) and (reduction, outputs) is at least as fast with four-bit weights."""
    if not ctx.target.measurable or rows > MOST_ROWS:
        return rows <= FEW_ROWS
    question = f"four-bit product of {rows} x {reduction} x {outputs} in blocks of {block}"

    def measured() -> str:
        return ctx.measure(question, lambda: f"{_ratio(rows, reduction, outputs, block, ctx):.3f}", ratio)

    return ctx.recall(question, measured, ratio) <= 1.0


def _ratio(rows: int, reduction: int, outputs: int, block: int, ctx: Context) -> float:
    """The time of the four-bit product relative to that of floats."""
    from ....runtime.latency import latency
    from ....runtime.session import Session

    sessions = [Session(_product(rows, reduction, outputs, bits, block), threads=ctx.threads) for bits in (32, 4)]
    x = np.random.default_rng(0).standard_normal((rows, reduction)).astype(np.float32)
    return latency(sessions, {"x": x}, limit=0.2, border=1.0)[1].ratio


def _product(rows: int, reduction: int, outputs: int, bits: int, block: int) -> Graph:
    graph = Graph("product", opsets={"": 21})
    x = graph.add_input("x", TensorType(DType.FLOAT, (rows, reduction)))
    draw = np.random.default_rng(0)
    if bits == 32:
        weight = graph.constant(draw.standard_normal((reduction, outputs)).astype(np.float32))
    else:
        codes = graph.constant(draw.integers(-7, 8, (reduction, outputs)).astype(DType.INT4.numpy))
        scale = graph.constant(np.full((reduction // block, outputs), 0.1, np.float32))
        weight = graph.add("DequantizeLinear", [codes, scale], {"axis": 0, "block_size": block}).output
    y = graph.add("MatMul", [x, weight]).output
    graph.add_output(y, "y", TensorType(DType.FLOAT, (rows, outputs)))
    return graph
