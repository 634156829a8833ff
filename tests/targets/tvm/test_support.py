"""The table of operators: the docs show it, the command line lists it, and builds refuse from it before any work."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from optc.errors import TargetError
from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType
from optc.targets import table
from optc.targets.tvm.relax import table as rules
from optc.targets.tvm.support import support
from optc.targets.tvm.support import table as operators

DOCS = Path(__file__).parents[3] / "docs"


def test_the_docs_show_the_table() -> None:
    """Written by `python docs/operators.py`."""
    assert runpy.run_path(str(DOCS / "operators.py"))["page"]() == (DOCS / "targets" / "operators.md").read_text(
        "utf-8"
    )


def test_it_names_rules_that_exist() -> None:
    pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")
    assert all(callable(rules.lowering(operator)) for operator in rules.LOWERINGS)
    assert all(callable(rules.kernel(operator)) for operator in rules.RULES)
    assert rules.lowering("Unique") is None
    assert rules.kernel("Unique") is None


def test_to_ask_it_and_the_targets_loads_no_tvm() -> None:
    code = """
import sys
from optc.targets import table
from optc.targets.tvm.support import table as operators
assert [table.find(name)().legalisation() for name in table.names()] and operators()
sys.exit("tvm" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("target", ["host", "arm64", "opencl"])
def test_a_build_refuses_from_it_before_any_work(target: str) -> None:
    graph = Graph("drawn", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (2, 3)))
    noise = graph.add("RandomNormalLike", [x], name="noise").output
    graph.add_output(graph.add("Add", [x, noise]).output, "y")
    with pytest.raises(TargetError, match="RandomNormalLike node 'noise': it is random"):
        table.parse(target)[0].check_inputs(graph)


@pytest.mark.parametrize("spec", ["arm64:cpu=cortex-a53x", "host:cpu=x86-64-v33"])
def test_a_cpu_that_llvm_does_not_know_is_refused(spec: str) -> None:
    pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")
    with pytest.raises(TargetError, match=r"LLVM knows no CPU .* Did you mean '(cortex-a53|x86-64-v3)'\?"):
        table.parse(spec)[0].check_ready(run=False)


def test_what_folds_away_is_not_refused() -> None:
    graph = Graph("still", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (2, 3)))
    unused = graph.add("Unique", [x]).output
    assert not unused.uses
    graph.add_output(graph.add("Relu", [x]).output, "y")
    table.parse("host")[0].check_inputs(graph)


def test_every_operator_has_one_way_or_a_reason() -> None:
    for one in operators():
        assert one.way or one.note, one
    assert support("Unique").way == ""
    assert support("LSTM").way == "written out"
