"""What a graph becomes before kernels are made of it, as text.

A file of `tests/golden/legal` holds a graph, a line `---`, and the graph as the target `host` legalises it.
`--update-golden` writes what comes out now; read the difference.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from equivalence import feeds

from optc.ir.shapes.infer import infer
from optc.ir.text.dump import dump
from optc.ir.text.parse import parse
from optc.ir.verify.verify import verify
from optc.passes.base import Context
from optc.runtime.session import Session
from optc.targets import table

CASES = sorted((Path(__file__).parents[2] / "golden" / "legal").glob("*.txt"), key=lambda path: path.stem)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_golden(path: Path, request: pytest.FixtureRequest) -> None:
    before, mark, expected = path.read_text().partition("---\n")
    assert mark, f"{path.name} has no line ---"
    graph = parse(before)
    infer(graph)
    source = graph.clone()
    target = table.parse("host")[0]
    for one in target.legalisation().passes:
        one.run(graph, Context(target.facts))
        graph.sweep()
        graph.sort()
        infer(graph, fresh=True)
    verify(graph)
    text = dump(graph, tensors="inline", origin=False)
    if request.config.getoption("--update-golden"):
        path.write_text(f"{before}---\n{text}")
    else:
        assert text == expected
    fed = dict(zip([value.name for value in source.inputs], feeds(source), strict=True))
    old, new = (Session(one, threads=1, optimise=False).run(fed) for one in (source, graph))
    for got, want in zip(new, old, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
