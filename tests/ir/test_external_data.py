"""Weights in a file beside the model."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from layered import FLOATS, layered, new, run

from optc.errors import ModelError
from optc.ir.graph import Graph
from optc.ir.onnx import writer
from optc.ir.onnx.reader import from_proto, load
from optc.ir.onnx.writer import LIMIT, data_files, save, size, to_bytes, to_proto
from optc.ir.tensor import ArrayTensor, FileTensor, LazyTensor
from optc.ir.types import DType, TensorType
from optc.storage.fingerprint import file_digest
from optc.targets.base import Artifact
from optc.targets.onnx import OnnxTarget


def test_external_data_is_aligned_and_read_by_others(tmp_path: Path) -> None:
    graph = layered((3, 2000, 301, 100))
    path = tmp_path / "m.onnx"
    save(graph, path, external=True)
    (data,) = data_files(path)
    assert Path(data).name == f"m.onnx.{file_digest(data)[:16]}.data"
    assert sorted(tmp_path.iterdir()) == [path, Path(data)]
    proto = onnx.load(path, load_external_data=False)
    places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in proto.graph.initializer]
    assert [place["location"] for place in places] == [Path(data).name] * 3
    assert all(int(place["offset"]) % 4096 == 0 for place in places)
    assert path.stat().st_size < 1000
    np.testing.assert_array_equal(run(path)[0], run(to_bytes(graph))[0])
    assert to_bytes(from_proto(onnx.load(path))) == to_bytes(graph)
    onnx.checker.check_model(str(path))
    again = load(path)
    assert all(isinstance(value.constant, FileTensor) for value in again.constants)
    assert to_bytes(again) == to_bytes(graph)


def test_small_data_stays_in_the_model(tmp_path: Path) -> None:
    graph = layered((3, 4, 5))
    save(graph, tmp_path / "m.onnx", external=True)
    assert (tmp_path / "m.onnx").read_bytes() == to_bytes(graph)


def test_external_constants_in_nodes_and_bodies_run(tmp_path: Path) -> None:
    graph = new()
    x = graph.add_input("x", FLOATS)
    kernel = np.random.default_rng(0).standard_normal((3, 3000), np.float32)
    weight = graph.add("Constant", [], {"value": ArrayTensor(kernel)}).output
    body = Graph("body")
    inner = body.add("MatMul", [x, body.constant(kernel * 2, "inner")]).output
    body.add_output(body.add("Add", [inner, body.add("MatMul", [x, weight]).output]).output, "r", None)
    node = graph.add("If", [graph.constant(np.array(True))])
    node.set_attribute("then_branch", body)
    node.set_attribute("else_branch", body.clone())
    graph.add_output(node.output, "y", TensorType(DType.FLOAT, (2, 3000)))
    save(graph, tmp_path / "m.onnx", external=True)
    assert (tmp_path / "m.onnx").stat().st_size < 2000
    np.testing.assert_array_equal(run(tmp_path / "m.onnx")[0], run(to_bytes(graph))[0])


def test_above_the_limit_there_is_a_second_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = layered()
    monkeypatch.setattr(writer, "LIMIT", 300_000)
    assert sorted(save(graph, tmp_path / "m.onnx")) == sorted(str(file) for file in tmp_path.iterdir())
    assert len(data_files(tmp_path / "m.onnx")) == 1
    with pytest.raises(ModelError, match="external data"):
        save(graph, tmp_path / "one.onnx", external=False)
    assert not (tmp_path / "one.onnx").exists()


def test_what_cannot_fit_is_refused_before_it_is_computed(tmp_path: Path) -> None:
    def never() -> npt.NDArray[np.generic]:
        raise AssertionError("computed")

    graph = new()
    x = graph.add_input("x", FLOATS)
    weight = graph.constant(LazyTensor(DType.FLOAT, (3, 1 << 28), never), "w")
    graph.add_output(graph.add("MatMul", [x, weight]).output, "y")
    assert size(graph) > LIMIT
    for write in (to_bytes, to_proto, lambda g: save(g, tmp_path / "m.onnx", external=False)):
        with pytest.raises(ModelError, match="external data"):
            write(graph)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("external", [False, True])
def test_saving_over_the_file_it_came_from(tmp_path: Path, external: bool) -> None:
    path = tmp_path / "m.onnx"
    save(layered((3, 500, 600)), path, external=external)
    for other in (external, not external, external):
        graph = load(path)
        before = to_bytes(graph)
        save(graph, path, external=other)
        assert to_bytes(graph) == before  # the graph still reads what it was loaded from
        assert to_bytes(load(path)) == before
        assert len(os.listdir(tmp_path)) == 1 + other, "data that nothing uses is removed"


class Killed(BaseException):
    """What takes the place of a process's end."""


@pytest.mark.parametrize("renames", [0, 1])
@pytest.mark.parametrize("way", ["save", "place"])
def test_a_process_killed_between_two_files_leaves_a_whole_model(
    way: str, renames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, target = tmp_path / "m.onnx", OnnxTarget()
    old, new = to_bytes(layered()), to_bytes(layered(seed=1))
    (tmp_path / "staged").mkdir()
    replace, left = os.replace, renames

    def killed(source: str, to: str) -> None:
        nonlocal left
        if not left:
            raise Killed
        left -= 1
        replace(source, to)

    def staged() -> Artifact:
        return target.emit(layered(seed=1), str(tmp_path / "staged" / "m.onnx"))

    with monkeypatch.context() as patch:
        patch.setattr(writer, "LIMIT", 300_000)
        save(layered(), path)
        files = staged()
        assert len(files.files) == 2
        patch.setattr(os, "replace", killed)
        with pytest.raises(Killed):
            save(layered(seed=1), path) if way == "save" else target.place(files, str(path))
    assert to_bytes(load(path)) == old
    np.testing.assert_array_equal(run(path)[0], run(old)[0])
    with monkeypatch.context() as patch:
        patch.setattr(writer, "LIMIT", 300_000)
        files = target.place(staged(), str(path))
    assert to_bytes(load(path)) == new
    assert set(map(str, tmp_path.glob("m.onnx*"))) == set(files.files), "the old data is gone"


def test_data_of_another_model_stays(tmp_path: Path) -> None:
    save(layered(), tmp_path / "m.onnx", external=True)
    (tmp_path / "m.onnx").rename(tmp_path / "renamed.onnx")
    save(layered(seed=1), tmp_path / "m.onnx", external=True)
    save(layered(seed=2), tmp_path / "m.onnx")
    assert to_bytes(load(tmp_path / "renamed.onnx")) == to_bytes(layered())
