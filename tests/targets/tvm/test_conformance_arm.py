"""ONNX's own node tests on ARM, under an emulator: answered rightly or refused by name. A share rotates.

All of them: `python benchmarks/conformance.py --target arm64`, and armv7.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType

if TYPE_CHECKING:
    from optc.targets.tvm.cpu.machine import Machine

pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")

SHARES = 40
"""One in so many of the cases is run."""
REACH = 0.7
"""Of a share, so many are answered; of all, .88 are."""


def machine_of(name: str) -> Machine:
    """One that the tools for are here."""
    from optc.errors import TargetError
    from optc.targets.tvm.artifact.run import require_emulator
    from optc.targets.tvm.cpu import toolchain
    from optc.targets.tvm.cpu.machines import arm64, armv7

    machine = {"arm64": arm64, "armv7": armv7}[name]()
    try:
        toolchain.compiler(machine)
        require_emulator(machine)
    except TargetError as error:
        pytest.skip(str(error))
    return machine


@pytest.mark.parametrize("name", ["arm64", "armv7"])
def test_each_is_answered_rightly_or_refused_by_name(name: str, tmp_path: Path) -> None:
    from conformance import cases, commit, judge_emulated

    machine = machine_of(name)
    verdicts = list(judge_emulated(list(cases())[commit() % SHARES :: SHARES], machine, tmp_path))
    counts = Counter(verdict.kind for verdict in verdicts)
    bad = [verdict for verdict in verdicts if verdict.kind not in ("equal", "refused")]
    assert not bad, bad
    assert counts["equal"] >= REACH * len(verdicts), counts


@pytest.mark.parametrize("name", ["arm64", "armv7"])
def test_casts_between_all_numbers(name: str, tmp_path: Path) -> None:
    """Those that a machine has no instruction for are functions, which pass numbers in registers of their own."""
    from emulated import Emulator

    kinds = ["float32", "float64", "float16", "int64", "uint64", "int32", "uint32", "int8"]
    graph = Graph("casts", opsets={"": 17})
    feeds = [np.array([0, 1, 2, 3, 100], kind) for kind in kinds]
    for kind, feed in zip(kinds, feeds, strict=True):
        x = graph.add_input(kind, TensorType(DType.of(feed.dtype), feed.shape))
        for other in kinds:
            cast = graph.add("Cast", [x], {"to": int(DType.of(np.dtype(other)))}).output
            graph.add_output(graph.add("Add", [cast, cast]).output, f"{kind}-{other}")
    (run,) = Emulator(machine_of(name), tmp_path).answers([(graph, feeds)])
    assert run.refused is None
    assert not run.failure
    for output, one in zip(graph.outputs, run.outputs, strict=True):
        np.testing.assert_array_equal(
            one.astype(np.float64), np.array([0, 2, 4, 6, 200 - 256 * (one.dtype == np.int8)]), output.name
        )


def test_doubles_are_rounded_to_halves_once(tmp_path: Path) -> None:
    from emulated import Emulator

    graph = Graph("rounded", opsets={"": 17})
    x = np.random.default_rng(0).normal(size=4096) * 10.0 ** np.arange(-9, 7).repeat(256)
    x[::2] = x[::2].astype(np.float32).view(np.int32) & 0x7FFFE000 | 0x1000  # near halfway between two halves
    x[::2] = x[::2].astype(np.int32).view(np.float32) * (1 + 2.0**-40)
    value = graph.add_input("x", TensorType(DType.DOUBLE, x.shape))
    graph.add_output(graph.add("Cast", [value], {"to": int(DType.FLOAT16)}).output, "y")
    (run,) = Emulator(machine_of("armv7"), tmp_path).answers([(graph, [x])])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(run.outputs[0], x.astype(np.float16))


def test_the_runner_tells_a_crash_from_an_answer(tmp_path: Path) -> None:
    """Kernels that end the process end one case, and one that is right beside them is answered."""
    import emulated
    from conformance import cases

    from optc.targets.tvm.cpu.machines import host

    relu = next(case for case in cases() if case.name == "test_relu")
    runner = emulated.Emulator(host("x86-64-v3"), tmp_path)
    models = [(relu.model, relu.feeds), (relu.model, [relu.feeds[0][:1, :1]])]
    first, second = runner.answers(models)
    assert (first.outputs[0] == relu.answers[0]).all()
    assert second.refused is not None or second.failure
