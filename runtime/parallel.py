"""Batches side by side: work that releases the interpreter's lock, on threads, with results in the order of the items.

Most operators of a network are too small to keep all cores busy from within, and between two runs of a session the
caller sums up what it was told. So two batches are worked on at a time, each by its share of the cores, while the
caller deals with the one before. What comes out, and in which order, does not depend on the clock.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from ..ir.randomness import is_random

if TYPE_CHECKING:
    from ..ir.graph import Graph

Item = TypeVar("Item")
Result = TypeVar("Result")

BESIDE = 2
"""Batches worked on at a time: each takes the memory of a batch."""


def imap(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """`work(item)` for each of `items`, in order, on `threads` threads (0: all cores).

    `items` are drawn by the caller's thread, at most `BESIDE` before they are due. The first is worked on there,
    too, before any other is begun, so that it may prepare what the rest share. What `work` raises is raised where its
    result is due.
    """
    items = iter(items)
    for first in items:
        yield work(first)
        break
    if beside(threads) == 1:
        yield from map(work, items)
        return
    from threadpoolctl import threadpool_limits

    due: deque[Future[Result]] = deque()
    # Products of two callers would wait for the same threads of OpenBLAS, far longer than one thread takes for both.
    one_each = threadpool_limits(threads_each(threads), user_api="blas")
    with one_each, ThreadPoolExecutor(BESIDE, thread_name_prefix="optc-batch") as pool:
        try:
            for item in items:
                due.append(pool.submit(work, item))
                if len(due) > BESIDE:
                    yield due.popleft().result()
            while due:
                yield due.popleft().result()
        finally:
            for future in due:
                future.cancel()


def threads_for(graph: Graph, threads: int) -> int:
    """The threads that `graph` may run on: one where it draws random numbers, which runs must do in their order."""
    return 1 if is_random(graph) else threads


def beside(threads: int) -> int:
    """How many batches are worked on at a time."""
    return 1 if _cores(threads) == 1 else BESIDE


def threads_each(threads: int) -> int:
    """The threads of a session that works on one of them."""
    return threads if beside(threads) == 1 else max(1, _cores(threads) // BESIDE)


def _cores(threads: int) -> int:
    if threads:
        return threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
