"""Where QuantizeLinear and DequantizeLinear stand, and what they hold, as text.

A file of `tests/golden/quant` holds a graph, a line `---`, and the graph with its layers quantized: activations over
[-1, 3], what a Relu or Clip makes over [0, 3], weights and biases by their own size. `--update-golden` writes what
comes out now; read the difference.
"""

from __future__ import annotations

from pathlib import Path

import golden_text
import pytest
from equivalence import feeds

from optc.ir.graph import Graph
from optc.ir.types import DType
from optc.passes.base import TargetFacts
from optc.passes.quant.layers import find_layers
from optc.passes.quant.numbers.params import activation_params
from optc.passes.quant.qdq.insertion import Insertion
from optc.passes.quant.qdq.parameters import encode_biases, encode_weights
from optc.passes.quant.qdq.placement import place
from optc.passes.quant.scheme import FREE
from optc.runtime.session import Session


def insert(graph: Graph) -> None:
    layers = find_layers(graph)[0]
    plan = place(graph, layers)
    params = {
        group: activation_params(0.0 if any(v in plan.clamp for v in values) else -1.0, 3.0, DType.UINT8)
        for group, values in plan.sources().items()
    }
    insertion = Insertion(graph, plan, params, DType.UINT8)
    if layers:
        insertion.activations()
        insertion.constants()
    some = list(layers.values())
    rounded = encode_weights(insertion, some, {}, TargetFacts("test"), dict.fromkeys(layers, FREE))
    encode_biases(insertion, some, {node: one.params for node, one in rounded.items()})
    graph.sweep()
    graph.sort()


@golden_text.cases("quant")
def test_golden(path: Path, request: pytest.FixtureRequest) -> None:
    _, graph = golden_text.check(path, request, insert)
    Session(graph, threads=1).run(dict(zip([value.name for value in graph.inputs], feeds(graph), strict=True)))
