"""Every model of the ONNX backend corpus, through everything that holds a graph, answers as before."""

from __future__ import annotations

import pytest
from corpus import CannotRun, cases, outputs, same

from optc.ir.onnx.reader import from_proto
from optc.ir.onnx.writer import to_proto
from optc.ir.text.dump import dump
from optc.ir.text.parse import parse
from optc.ir.verify.verify import verify

NO_KERNEL = "neither ONNX Runtime nor the reference evaluator implements Gradient"
RANDOM = "ONNX Runtime does not run it, and the reference evaluator draws other numbers on every run"
NOT_COMPARED = {
    "test_gradient_of_add": NO_KERNEL,
    "test_gradient_of_add_and_mul": NO_KERNEL,
    "test_bernoulli": RANDOM,
    "test_bernoulli_expanded": RANDOM,
    "test_bernoulli_double": RANDOM,
    "test_bernoulli_double_expanded": RANDOM,
}
"""Cases whose text is compared and whose outputs cannot be, with the reason."""

CHUNKS = 6
COUNTS = {"node": 1800, "simple": 26, "pytorch-converted": 82, "pytorch-operator": 35, "light": 9}
"""The least number of cases; the corpus of a later onnx is larger."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "chunk"),
    [*(("node", chunk) for chunk in range(CHUNKS)), *((kind, 0) for kind in COUNTS if kind != "node")],
)
def test_round_trip_keeps_the_outputs(kind: str, chunk: int) -> None:
    corpus = cases(kind)
    assert len(corpus) >= COUNTS[kind]
    share = corpus[chunk::CHUNKS] if kind == "node" else corpus
    ran = 0
    failures = []
    for case in share:
        graph = from_proto(case.model)
        verify(graph)
        text = dump(graph, tensors="inline")
        again = parse(text)
        verify(again)
        written = to_proto(again)
        if dump(again, tensors="inline") != text or dump(from_proto(written), tensors="inline") != text:
            failures.append(f"{case.name}: the text changed")
            continue
        if case.name in NOT_COMPARED:
            continue
        try:
            before, after = outputs([case.model, written], case.feeds)
        except CannotRun as error:
            failures.append(f"{case.name}: cannot run: {error}")
            continue
        ran += 1
        if not same(before, after):
            failures.append(f"{case.name}: other outputs")
    assert not failures, "\n".join(failures)
    assert ran == len(share) - sum(case.name in NOT_COMPARED for case in share)
