"""Executing a graph piece by piece, each node once, while passes rewrite what lies ahead.

`advance(wanted, use)` runs the nodes that are needed for `wanted` and were not run yet, over all batches of the
samples, and keeps every value that a node still to come will read: the frontier. Values that nobody is left to read are
dropped.
What DequantizeLinear makes is not kept but made again from the codes, which take a quarter of the memory, and neither
is what takes less time to make again than to keep (`again`). Of such a value those who want it at some places alone say
which (`FrontierPick`): these are gathered within the run.
`rest(wanted, edit)` runs what is left in an edited copy and keeps nothing: what would be if.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...errors import TargetError
from ...ir.clone import copy_nodes
from ...ir.graph import Graph, Node, User, Value
from ...ir.types import DType, TensorType
from ...runtime.parallel import imap, threads_each, threads_for
from ...storage.spill import Data, Spill
from .again import IN_MEMORY, STORED, effort_of, size_of
from .picked import picked

if TYPE_CHECKING:
    from ...runtime.samples import Feeds, Samples
    from ...runtime.session import Session

Used = TypeVar("Used")

AT = "optc.at"


@dataclass(frozen=True, slots=True)
class FrontierPick:
    """That of `value` (samples, channels, *positions), of the positions `sizes`, only some are wanted: of each batch
    those of the flat numbers that `at` gives."""

    value: Value
    sizes: tuple[int, ...]
    at: Callable[[int], NDArray[np.int64]]


class Elsewhere(Exception):
    """A value has other positions than is recorded of it."""


class Frontier:
    """The student's progress through its own graph. `kept` stores the values; it is shared, and not closed here."""

    def __init__(
        self, graph: Graph, samples: Samples, size: int, kept: Spill, threads: int, *, exact: bool = False
    ) -> None:
        self._graph = graph
        self._samples = samples
        self._size = size
        self._kept = kept
        self._threads = threads_for(graph, threads)
        self._exact = exact
        self._executed: set[Node] = set()
        self._again: set[Node] = set()
        """Those of the executed whose outputs are not kept."""
        self._live: set[Value] = set()
        self._batches = 0

    def advance(
        self,
        wanted: Sequence[Value],
        use: Callable[[int, Mapping[Value, Data]], Used],
        *,
        ahead_only: bool = False,
        pick: FrontierPick | None = None,
    ) -> Iterator[Used]:
        """Compute `wanted` and yield what `use` makes of the number of a batch and its values, batch by batch.

        `ahead_only` looks ahead at values as they would be now: nothing of it is kept, and all of it may change yet.
        Where the value of `pick`, one of `wanted`, is not kept, `use` is given (samples, picked positions, channels) of
        it. Batches are worked on side by side once the first is done, so `use` must not change what it shares with
        another call, but for the first. Exhaust the iterator: only then is the frontier whole. Raises `Elsewhere`,
        before anything was kept, where the value has other positions than `pick` says.
        """
        nodes, reads = self._missing(wanted)
        ahead = set(nodes)
        if not ahead_only:
            self._again |= self._cheap(nodes, ahead)
        results = [v for node in nodes for v in node.outputs]
        lasting = [v for v in results if not (ahead_only or self._settled(v, ahead)) and self.keeps(v)]
        picked = pick if pick is not None and pick.value in results and pick.value not in lasting else None
        outputs = [v for v in results if v in lasting or (v in wanted and (picked is None or v is not picked.value))]
        if nodes:
            session, names = self._compile(nodes, reads, outputs, pick=picked)

        def work(item: tuple[int, Feeds]) -> tuple[list[Data], Used]:
            values = self._values(reads, *item)
            if nodes:
                feeds = {names[v]: array for v, array in values.items()}
                if picked is not None:
                    feeds[AT] = picked.at(item[0])
                arrays = _run(session, feeds, picked)
                values.update(zip(outputs, arrays, strict=False))
                if picked is not None:
                    values[picked.value] = arrays[len(outputs)]
            return [values[v] for v in lasting], use(item[0], {v: values[v] for v in wanted})

        for batch, (new, used) in enumerate(imap(work, self._feeds(reads), self._threads)):
            for value, array in zip(lasting, new, strict=True):
                self._kept.append(value, array)
            self._batches = max(self._batches, batch + 1)
            yield used
        if ahead_only:
            return
        self._executed |= ahead
        self._live.update(lasting)
        for value in [v for v in self._live if self._settled(v, set())]:
            self._live.discard(value)
            self._kept.drop(value)

    def rest(self, wanted: Sequence[Value], edit: Callable[[Mapping[Value, Value]], None]) -> Iterator[list[Data]]:
        """What `wanted` would be, batch by batch, if what was not run yet were as `edit` makes it.

        `edit` is given the values of the graph with their twins in the copy that it may change.
        """
        nodes, reads = self._missing(wanted)
        session, names = self._compile(nodes, reads, wanted, edit)

        def work(item: tuple[int, Feeds]) -> list[Data]:
            return session.run({names[v]: array for v, array in self._values(reads, *item).items()})

        return imap(work, self._feeds(reads), self._threads)

    def keeps(self, value: Value) -> bool:
        """Whether `value`, once it is computed, stays at hand until all that read it have run."""
        maker = value.producer
        return maker is not None and not _decodes(maker) and maker not in self._again

    def at_hand(self, values: Sequence[Value], batch: int) -> dict[Value, Data]:
        """Values at hand, of a batch."""
        return {value: self._kept.get(value, batch) for value in values}

    def _feeds(self, values: Sequence[Value]) -> Iterator[tuple[int, Feeds]]:
        """The batches, each with its inputs where `values` are not all in the frontier."""
        foreign = any(v not in self._live for v in values)
        return enumerate(self._samples.batches(self._size) if foreign else [{}] * self._batches)

    def _values(self, values: Sequence[Value], batch: int, feeds: Feeds) -> dict[Value, Data]:
        """The values at hand of a batch: out of the frontier, and inputs out of the samples, which hold none that has a
        default."""

        def at_hand(value: Value) -> Data:
            return feeds[value.name] if value.default is None else value.default.numpy()

        return {v: self._kept.get(v, batch) if v in self._live else at_hand(v) for v in values}

    def _missing(self, wanted: Sequence[Value]) -> tuple[list[Node], list[Value]]:
        """The nodes still to run for `wanted`, in order, and the values at hand that these (or the caller) read."""
        nodes: dict[Node, None] = {}
        reads: dict[Value, None] = {}
        entered: set[Node] = set()
        stack: list[Value | Node] = list(reversed(wanted))
        while stack:
            item = stack.pop()
            if isinstance(item, Node):  # everything before it is in place
                nodes[item] = None
            elif item.constant is None and (item in self._live or item.producer is None):
                reads[item] = None
            elif item.producer is not None and item.producer not in entered:
                entered.add(item.producer)
                stack.append(item.producer)
                stack += [v for v in (*item.producer.inputs, *item.producer.captures) if v is not None]
        return list(nodes), list(reads)

    def _settled(self, value: Value, ahead: set[Node]) -> bool:
        """Whether every node that reads `value` has run, or is among those `ahead`; of codes, what they decode to."""
        for user, _ in value.uses:
            node = outermost(user, self._graph)
            if node is not None and (_decodes(node) or node in self._again):
                if not all(self._settled(output, ahead) for output in node.outputs):
                    return False
            elif node is not None and node not in self._executed and node not in ahead:
                return False
        return True

    def _cheap(self, nodes: list[Node], ahead: set[Node]) -> set[Node]:
        """Those of `nodes` whose outputs are sooner made again, all from what is kept before them, than kept."""
        cheap: set[Node] = set()
        stored: set[Node] = set()
        before: dict[Value, frozenset[Node]] = {}
        for node in nodes:
            inputs = [v for v in node.inputs if v is not None]
            makers = frozenset({node}).union(*(before.get(v, frozenset()) for v in inputs))
            before.update(dict.fromkeys(node.outputs, makers))
            sizes = [size_of(value) for value in node.outputs if not self._settled(value, ahead)]
            if not sizes:
                continue
            size = sum(size for size in sizes if size is not None)
            room = self._kept.room // max(self._samples.count, 1)
            worth = size * (IN_MEMORY if size <= room else STORED)
            if None not in sizes and self._samples.batched and effort_of(makers) < worth:
                cheap |= makers - stored
            else:
                stored.add(node)
        return cheap

    def _compile(
        self,
        nodes: list[Node],
        reads: list[Value],
        outputs: Sequence[Value],
        edit: Callable[[Mapping[Value, Value]], None] | None = None,
        pick: FrontierPick | None = None,
    ) -> tuple[Session, dict[Value, str]]:
        from ...runtime.session import Session

        part = Graph(self._graph.name, opsets=self._graph.opsets)
        part.header, part.functions = self._graph.header, self._graph.functions
        twins: dict[Value, Value] = {}
        names: dict[Value, str] = {}
        for value in reads:
            names[value] = value.name if value.is_input else f"optc.in.{len(names)}"
            kind = value.type
            if kind is None and value in self._live and self._batches:
                kind = _type_of(self._kept.get(value, 0))
            # Shapes recorded before an edit may be out of date: the runtime sees the arrays anyway.
            twins[value] = part.add_input(
                names[value], TensorType(kind.dtype) if isinstance(kind, TensorType) else kind
            )
        copy_nodes(self._graph, nodes, part, twins)
        if edit is not None:
            edit(twins)
        for node in part:
            for value in node.outputs:
                value.type = None
        threads = threads_each(self._threads)
        results = [twins[v] for v in outputs]
        if pick is not None:
            results += _picking(part, twins[pick.value], pick.sizes)
        return Session(part, outputs=results, threads=threads, exact=self._exact, spins=False), names


