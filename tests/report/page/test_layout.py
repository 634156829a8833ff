"""Boxes do not overlap, edges lead downwards, and a chain is a straight line."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optc.report.page.layout import HEIGHT, WIDTH, layout


@st.composite
def dags(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    count = draw(st.integers(1, 24))
    ends = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda pair: pair[0] < pair[1])
    return count, sorted(draw(st.sets(ends, max_size=40))) if count > 1 else []


@settings(max_examples=60, deadline=None)
@given(dags())
def test_boxes_have_room_and_edges_lead_down(graph: tuple[int, list[tuple[int, int]]]) -> None:
    count, edges = graph
    plan = layout(count, edges)
    for at, (x, y) in enumerate(plan.boxes):
        assert WIDTH / 2 <= x <= plan.width - WIDTH / 2
        assert HEIGHT / 2 <= y <= plan.height - HEIGHT / 2
        for other_x, other_y in plan.boxes[:at]:
            assert abs(x - other_x) >= WIDTH - 1e-6 or abs(y - other_y) >= HEIGHT - 1e-6
    for (start, end), bends in zip(edges, plan.edges, strict=True):
        assert bends[0] == plan.boxes[start]
        assert bends[-1] == plan.boxes[end]
        assert all(a[1] < b[1] for a, b in pairwise(bends))


def test_a_chain_is_straight() -> None:
    plan = layout(5, [(0, 1), (1, 2), (2, 3), (3, 4)])
    assert [x for x, _ in plan.boxes] == pytest.approx([plan.boxes[0][0]] * 5)


def test_a_branch_around_a_box_keeps_clear_of_it() -> None:
    plan = layout(3, [(0, 1), (0, 2), (1, 2)])
    bend = plan.edges[1][1]
    assert abs(bend[0] - plan.boxes[1][0]) > WIDTH / 2


def test_nothing_is_nothing() -> None:
    assert layout(0, []).boxes == ()
