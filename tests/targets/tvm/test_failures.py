"""What TVM fails for is told in one line: the open sizes, the node, or, where it is neither, that the fault is ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from optc.cli.app import run
from optc.ir.graph import Graph
from optc.ir.onnx.writer import save
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType


def model(path: Path, *shape: int | str) -> str:
    graph = Graph("net", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, shape))
    y = graph.add("Exp", [graph.add("Sigmoid", [x], name="gate").output], name="power")
    graph.add_output(y.output, "y")
    infer(graph)
    save(graph, path)
    return str(path)


def failing(monkeypatch: pytest.MonkeyPatch, when: Callable[[Graph], bool]) -> None:
    from optc.targets.tvm.relax import module

    right = module.import_graph

    def fails(graph: Graph, *rest: object) -> object:
        if when(graph):
            raise AssertionError('Traceback (most recent call last):\n  File "a.cc", line 1\nCheck failed: a < b')
        return right(graph, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "import_graph", fails)


@pytest.mark.parametrize(
    ("shape", "when", "status", "said"),
    [
        (
            ("N", 3, "H", "W"),
            lambda graph: True,
            2,
            "the model cannot be compiled with what input 'x' [N, 3, H, W] leaves open; "
            "fix its sizes, such as --shape x=1x3x224x224",
        ),
        (
            (1, 8),
            lambda graph: any(node.op == "Exp" for node in graph),
            2,
            "Exp node 'power' cannot be compiled for host",
        ),
        ((1, 8), lambda graph: len(graph) > 1, 1, "though each node can: Check failed: a < b; nothing was written; "),
    ],
    ids=["open", "node", "ours"],
)
def test_a_failure_inside_the_compiler(
    shape: tuple[int | str, ...],
    when: Callable[[Graph], bool],
    status: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")
    (tmp_path / "crashes").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "crashes"))
    failing(monkeypatch, when)
    path = model(tmp_path / "m.onnx", *shape)
    words = [path, "--passes", "clean", "--target", "host", "-o", str(tmp_path / "out"), "--no-cache", "-q"]
    assert run(words) == status
    errors = capsys.readouterr().err.strip()
    assert len(errors.splitlines()) == 1
    assert said in errors
    assert "Traceback" not in errors
    assert ("to reproduce: optc " in errors) == (status == 1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shape", [(2, 3), ("N", 3)])
def test_an_interrupt_comes_through_what_calls_back(
    shape: tuple[int | str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """TVM would hand it on as an error of its own: as a fault of the model's, or of ours."""
    from optc.targets.tvm.schedule import rest

    def interrupted(self: object, sch: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rest.Elementwise, "schedule", interrupted)
    written = tmp_path / "out.tar"
    arguments = [model(tmp_path / "net.onnx", *shape), "--passes", "clean", "--target", "host", "--no-cache"]
    assert run([*arguments, "-o", str(written)]) == 130
    assert not written.exists()
