"""The first run of a model, within bounds: nobody knows yet what it takes.

A model is as large as its weights, and its answers as its inputs; a network takes what is in proportion to these. What
takes far more was made by a few bytes that ask for much: a size, a loop. Where sizes are known that is told before
anything runs; where they are not, and loops never tell, the run is ended.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import TargetError
from ..ir.constant_work import check_constant_work
from ..ir.cost import cost
from ..ir.graph import Graph
from ..ir.node import Node
from ..ir.shapes.infer import Inference, analyse
from ..ir.tensor import LazyTensor
from ..ir.types import DType
from ..runtime.bounded import bounded_memory, bounded_time
from ..runtime.columns import Array
from ..runtime.cpu import quota
from ..runtime.session import Session

VARIABLE = "OPTC_BOUNDS"
"""`off` lets a model take what it takes."""
_LARGEST = 8 << 30
"""Bytes of one value of a model that is run."""
_OUTPUTS = 1 << 14
"""Values that one node makes, and elements of a sequence."""
_WAY_OUT = f"where you know better, {VARIABLE}=off in the environment lets it run"
_UNEXPLAINED = f"which its weights and inputs do not explain; {_WAY_OUT}"


class TakesTooMuch(TargetError):
    """A model takes far more than its weights and inputs explain."""


@dataclass(frozen=True, slots=True)
class FirstRunBounds:
    """Bytes and seconds of work that the first run of a model may take."""

    memory: int
    seconds: float

    @staticmethod
    def of(graph: Graph, feeds: Mapping[str, Array], dims: Mapping[str, int], threads: int) -> FirstRunBounds | None:
        """`None` where a user wants none. Raises `TargetError` where sizes that are known tell that it takes more."""
        check_size(graph)
        if os.environ.get(VARIABLE) == "off":
            return None
        outputs = max((len(node.outputs) for node in graph.walk()), default=0)
        if outputs > _OUTPUTS:
            raise TakesTooMuch(
                f"a node of the model makes {outputs} values, and runtimes take the square of that in time; {_WAY_OUT}"
            )
        tensors = [v.constant for each in graph.graphs() for v in each.constants if v.constant is not None]
        weights = sum(one.nbytes for one in tensors if not isinstance(one, LazyTensor))
        inputs = sum(array.nbytes for array in feeds.values())
        whole = cost(graph, dims)
        for size, most, what in (
            (whole.macs, (1 << 34) + (weights << 14) + (inputs << 17), "computes {} products"),
            (whole.activations, (1 << 30) + (weights << 9) + (inputs << 14), "writes {} bytes"),
        ):
            if size > most:
                raise TakesTooMuch(f"on one sample the model {what.format(size)}, {_UNEXPLAINED}")
        activations = min(whole.activations, (512 << 20) + (inputs << 8))
        memory = (384 << 20) + 8 * weights + activations + (threads or quota()) * (32 << 20)
        return FirstRunBounds(memory, 5 + weights / 1e6 + whole.macs / 1e9 + activations / 1e8)


def first_answer(graph: Graph, feeds: Mapping[str, Array], bounds: FirstRunBounds | None, threads: int) -> Session:
    """`graph` ready to run, after it ran on `feeds`. Raises `TargetError` where it does not, and `TakesTooMuch`."""
    if bounds is None:
        session = Session(graph, threads=threads)
        session.run(feeds)
        return session
    opened: list[Session] = []
    late = False

    def end() -> None:
        nonlocal late
        late = True
        for one in opened:
            one.stop()

    try:
        with bounded_memory(bounds.memory), bounded_time(bounds.seconds, end):
            opened.append(Session(graph, threads=threads))
            if late:
                end()
            opened[0].run(feeds)
    except (TargetError, MemoryError) as error:
        if late:
            reason = f"{bounds.seconds:.0f} seconds"
        elif isinstance(error, MemoryError) or "alloc" in str(error):
            reason = f"{bounds.memory} bytes"
        else:
            raise
        raise TakesTooMuch(f"on one sample the model takes more than {reason}, {_UNEXPLAINED}") from error
    return opened[0]


def check_size(graph: Graph) -> None:
    """Raises `TargetError` where a value takes more memory than is allowed for one when the model is run, a sequence
    has more elements, or what is computed from constants alone takes more."""
    inference = analyse(graph)
    check_constant_work(graph, inference)
    for value, fact in inference.facts.items():
        shape = [size for size in fact.shape or () if isinstance(size, int)]
        size = fact.dtype.file_bytes(math.prod(shape)) if fact.dtype is not DType.UNDEFINED else 0
        if size > _LARGEST and value.producer is not None:
            raise TargetError(f"value '{value.name}' of the model would take {size} bytes when it is run")
    for node in graph.walk():
        pieces = _pieces(node, inference) if node.op == "SplitToSequence" else 0
        if pieces > _OUTPUTS:  # where memory ends amid so many, ONNX Runtime ends the process
            raise TargetError(f"value '{node.output.name}' of the model would be a sequence of {pieces} tensors")


def _pieces(node: Node, inference: Inference) -> int:
    """How many tensors a SplitToSequence makes; 0 where that is not known."""
    whole, split = node.inputs[0], node.input(1)
    if split is not None and split.constant is None:
        return 0
    if split is not None and split.constant is not None and split.constant.shape:
        return split.constant.size
    shape = None if whole is None else inference.shape(whole)
    axis = node.get_int("axis", 0)
    size = shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None
    each = 1 if split is None or split.constant is None else max(int(split.constant.numpy()), 1)
    return -(-size // each) if isinstance(size, int) else 0
