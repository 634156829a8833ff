"""A model that students are compared with is asked once, and a graph that was judged is not run again."""

from __future__ import annotations

from collections import Counter

import pytest
from walked import context, residual_net

from optc.runtime import original as module
from optc.runtime.agreement import agreement
from optc.runtime.original import Original
from optc.runtime.session import Session


def test_it_says_what_agreement_says_and_asks_the_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = residual_net()
    ctx = context(graph, 40)
    assert ctx.fit is not None
    students = [graph.clone(), graph.clone()]
    for student, alpha in zip(students, (0.9, -1.0), strict=True):
        next(node for node in student if node.name == "head").set_attribute("alpha", alpha)
    expected = [agreement(graph, student, ctx.fit) for student in (graph, *students)]

    runs: Counter[str] = Counter()
    run = Session.run

    def counted(session: Session, feeds: object) -> object:
        runs["model" if session.graph is graph else "student"] += 1
        return run(session, feeds)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "run", counted)
    original = Original(graph, ctx.fit)
    assert [original.agreement(student) for student in (graph.clone(), *students)] == expected
    assert [original.agreement(student) for student in students] == expected[1:]
    assert runs == {"model": 5, "student": 10}


def test_answers_beyond_the_bound_are_computed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = residual_net()
    ctx = context(graph, 40)
    assert ctx.fit is not None
    student = graph.clone()
    next(node for node in student if node.name == "head").set_attribute("alpha", 0.9)
    monkeypatch.setattr(module, "KEPT", 200)
    original = Original(graph, ctx.fit)
    original.agreement(graph)
    assert 0 < len(original._answers) < 5
    assert original.agreement(student) == agreement(graph, student, ctx.fit)
