"""Types through If, Loop, Scan and SequenceMap: what their bodies make of what they are given.

A body is inferred with the facts of its inputs. A loop's carried values start with the facts of the first iteration and
lose what the iterations change, until nothing changes; every round gives up at least one size, so there are few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from ..graph import Graph
from ..node import Node
from ..types import DType, SequenceType, TensorType, Type
from .rules.call import Call, Cannot, Elements, Fact
from .symbols import Size

RunBody: TypeAlias = Callable[[Graph, Sequence[Fact]], "list[Fact]"]
"""Infer a body for the facts of its inputs; returns those of its outputs."""

_ROUNDS = 8


def control_flow(call: Call, run: RunBody) -> list[Fact]:
    """The facts of the outputs of a node that holds bodies."""
    match call.node.op:
        case "If":
            return _branch(call, run)
        case "Loop":
            return _loop(call, run)
        case "Scan":
            return _scan(call, run)
        case "SequenceMap":
            return _sequence_map(call, run)
    for body in call.node.bodies:
        run(body, [Fact() for _ in body.inputs])
    raise Cannot


def _body(node: Node, name: str) -> Graph:
    value = node.attributes[name].value
    if not isinstance(value, Graph):
        raise Cannot
    return value


def _branch(call: Call, run: RunBody) -> list[Fact]:
    taken = [run(_body(call.node, name), ()) for name in ("then_branch", "else_branch")]
    condition = call.data(0)
    if condition is not None and condition.size == 1 and isinstance(condition.reshape(-1)[0], bool):
        return taken[0] if condition.reshape(-1)[0] else taken[1]
    return [join(call, a, b) for a, b in zip(*taken)]


def join(call: Call, a: Fact, b: Fact) -> Fact:
    """What holds whichever of two values comes."""
    if a.dtype != b.dtype or a.other != b.other:
        return Fact(a.dtype if a.dtype == b.dtype else DType.UNDEFINED)
    if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return Fact(a.dtype, other=a.other)
    return Fact(a.dtype, tuple(x if x == y else call.fresh() for x, y in zip(a.shape, b.shape)))


def _loop(call: Call, run: RunBody) -> list[Fact]:
    body = _body(call.node, "body")
    condition = call.data(1)
    always = not call.has(1) or (condition is not None and bool(condition.reshape(-1)[0]))
    carried = [Fact(f.dtype, f.shape, other=f.other) if f is not None else Fact() for f in call.facts[2:]]
    start = Fact(DType.INT64, ())
    go_on = Fact(DType.BOOL, (), _true() if always else None)
    results = _iterate(call, run, body, lambda state: [start, go_on, *state], carried, skip=1)
    again = results[0].elements
    limit = call.data(0)
    trips: Size = call.fresh()
    if always and again is not None and again.reshape(-1)[0] is True and limit is not None:
        trips = limit.reshape(-1)[0]
    return carried + [_stacked(f, 0, trips) for f in results[1 + len(carried) :]]


def _true() -> Elements:
    return np.array(True, dtype=object)


def _iterate(
    call: Call,
    run: RunBody,
    body: Graph,
    inputs: Callable[[list[Fact]], list[Fact]],
    carried: list[Fact],
    skip: int,
) -> list[Fact]:
    """Run a body until the facts of its carried values, changed in place, hold at both ends of it."""
    for attempt in range(_ROUNDS):
        results = run(body, inputs(carried))
        stable = True
        for index, before in enumerate(list(carried)):
            after = results[skip + index] if skip + index < len(results) else Fact()
            if after.shape == before.shape and after.dtype == before.dtype:
                continue
            if before.shape is None and before.dtype in (after.dtype, DType.UNDEFINED):
                if before.dtype is after.dtype or before.other is not None:
                    continue
                carried[index] = Fact(after.dtype)
            elif attempt >= _ROUNDS // 2:
                carried[index] = Fact(before.dtype)
            else:
                carried[index] = _weaken(call, before, after)
                if carried[index] is before:
                    continue
            stable = False
        if stable:
            break
    return results


def _weaken(call: Call, before: Fact, after: Fact) -> Fact:
    """`before` without the sizes that an iteration changes; itself where they are unknown already."""
    if before.shape is None or after.shape is None or len(before.shape) != len(after.shape):
        return Fact(before.dtype)
    open_already = [not isinstance(x, int) and not x.named for x in before.shape]
    if all(x == y or is_open for x, y, is_open in zip(before.shape, after.shape, open_already)):
        return before
    return Fact(before.dtype, tuple(x if x == y else call.fresh() for x, y in zip(before.shape, after.shape)))


def _stacked(fact: Fact, axis: int, size: Size) -> Fact:
    if fact.shape is None:
        return Fact(fact.dtype)
    axis = axis + len(fact.shape) + 1 if axis < 0 else axis
    return Fact(fact.dtype, (*fact.shape[:axis], size, *fact.shape[axis:]))


def _scan(call: Call, run: RunBody) -> list[Fact]:
    node, body = call.node, _body(call.node, "body")
    count = node.get_int("num_scan_inputs")
    if call.opset < 9:
        run(body, [Fact() for _ in body.inputs])
        raise Cannot
    states = len(call.facts) - count
    axes = node.get_ints("scan_input_axes", (0,) * count)
    steps: Size = call.fresh()
    slices = []
    for index in range(count):
        fact = call.fact(states + index)
        if fact.shape is None:
            slices.append(Fact(fact.dtype))
            continue
        axis = call.normalise(axes[index], len(fact.shape))
        steps = fact.shape[axis]
        slices.append(Fact(fact.dtype, fact.shape[:axis] + fact.shape[axis + 1 :]))
    carried = [Fact(f.dtype, f.shape) if f is not None else Fact() for f in call.facts[:states]]
    results = _iterate(call, run, body, lambda state: [*state, *slices], carried, skip=0)
    scanned = results[states:]
    out_axes = node.get_ints("scan_output_axes", (0,) * len(scanned))
    return carried + [_stacked(fact, axis, steps) for fact, axis in zip(scanned, out_axes)]


def _sequence_map(call: Call, run: RunBody) -> list[Fact]:
    inputs = []
    for fact in call.facts:
        element: Type | None = None if fact is None else fact.other
        if isinstance(element, SequenceType) and isinstance(element.element, TensorType):
            shape = element.element.shape
            inputs.append(Fact(element.element.dtype, None if shape is None else call.unknown(len(shape))))
        else:
            inputs.append(fact or Fact())
    results = run(_body(call.node, "body"), inputs)
    return [Fact(other=SequenceType(TensorType(f.dtype))) for f in results]
