"""One command for several targets, and sizes that are fixed before it begins."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from optc.cli.app import run
from optc.compiler import Data, compile, read
from optc.compiler.fixed_sizes import fix_shapes, parse_shapes
from optc.errors import ModelError, OutputError, SpecError, TargetError
from optc.ir.graph import Graph
from optc.ir.onnx.writer import save
from optc.ir.types import DType, TensorType
from optc.project.config import load
from optc.report.markdown import render
from optc.report.page.summary import summary
from optc.targets import table
from optc.targets.base import Artifact
from optc.targets.onnx import OnnxTarget


@dataclass(frozen=True, slots=True)
class Twin(OnnxTarget):
    """A target with the facts of `onnx` under another name."""

    name: ClassVar[str] = "twin"
    suffix: ClassVar[str] = ".twin.onnx"


@dataclass(frozen=True, slots=True)
class Absent(OnnxTarget):
    """A target whose tools are not here."""

    name: ClassVar[str] = "absent"
    suffix: ClassVar[str] = ".absent"

    def check_ready(self, *, run: bool) -> None:
        raise TargetError("install the package absent-tools")


def linear() -> Graph:
    graph = Graph("net", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", "T", 8)))
    w = graph.constant(np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32))
    graph.add_output(graph.add("MatMul", [x, w]).output, "y")
    return graph


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("several") / "out"
    targets = ["onnx", Twin(), "onnx:cpu=arm"]
    return compile(linear(), "prune:ratio=0.5", target=targets, output=folder, threads=1, budget="size=2x"), folder


def test_every_target_gets_its_artifact(built) -> None:  # type: ignore[no-untyped-def]
    build, folder = built
    assert [one.report.target for one in build.each] == ["onnx", "twin", "onnx:cpu=arm"]
    names = {path.name for path in folder.iterdir()}
    assert names == {"Graph.onnx.onnx", "Graph.optc.twin.onnx", "Graph.onnx-cpu-arm.onnx"}


def test_passes_run_once_for_targets_of_the_same_facts(built) -> None:  # type: ignore[no-untyped-def]
    build, _ = built
    assert [[step.report.cached for step in one.report.steps[:2]] for one in build.each] == [
        [False, False],
        [True, True],
        [False, False],
    ]


def test_reports_compare_the_targets(built) -> None:  # type: ignore[no-untyped-def]
    build, _ = built
    for one in build.each:
        rows = one.report.as_dict()["targets"]
        assert [row["target"] for row in rows] == ["onnx", "twin", "onnx:cpu=arm"]
        assert all(row["agreement"] is not None and row["latency_ms"] > 0 and row["budget_met"] for row in rows)
    assert rows[0]["bytes"] == build.report.after.bytes
    assert "| `onnx:cpu=arm` |" in render(build.report)
    assert "Targets side by side" in str(summary(build.report.as_dict()))


def test_a_target_that_is_not_ready_stops_all_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="absent-tools"):
        compile(linear(), "clean", target=["onnx", Absent()], output=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_targets_are_named_once(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="'onnx' is named twice"):
        compile(linear(), "clean", target="onnx,onnx")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="several targets need a folder"):
        compile(linear(), "clean", target="onnx,onnx:cpu=arm", output=tmp_path / "file", check=False)


def test_names_of_artifacts_are_distinct() -> None:
    assert table.file_names("m", table.parse("onnx,arm64,armv7")) == ("m.optc.onnx", "m.optc.arm64", "m.optc.armv7")
    assert table.file_names("m", table.parse("arm64,arm64:dotprod=true")) == ("m.arm64", "m.arm64-dotprod-true")


def test_open_sizes_are_fixed_everywhere() -> None:
    graph = linear()
    fix_shapes(graph, parse_shapes(["x=2x3x8"]))
    assert graph.outputs[0].value.shape == (2, 3, 16)
    assert compile(graph, "clean", shapes={"x": (2, 3, 8)}, check=False).graph.inputs[0].shape == (2, 3, 8)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("x", SpecError, "written INPUT=1x3x224x224, not 'x'"),
        ("x=2x0", SpecError, "written INPUT"),
        ("z=2", SpecError, "no input 'z'.* Did you mean 'x'|no input 'z'.* Known: x"),
        ("x=2x8", ModelError, "cannot be 2x8: it has 3 axes"),
        ("x=2x3x9", ModelError, "cannot be 2x3x9: axis 2 is 8"),
    ],
)
def test_shapes_that_do_not_fit_are_told(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fix_shapes(linear(), parse_shapes([text]))


def test_the_command_line_builds_for_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(linear(), tmp_path / "m.onnx")
    words = [str(tmp_path / "m.onnx"), "--passes", "clean", "--no-check", "--target", "onnx,onnx:cpu=arm", "--json"]
    more = ["--shape", "x=2x3x8", "-o", str(tmp_path / "out"), "--report", str(tmp_path / "r.json")]
    more += ["--lock", str(tmp_path / "m.lock")]
    assert run([*words, *more]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["target"] for one in document["builds"]] == ["onnx", "onnx:cpu=arm"]
    assert read(tmp_path / "out" / "m.onnx.onnx").inputs[0].shape == (2, 3, 8)
    assert {path.name for path in tmp_path.glob("r.*")} == {"r.onnx.json", "r.onnx-cpu-arm.json"}
    assert set(json.loads((tmp_path / "m.lock").read_text())["builds"]) == {"m@onnx", "m@onnx:cpu=arm"}
    assert run([*words, *more, "--locked"]) == 0


def test_an_interrupt_tells_what_was_written_before(tmp_path: Path) -> None:
    class Stopped(OnnxTarget):
        """Presses Ctrl-C as its file is written."""

        name: ClassVar[str] = "stopped"
        suffix: ClassVar[str] = ".stopped.onnx"

        def emit(self, graph: Graph, path: str) -> Artifact:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt, match=r"interrupted \(written before: ") as caught:
        compile(linear(), "clean", target=["onnx", Stopped()], output=out, check=False)
    assert len(list(out.iterdir())) == 1
    assert str(next(out.iterdir())) in str(caught.value)


def test_a_configuration_fixes_sizes_and_names_libraries(tmp_path: Path) -> None:
    (tmp_path / "optc.toml").write_text('[[model]]\npath = "m.onnx"\nshape = "x=1x8"\ntargets = "arm64,onnx"\n')
    entry = load(str(tmp_path / "optc.toml")).entries[0]
    assert entry.options.shapes == {"x": (1, 8)}
    assert entry.targets == ("arm64", "onnx")
    assert [entry.artifact(one) for one in entry.targets] == [str(tmp_path / "m.arm64"), str(tmp_path / "m.optc.onnx")]
    (tmp_path / "optc.toml").write_text('[[model]]\npath = "m.onnx"\nshape = "x"\n')
    with pytest.raises(SpecError, match=r"optc\.toml:3: 'shape' takes sizes of inputs such as"):
        load(str(tmp_path / "optc.toml"))


def test_every_target_is_asked_about_open_sizes_before_the_first_build(tmp_path: Path) -> None:
    pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")
    with pytest.raises(TargetError, match=r"opencl: input 'x' is .*--shape") as caught:
        compile(linear(), "clean", target="onnx,opencl", output=tmp_path / "out", check=False)
    assert "written before" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("spec", "elsewhere"), [("onnx", False), ("onnx:cpu=arm", True), ("host", False)])
def test_only_a_latency_of_another_cpu_is_told_to_be_one(spec: str, elsewhere: bool, tmp_path: Path) -> None:
    if spec == "host":
        pytest.importorskip("tvm", reason="needs the extra optc[tvm]")
    done = compile("zoo:digits_dscnn", "clean", target=spec, output=tmp_path / "out", data=Data(limit=20))
    assert done.report.latency is not None
    assert any("the latency is that of the CPU here" in note for note in done.report.notes) == elsewhere
