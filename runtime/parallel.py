"""Batches side by side: work that releases the interpreter's lock, on threads, with results in the order of the items.

Most operators of a network are too small to keep all cores busy from within, and between two runs of a session the
caller sums up what it was told. So two batches are worked on at a time, each by its share of the cores, while the
caller deals with the one before. What comes out, and in which order, does not depend on the clock.

Products and solves of linear algebra are small, too. The threads of a BLAS wait for the next one by spinning, for some
30 ms after each, and the caller spins until the last of them is done: beside other work `prune` took six times the CPU
time that one thread takes, and as much longer. So BLAS has one thread (`single_blas`), and what is large enough is
worked on side by side here.
"""

from __future__ import annotations

import functools
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from ..ir.randomness import is_random
from .cpu import cores

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

    from ..ir.graph import Graph

Item = TypeVar("Item")
Result = TypeVar("Result")

_LIBRARY = 128 << 20
"""Bytes of addresses that SciPy's linear algebra takes when it is loaded, and the buffers of each of its threads."""
_BUFFERS = 64 << 20
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
    due: deque[Future[Result]] = deque()
    with single_blas(), ThreadPoolExecutor(BESIDE, thread_name_prefix="optc-batch") as pool:
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


@contextmanager
def single_blas() -> Iterator[None]:
    """BLAS and LAPACK take one thread for each call, of whichever thread."""
    with _pools().limit(limits=1, user_api="blas"):
        yield


@functools.cache
def _pools() -> ThreadpoolController:
    """The pools of threads of this process; numpy and scipy each bring a BLAS, which is found once it is loaded."""
    import numpy  # noqa: F401

    # A BLAS that is loaded where there is no memory for its buffers tries for ever.
    mmap.mmap(-1, _LIBRARY + (os.cpu_count() or 1) * _BUFFERS).close()
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def threads_for(graph: Graph, threads: int) -> int:
    """The threads that `graph` may run on: one where it draws random numbers, which runs must do in their order."""
    return 1 if is_random(graph) else threads


def beside(threads: int) -> int:
    """How many batches are worked on at a time."""
    return 1 if (threads or cores()) == 1 else BESIDE


def threads_each(threads: int) -> int:
    """The threads of a session that works on one of them."""
    return threads if beside(threads) == 1 else max(1, (threads or cores()) // BESIDE)
