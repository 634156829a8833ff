"""Every model of the ONNX backend corpus answers the same after `clean`, and is clean then."""

from __future__ import annotations

import pytest
from corpus import CannotRun, cases, outputs
from equivalence import distance

from optc.ir.onnx.reader import from_proto
from optc.ir.onnx.writer import size, to_proto
from optc.ir.text.dump import dump
from optc.ir.verify.verify import verify
from optc.passes.base import Context, TargetFacts
from optc.passes.clean import Clean

CHUNKS = 6
RANDOM = ("test_bernoulli", "test_bernoulli_double", "test_bernoulli_double_expanded", "test_bernoulli_expanded")
CANNOT_RUN = ("test_gradient_of_add", "test_gradient_of_add_and_mul")
ULPS = 4.0
GROWTH = 128
"""Bytes: a result of the shapes (Shape, Size, a Reshape's target) may take a little more than the node it replaces."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "chunk"),
    [
        *(("node", chunk) for chunk in range(CHUNKS)),
        *((kind, 0) for kind in ("simple", "pytorch-converted", "pytorch-operator", "light")),
    ],
)
def test_the_answers_stay(kind: str, chunk: int) -> None:
    context = Context(TargetFacts("onnx"))
    share = cases(kind)[chunk::CHUNKS] if kind == "node" else cases(kind)
    failures = []
    ran = 0
    for case in share:
        graph = from_proto(case.model)
        bytes_before, nodes_before = size(graph), sum(1 for _ in graph.walk())
        Clean().run(graph, context)
        verify(graph)
        if sum(1 for _ in graph.walk()) > nodes_before:
            failures.append(f"{case.name}: more nodes")
        if size(graph) > bytes_before + GROWTH:
            failures.append(f"{case.name}: {bytes_before} bytes became {size(graph)}")
        text = dump(graph, tensors="inline")
        if Clean().run(graph, context).rewrites or dump(graph, tensors="inline") != text:
            failures.append(f"{case.name}: not clean after cleaning")
        if case.name in RANDOM:
            continue
        try:
            before, after = outputs([case.model, to_proto(graph)], case.feeds)
        except CannotRun as error:
            if case.name not in CANNOT_RUN:
                failures.append(f"{case.name}: cannot run: {error}")
            continue
        ran += 1
        if (far := distance(before, after)) > ULPS:
            failures.append(f"{case.name}: {far:.3g} ulp")
    assert not failures, "\n".join(failures)
    assert ran >= len(share) - len(RANDOM) - len(CANNOT_RUN)
