"""Sums of products, in one stage or, of halves, in two.

A running sum of n float16 products is rounded n times, and the noise of that grows with n. So a long one is cut into
runs: a stage `part` sums each run and the stage `sums` the runs, so that noise grows with the length of a run and the
number of runs, not with their product (blocked summation; Higham, "Accuracy and Stability of Numerical Algorithms",
section 4.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tvm import te

_RUN = 64
"""Products that are summed in one run: enough for what is done between two runs to cost little."""


def sums(
    shape: Sequence[Any],
    term: Callable[..., Any],
    axes: Sequence[tuple[Any, str]],
    dtype: str,
    notes: Mapping[str, int],
) -> te.Tensor:
    """The sums, over `axes` (size and name), of what `term` gives for a place of `shape` and one of the axes.

    The last three dimensions of `shape` are one tile of sums. `notes` are for the rule that schedules it.
    """
    (size, name), *others = axes
    inner = [te.reduce_axis((0, extent), other) for extent, other in others]
    cut = dtype == "float16" and isinstance(size, int)
    run = _run(size, math.prod(extent for extent, _ in others)) if cut else size
    first = te.reduce_axis((0, run), name)
    if not cut or run == size:
        return te.compute(
            shape, lambda *i: te.sum(term(*i, first, *inner), axis=[first, *inner]), name="sums", attrs=dict(notes)
        )
    lead, tile = tuple(shape[:-3]), tuple(shape[-3:])
    count = size // run

    def part(*i: Any) -> Any:
        place, index = (*i[: len(lead)], *i[len(lead) + 1 :]), i[len(lead)]
        return te.sum(term(*place, index * run + first, *inner), axis=[first, *inner])

    parts = te.compute((*lead, count, *tile), part, name="part")
    outer = te.reduce_axis((0, count), "run")
    return te.compute(
        shape,
        lambda *i: te.sum(parts(*i[: len(lead)], outer, *i[len(lead) :]), axis=[outer]),
        name="sums",
        attrs=dict(notes),
    )


def _run(size: int, terms: int) -> int:
    """How many of the first axis are one run, where each stands for so many terms: a divisor of its size, such that the
    run is as near to `_RUN` as can be."""
    divisors = [run for run in range(1, size + 1) if size % run == 0]
    return min(divisors, key=lambda run: abs(math.log(run * terms / _RUN)), default=size)
