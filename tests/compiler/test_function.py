"""A whole compilation as a library: every form of a model, what the record says, and what reaches the disk."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest

import optc
from optc.compiler import Data, compile, read
from optc.errors import ModelError, OutputError, SpecError
from optc.ir.onnx.reader import load
from optc.ir.onnx.surgeon import to_surgeon
from optc.ir.onnx.writer import save, to_bytes, to_proto
from optc.models import zoo


@pytest.fixture(scope="module")
def calib() -> dict[str, np.ndarray]:
    return zoo.samples("digits_dscnn", "calib")


def test_a_model_in_every_form(tmp_path: Path) -> None:
    graph = zoo.load("digits_dscnn")
    path = tmp_path / "m.onnx"
    save(graph, path)
    forms = [graph, to_bytes(graph), to_proto(graph), path, str(path), "zoo:digits_dscnn", to_surgeon(graph)]
    texts = {len(read(form)) for form in forms}
    assert texts == {len(graph)}


def test_a_graph_handed_in_stays_as_it_is(calib: dict[str, np.ndarray]) -> None:
    graph = zoo.load("digits_dscnn")
    before = to_bytes(graph)
    compile(graph, "clean", data=calib, check=False)
    assert to_bytes(graph) == before


def test_the_record_of_a_build(calib: dict[str, np.ndarray], tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    build = compile("zoo:digits_dscnn", "quant", data=Data(calib, limit=64), output=out, threads=1)
    report = build.report
    assert report.pipeline == "quant"
    assert build.artifacts == (str(out),)
    assert [step.name for step in report.steps] == ["clean", "quant", "load-time"]
    assert report.before.nodes > report.steps[0].after.nodes
    assert report.after.bytes == out.stat().st_size < 0.5 * report.before.bytes
    assert report.samples is not None
    assert (report.samples.fit, report.samples.held_out) == (48, 16)
    assert not report.samples.synthetic
    assert report.agreement is not None
    assert report.agreement.share > 0.9
    assert report.latency is not None
    assert report.latency.ratio > 0
    document = json.loads(report.to_json())
    assert document["schema"] == "optc.build/1"
    assert document["passes"][1]["done"] == sum(layer["outcome"] == "done" for layer in document["passes"][1]["layers"])
    assert os.listdir(tmp_path) == ["out.onnx"]


def test_save_gives_the_bytes_that_were_checked(calib: dict[str, np.ndarray], tmp_path: Path) -> None:
    out, again = tmp_path / "a.onnx", tmp_path / "b.onnx"
    build = compile("zoo:digits_dscnn", "clean", data=calib, output=out, check=False)
    build.save(again)
    assert out.read_bytes() == again.read_bytes()


def test_writing_over_the_input_is_safe(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    save(zoo.load("digits_resnet"), path)
    compile(str(path), "clean", output=path, check=False)
    cleaned = load(path)
    assert not any(node.op == "BatchNormalization" for node in cleaned)


def test_the_interface_never_changes(calib: dict[str, np.ndarray], tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    compile("zoo:digits_resnet", "prune:ratio=0.3,quant", output=out, check=False, guard=False, threads=1)
    before, after = to_proto(zoo.load("digits_resnet")).graph, onnx.load(out).graph
    assert [v.name for v in after.input] == [v.name for v in before.input]
    assert list(after.input) == list(before.input)
    assert list(after.output) == list(before.output)


def test_clean_can_be_left_out_and_is_not_run_twice(calib: dict[str, np.ndarray]) -> None:
    graph = zoo.load("digits_dscnn")
    assert not compile(graph, "", clean=False, check=False).report.steps
    assert [s.name for s in compile(graph, "clean", check=False).report.steps] == ["clean"]


def test_bad_text_is_told_before_the_model_is_read() -> None:
    with pytest.raises(SpecError, match="qant"):
        compile("/no/such/model.onnx", "qant")


def test_the_place_is_tried_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no folder"):
        compile("/no/such/model.onnx", output=tmp_path / "no" / "out.onnx")


def test_a_failed_build_leaves_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    out.write_bytes(b"old")
    with pytest.raises(ModelError):
        compile(b"not a model", output=out)
    assert out.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.onnx"]


def test_a_model_without_annotations_does_not_grow_by_them(tmp_path: Path) -> None:
    graph = zoo.load("digits_dscnn")
    annotated = len(to_bytes(graph))
    for node in graph:
        for value in node.outputs:
            value.type = None
    bare = len(to_bytes(graph))
    assert bare < annotated
    build = compile(graph, "", clean=False, check=False, output=tmp_path / "out.onnx")
    assert build.report.after.bytes <= bare
    assert not onnx.load(tmp_path / "out.onnx").graph.value_info


def with_weights_as_inputs(path: Path, *, external: bool = False) -> None:
    """A model whose one weight a caller may override, as exporters of IR version 4 may write it."""
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 64]) for name in "xy")
    w = onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [64, 64])
    nodes = [onnx.helper.make_node("MatMul", ["x", "w"], ["y"], "fc")]
    graph = onnx.helper.make_graph(nodes, "g", [x, w], [y], [onnx.numpy_helper.from_array(weight, "w")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path, save_as_external_data=external, location="w.bin", size_threshold=0)


def test_weights_that_are_inputs_are_told_of_and_can_be_frozen(tmp_path: Path) -> None:
    with_weights_as_inputs(tmp_path / "m.onnx")
    kept = compile(tmp_path / "m.onnx", "quant", check=False)
    assert [v.name for v in kept.graph.inputs] == ["x", "w"]
    assert "1 weight is an input with a default, which a caller may override; --freeze makes it a constant" in (
        kept.report.notes
    )
    frozen = compile(tmp_path / "m.onnx", "quant", freeze=True, output=tmp_path / "out.onnx", threads=1)
    assert [v.name for v in load(tmp_path / "out.onnx").inputs] == ["x"]
    assert not any("--freeze" in note for note in frozen.report.notes)
    assert frozen.report.after.bytes < 0.4 * frozen.report.before.bytes


def test_external_data_of_inputs_counts(tmp_path: Path) -> None:
    with_weights_as_inputs(tmp_path / "m.onnx", external=True)
    files = sum(os.path.getsize(tmp_path / name) for name in ("m.onnx", "w.bin"))
    assert compile(tmp_path / "m.onnx", "clean", check=False).report.before.bytes == files


def test_public_names_exist() -> None:
    assert {name for name in optc.__all__ if getattr(optc, name) is None} == set()
    with pytest.raises(AttributeError):
        optc.nothing  # noqa: B018


def test_a_build_tells_the_logger_and_nobody_else(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    compile("zoo:digits_dscnn", "clean", check=False)
    assert capfd.readouterr() == ("", "")
    caplog.set_level("INFO", logger="optc")
    compile("zoo:digits_dscnn", "clean", check=False)
    assert any("clean: " in message and "rewrites" in message for message in caplog.messages)


def test_a_report_saves_itself_in_every_form_and_shows_itself_in_a_line(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    build = compile("zoo:digits_dscnn", "clean", threads=1)
    for form, begins in ((".json", "{"), (".md", "## "), (".xml", "<?xml"), (".html", "<!doctype html>")):
        build.report.save(tmp_path / f"r{form}")
        assert (tmp_path / f"r{form}").read_text().startswith(begins)
    with pytest.raises(SpecError, match=r"\.json, \.md, \.xml, \.html"):
        build.report.save(tmp_path / "r.txt")
    assert repr(build.report).startswith("<BuildReport zoo:digits_dscnn for onnx: ")
    assert repr(build) == f"<Build {build.report!r}>"
    assert len(repr(build)) < 200
    assert build.report.passes is build.report.steps
