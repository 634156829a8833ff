"""What a worker of a cluster does in a process of its own."""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
from collections.abc import Callable

from ..passes.cached import environment, own_code
from ..storage.store import Store

_LOOK = 0.5
"""Seconds between two looks whether the worker is still there."""


def main(function: Callable[[bytes], bytes], out: str) -> None:
    """Write what `function` makes of the standard input into the file `out`."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    answer = function(sys.stdin.buffer.read())
    with open(out, "wb") as file:
        file.write(answer)


def about(call: bytes) -> bytes:
    """The code of optc here, and what else decides about the bytes that it makes."""
    return pickle.dumps((own_code(), environment()))


def carry_out(call: bytes) -> bytes:
    """The result of an errand, with what it added to the cache."""
    errand, paths, cache = pickle.loads(call)
    function, args = pickle.loads(errand)
    store = Store(cache)
    before = set(store.entries())
    answer = function(paths, cache, *args)
    kept = {entry: store.content(*entry) for entry in sorted(set(store.entries()) - before)}
    return pickle.dumps((answer, kept))


def _end_with(parent: int) -> None:
    """End this process when the worker is gone: nobody would take its result."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)
