"""What a graph becomes before kernels are made of it, as text.

A file of `tests/golden/legal` holds a graph, a line `---`, and the graph as the target `host` legalises it.
`--update-golden` writes what comes out now; read the difference.
"""

from __future__ import annotations

from pathlib import Path

import golden_text
import numpy as np
import pytest
from equivalence import feeds

from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.passes.base import Context
from optc.runtime.session import Session
from optc.targets import table


def legalise(graph: Graph) -> None:
    target = table.parse("host")[0]
    for one in target.legalisation().passes:
        one.run(graph, Context(target.facts))
        graph.sweep()
        graph.sort()
        infer(graph, fresh=True)


@golden_text.cases("legal")
def test_golden(path: Path, request: pytest.FixtureRequest) -> None:
    source, graph = golden_text.check(path, request, legalise)
    fed = dict(zip([value.name for value in source.inputs], feeds(source), strict=True))
    old, new = (Session(one, threads=1, optimise=False).run(fed) for one in (source, graph))
    for got, want in zip(new, old, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
