"""Where another block can stand, and how it comes to stand there.

A file of `tests/golden/replace` holds a graph, a line `---`, and the graph with one convolution in each of its places.
`--update-golden` writes what comes out now; read the difference.
"""

from __future__ import annotations

from pathlib import Path

import golden_text
import numpy as np
import pytest

from optc.ir.graph import Graph
from optc.passes.replace import Replace
from optc.passes.replace.forms import Body, kernel_of
from optc.passes.replace.kind import Fitted, Replacement
from optc.passes.replace.places import places


def put_convolutions(graph: Graph) -> None:
    for place in places(graph):
        body, kernel = Body(place), kernel_of(place, Replace())
        weight = np.zeros((place.outputs, place.inputs, *kernel.size))
        done = body.done(body.conv(body.x, weight, kernel))
        one = Fitted(place.begin.name, place.end.name, "conv", done, 0.0, 0.0)
        Replacement(0, place.end, place.nodes, place, one).apply(graph)


@golden_text.cases("replace")
def test_golden(path: Path, request: pytest.FixtureRequest) -> None:
    golden_text.check(path, request, put_convolutions)
