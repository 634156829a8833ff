"""How much is computed of what a file says, decided before anything is computed.

A few bytes of a model can ask for any number of bytes: a size in a Tile, a shape of a generated or a sparse constant, a
chain of products. What would take more than this stays as it is written; nothing here bounds data that a file holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ModelError
from .types import DType

if TYPE_CHECKING:
    from .graph import Graph

MOST = 512 << 20
"""Bytes of one array that is written out of fewer."""
RESULTS = 512 << 20
"""Bytes of all results that one pass evaluates, besides twice what the model stores."""
MACS = 1 << 33
"""Multiply-accumulates of all that one pass evaluates: seconds."""
RUNS = 512
"""Sessions of a runtime that one pass opens for nodes that it evaluates, of about a millisecond each."""


class TooLarge(ModelError):
    """What would take more than `MOST` bytes when it is written out."""


def memory(dtype: DType, shape: Sequence[int]) -> int:
    """Bytes of an array of `dtype.numpy`, in which each element takes a byte at least and a string takes a pointer."""
    return math.prod(shape) * dtype.numpy.itemsize


def require(dtype: DType, shape: Sequence[int], what: str) -> None:
    """Raises `TooLarge` where an array would take more than `MOST` bytes."""
    size = memory(dtype, shape)
    if size > MOST:
        raise TooLarge(
            f"{what} of {dtype.text}{list(shape)} takes {size} bytes written out, and at most {MOST} are; "
            "store it whole, or in a node that makes it"
        )


@dataclass(slots=True)
class Effort:
    """What is left to spend on evaluating a model's nodes: bytes of results, products, sessions of a runtime."""

    bytes: int
    macs: int = MACS
    runs: int = RUNS

    @staticmethod
    def of(graph: Graph) -> Effort:
        """For one pass over `graph`."""
        stored = (v.constant.nbytes for each in graph.graphs() for v in each.constants if v.constant is not None)
        return Effort(RESULTS + 2 * sum(stored))

    def spend(self, bytes: int, macs: int, runs: int) -> bool:
        """Whether so much is left; it is not from then on."""
        if bytes > self.bytes or macs > self.macs or runs > self.runs:
            return False
        self.bytes -= bytes
        self.macs -= macs
        self.runs -= runs
        return True
