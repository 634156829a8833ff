"""Clamps in a row stay short in what the compiler is given: each that reads its operand several times multiplies it."""

from __future__ import annotations

import numpy as np
import pytest
from opencl import need_tvm

from optc.ir.graph import Graph, Value
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.targets.tvm.gpu.target import GpuTarget
from optc.targets.tvm.host import HostTarget
from optc.targets.tvm.target import LibraryTarget

LONGEST = 6000
"""Characters of a kernel; twelve clamps that read their operands four times were 16 million."""


def kernels(graph: Graph, target: LibraryTarget) -> list[str]:
    """The scheduled kernels as text."""
    from tvm import tirx

    from optc.targets.tvm.gpu import kernels as of_gpus
    from optc.targets.tvm.relax.module import import_graph
    from optc.targets.tvm.schedule import pipeline

    if isinstance(target, GpuTarget):
        mod = of_gpus.schedule(import_graph(graph, target.machine(), {}), target.machine())
    else:
        machine = target.machine()
        mod = pipeline.schedule(pipeline.lower(import_graph(graph, machine, {}), machine), machine)
    return [function.script() for _, function in mod.functions_items() if isinstance(function, tirx.PrimFunc)]


@pytest.mark.parametrize("target", ["host", "opencl"])
@pytest.mark.parametrize("op", ["Clip", "Relu"])
def test_clamps_in_a_row_stay_short(op: str, target: str) -> None:
    need_tvm()
    from optc.targets import table

    graph = Graph("net", opsets={"": 17})
    value: Value = graph.add_input("x", TensorType(DType.FLOAT, (4, 64)))
    factor = graph.constant(np.linspace(0.5, 1.5, 64, dtype=np.float32))
    ends = [graph.constant(np.float32(end)) for end in (-1.0, 1.0)] if op == "Clip" else []
    for _ in range(12):
        value = graph.add(op, [graph.add("Mul", [value, factor]).output, *ends]).output
    graph.add_output(value, "y")
    infer(graph)
    one = table.one(target)
    assert isinstance(one, HostTarget | GpuTarget)
    texts = kernels(graph, one)
    assert texts
    assert max(map(len, texts)) < LONGEST