def _run(session: Session, feeds: Feeds, pick: FrontierPick | None) -> list[Data]:
    if pick is None:
        return session.run(feeds)
    try:
        arrays = session.run(feeds)
    except TargetError as error:  # Gather beyond the end, where nothing else fails without
        raise Elsewhere from error
    if tuple(arrays[-1][2:].tolist()) != pick.sizes:
        raise Elsewhere
    return arrays


def _picking(part: Graph, value: Value, sizes: tuple[int, ...]) -> list[Value]:
    """What stands in `value` at positions that a run is given, and its shape."""
    at = part.add_input(AT, TensorType(DType.INT64, ("optc.positions",)))
    return [picked(part, value, sizes, at), part.add("Shape", [value]).output]


def _type_of(array: Data) -> TensorType:
    """The type of a value that has none (operators of other domains infer none), by what was seen there."""
    return TensorType(DType.STRING if array.dtype.hasobject else DType.of(array.dtype))


def _decodes(node: Node) -> bool:
    """Whether a node only decodes an activation: run again whenever its answer is needed."""
    return node.op == "DequantizeLinear" and not node.domain


def outermost(user: User, graph: Graph) -> Node | None:
    """The node of `graph` that `user` is, or is inside of; `None` for `graph` itself (its outputs)."""
    while user is not graph:
        if isinstance(user, Node):
            if user.graph is graph:
                return user
            owner = user.graph
        else:
            owner = user
        if owner is None or owner.parent is None:
            return None
        user = owner.parent
    return None
