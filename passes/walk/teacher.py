"""What the teacher answers: it runs once over the samples, and rows of its answers wait at sampled positions.

For group number k of a walk, batch by batch, a `Spill` then holds under

    ("at", k)            the positions that rows were taken at
    ("shape", k)         the shape of the answer
    ("selected", k)      the outcome of the selections before the group, where there are any (`pairing`)
    ("answer", layer)    the rows

The teacher is `ctx.teacher` where it has a value of the same name and shape, and otherwise the graph as it stood when
the walk began (a layer that an earlier pass made has no counterpart in the float model).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...ir.clone import clone
from ...ir.graph import Graph, Value
from ...runtime.parallel import beside, imap, threads_each, threads_for
from ...storage.spill import Data, Spill
from ..base import Context
from .linear import Linear
from .order import Goal
from .pairing import Selections, digest
from .patches import sample_positions

if TYPE_CHECKING:
    from ...runtime.samples import Feeds

Rows = NDArray[np.float32]

WIDE = 256
FEWEST, EACH = 4, 16
"""See `positions`. ResNet-20 for CIFAR-10 in 8 bits has a KL of .0011 with half of the rows of its widest layers, as it
has with all of them; factored to half of its MACs it is right on 89.4 % both ways."""


@dataclass(frozen=True, slots=True)
class _Answers:
    """Of one batch: what the teacher answers for the layers of a group, at `positions`, and the answers' shapes."""

    number: int
    positions: NDArray[np.intp]
    group: list[Goal]
    shapes: list[tuple[int, ...]]
    rows: list[Rows]
    selected: bytes


def teach(
    graph: Graph, ctx: Context, goals: list[list[Goal]], selections: Selections, kept: Spill, size: int, rows: int
) -> dict[Linear, tuple[int, ...]]:
    """Run the teacher once and keep rows of its answers; returns the shape of every layer's output in the first
    batch."""
    shapes: dict[Linear, tuple[int, ...]] = {}
    ctx.forward = 0.0
    for reference, wanted, twins in _references(graph, ctx.teacher, goals, selections):
        for batch, (seconds, answers) in enumerate(_answers(reference, twins, wanted, selections, ctx, size, rows)):
            ctx.forward += seconds
            for one in answers:
                if kept.count(("at", one.number)) == batch:
                    kept.append(("at", one.number), one.positions)
                    kept.append(("shape", one.number), np.asarray(one.shapes[0]))
                    kept.append(("selected", one.number), np.frombuffer(one.selected, np.uint8))
                for goal, shape, sampled in zip(one.group, one.shapes, one.rows, strict=True):
                    shapes.setdefault(goal.layer, shape)
                    kept.append(("answer", goal.layer), sampled)
    return shapes


def _answers(
    reference: Graph,
    twins: Mapping[Value, Value],
    wanted: Mapping[int, list[Goal]],
    selections: Selections,
    ctx: Context,
    size: int,
    rows: int,
) -> Iterator[tuple[float, list[_Answers]]]:
    """Batch by batch, what `reference`, by its own values in `twins`, says to every group that is asked anything, and
    the seconds that its run took."""
    from .sampled import Sampled, can_pick

    samples = ctx.fit
    assert samples is not None
    values = tuple(dict.fromkeys(twins.values()))
    threads = threads_for(reference, ctx.threads)
    session = Sampled(reference, (), values, threads_each(threads))
    sizes: dict[int, list[tuple[int, ...]]] = {}
    """The shapes of the answers, but for the number of samples, of groups that are picked inside of the graph."""

    def picking(arrays: Mapping[Value, Data], count: int) -> Sampled:
        """The session for all batches but the first, whose `arrays` tell what can be picked."""
        picks, whole = [], []
        for number, group in wanted.items():
            answers = [twins[goal.output] for goal in group]
            if group[0].layer.is_conv and all(can_pick(reference, v, arrays[v].shape, count) for v in answers):
                sizes[number] = [arrays[value].shape[1:] for value in answers]
                picks += [(number, value) for value in answers]
            else:
                whole += answers
            whole += [twins[choice] for choice in selections.before(group[0].layer.source)]
        return Sampled(reference, picks, whole, threads_each(threads))

    def work(item: tuple[int, Feeds]) -> tuple[float, list[_Answers]]:
        nonlocal session
        batch, feeds = item
        count = samples.size_of(feeds)

        def sites(number: int, shape: tuple[int, ...]) -> NDArray[np.intp]:
            return positions(wanted[number][0].layer, shape, rows, count / samples.count, (ctx.seed, number, batch))

        at = {number: sites(number, (count, *size[0])) for number, size in sizes.items()}
        start = time.perf_counter()
        picked, arrays = session.run(feeds, at)
        seconds = (time.perf_counter() - start) / beside(threads)
        answers = []
        for number, group in wanted.items():
            if number in at:
                shapes = [(count, *size) for size in sizes[number]]
                # Copied: what a session answers keeps the memory of its whole run.
                sampled = [_rows(picked[number, twins[goal.output]]) for goal in group]
            else:
                ys = [floats(arrays[twins[goal.output]]) for goal in group]
                shapes = [y.shape for y in ys]
                at[number] = sites(number, shapes[0])
                sampled = [goal.layer.targets(y, at[number]) for goal, y in zip(group, ys, strict=True)]
            outcome = [digest([arrays[twins[choice]]]) for choice in selections.before(group[0].layer.source)]
            answers.append(_Answers(number, at[number], group, shapes, sampled, b"".join(outcome)))
        if batch == 0:
            session = picking(arrays, count)
        return seconds, answers

    return imap(work, enumerate(samples.batches(size)), threads)


