"""What tests send to the workers of a cluster, in a module that their processes can load."""

from __future__ import annotations

import os
from pathlib import Path

from optc.storage.store import Store

KEPT = "0" * 40
"""A key of what `doubled` adds to the cache."""


def doubled(paths: list[str], cache: str, number: int) -> tuple[int, str, str]:
    """Twice a number, a text out of the file that was sent, and a variable of the process."""
    Store(cache).put(KEPT, b"kept there")
    return 2 * number, Path(paths[0]).read_text(), os.environ.get("OMP_NUM_THREADS", "unset")


def dying(paths: list[str], cache: str) -> None:
    os._exit(7)