def positions(layer: Linear, output: Sequence[int], rows: int, share: float, seed: tuple[int, ...]) -> NDArray[np.intp]:
    """Positions of an output of shape `output`, for a batch that holds `share` of the samples. All together are `rows`;
    of a layer that reads more than `WIDE` inputs fewer, as its moments take the square of them in operations a row, but
    a thousandth of `rows` for each input, `FEWEST` to `EACH` of them."""
    groups, _, d = layer.shape
    wanted = max(min(rows, rows * WIDE // d) if groups == 1 else rows // 4, min(max(rows >> 10, FEWEST), EACH) * d)
    sites, each = layer.sites(output)
    return sample_positions(sites, math.ceil(wanted * share / max(each, 1)), np.random.default_rng(seed))


def _rows(sites: Data) -> Rows:
    """(samples, positions, n) as rows (samples * positions, n) of their own."""
    return np.array(sites.reshape(-1, sites.shape[2]), dtype=np.float32)


def floats(array: Data) -> Rows:
    return np.asarray(array, dtype=np.float32)


def _references(
    graph: Graph, teacher: Graph | None, goals: list[list[Goal]], selections: Selections
) -> Iterator[tuple[Graph, dict[int, list[Goal]], dict[Value, Value]]]:
    """The graphs that answer, each with the goals that it answers, by group, and the twins of the values they need.

    The layers of a group behind a selection have their rows from one graph, which made that selection.
    """
    named = {} if teacher is None else _unique_names(teacher)
    own = _unique_names(graph)

    def twin(value: Value) -> Value | None:
        other = named.get(value.name)
        return other if own.get(value.name) is value else None

    def same(value: Value) -> bool:
        other = twin(value)
        return other is not None and bool(value.shape) and other.shape == value.shape

    taught: dict[int, list[Goal]] = {}
    rest: dict[int, list[Goal]] = {}
    twins: dict[Value, Value] = {}
    for number, group in enumerate(goals):
        choices = selections.before(group[0].layer.source)
        able = [goal for goal in group if same(goal.output)]
        if choices and (len(able) < len(group) or any(twin(choice) is None for choice in choices)):
            able = []
        if able:
            taught[number] = able
            needed = [*(goal.output for goal in able), *choices]
            twins.update((value, other) for value in needed if (other := twin(value)) is not None)
        if left := [goal for goal in group if goal not in able]:
            rest[number] = left
    if teacher is not None and taught:
        yield teacher, taught, twins
    if rest:
        copies: dict[Value, Value] = {}
        copy = clone(graph, copies)
        needed = [goal.output for group in rest.values() for goal in group]
        needed += [choice for group in rest.values() for choice in selections.before(group[0].layer.source)]
        yield copy, rest, {value: copies[value] for value in needed}


def _unique_names(graph: Graph) -> dict[str, Value]:
    values: dict[str, Value | None] = {}
    for node in graph:
        for value in node.outputs:
            values[value.name] = None if value.name in values or not value.name else value
    return {name: value for name, value in values.items() if value is not None}
