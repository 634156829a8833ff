"""Files of strangers besides models: refused in one line, before they fill the memory or the disk."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from optc.cli import app
from optc.cli.app import run
from optc.errors import DataError, LockError, SpecError, TargetError
from optc.ir.graph import Graph
from optc.ir.onnx.writer import save
from optc.ir.types import DType, TensorType
from optc.project import config
from optc.project.lock import Lock
from optc.report import explain
from optc.runtime import archive, images
from optc.runtime.latency_table import from_json
from optc.runtime.sources import load_samples
from optc.runtime.synthesise import synthesise
from optc.targets.tvm.artifact import manifest
from optc.targets.tvm.artifact.folder import unpack

DEEP = "[" * 200_000
RUN = ["m.onnx", "--passes", "clean", "--no-check", "-o", "out.onnx"]


def graph(*shape: int | str) -> Graph:
    net = Graph("net", opsets={"": 17})
    x = net.add_input("x", TensorType(DType.FLOAT, shape or ("N", 3, 8, 8)))
    net.add_output(net.add("Relu", [x]).output, "y")
    return net


def packed(path: Path, size: int = 64) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open("x.npy", "w") as member:
        np.lib.format.write_array(member, np.zeros((size, 3, 8, 8), np.float32))


# -- samples


def test_an_archive_that_unpacks_to_far_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed(tmp_path / "x.npz", 1 << 12)
    assert load_samples(tmp_path / "x.npz", graph()).count == 1 << 12, "what is small may be packed as it can be"
    monkeypatch.setattr(archive, "_FREE", 1 << 20)
    with pytest.raises(DataError, match=r"unpack to 3145856 bytes, far more than the file has"):
        load_samples(tmp_path / "x.npz", graph())


@pytest.mark.parametrize("mode", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_damaged_and_encrypted_members(mode: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w", mode) as file, file.open("x.npy", "w") as member:
        np.lib.format.write_array(member, np.random.default_rng(0).standard_normal((64, 3, 8, 8)).astype(np.float32))
    sound = (tmp_path / "x.npz").read_bytes()
    for at in range(0, len(sound), max(1, len(sound) // 60)):
        (tmp_path / "bad.npz").write_bytes(sound[:at] + bytes([sound[at] ^ 0xFF]) + sound[at + 1 :])
        try:
            load_samples(tmp_path / "bad.npz", graph())
        except DataError as error:
            assert "\n" not in str(error)  # noqa: PT017
    head = sound.rindex(b"PK\x01\x02")
    (tmp_path / "bad.npz").write_bytes(sound[: head + 8] + b"\x01\x00" + sound[head + 10 :])
    with pytest.raises(DataError, match="is encrypted"):
        load_samples(tmp_path / "bad.npz", graph())


@pytest.mark.parametrize("shape", ["(4611686018427387904, 4)", "(-1, -4)", "(" * 3000, "1 + ", "(1,) * 99999999999"])
def test_headers_of_arrays(shape: str, tmp_path: Path) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=r"cannot be read as a \.npy array"):
            load_samples(tmp_path / "x.npy", graph())


def test_images_that_unpack_to_gigabytes(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    sizes = {"large": (9000, 9000), "wide": (60_000, 1)}
    for name, size in sizes.items():
        (tmp_path / name).mkdir()
        image.new("1", size).save(tmp_path / name / "0.png")
        with pytest.raises(DataError, match="too large for a sample"):
            next(load_samples(tmp_path / name, graph("N", 3, 4000, 4000)).batches(1))
    (tmp_path / "huge").mkdir()
    (tmp_path / "huge" / "0.ppm").write_bytes(b"P6 60000 60000 255\n")
    with pytest.raises(DataError, match=r"0\.ppm"):
        next(load_samples(tmp_path / "huge", graph()).batches(1))


def test_libraries_warn_nobody_on_the_terminal(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    save(graph("N", 3, 8, 8), tmp_path / "m.onnx")
    (tmp_path / "images").mkdir()
    image.new("1", (10_000, 10_000)).save(tmp_path / "images" / "0.png")
    words = [sys.executable, "-m", "optc", "m.onnx", "--passes", "quant", "--data", "images", "--resize", "8x8"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("optc: an image of 10000x10000 pixels is too large for a sample")
    assert done.stderr.count("\n") == 1


def test_only_documented_formats_are_decoded(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    for kind in ("EPS", "PCX", "ICO", "TGA"):
        image.new("RGB", (8, 8)).save(tmp_path / "0.png", kind)
        with pytest.raises(DataError, match="cannot be read as an image"):
            next(load_samples(tmp_path, graph()).batches(1))
    formats = {image.registered_extensions()[one] for one in images.SUFFIXES}
    assert formats == set(images._FORMATS)


def test_a_tensor_of_samples_reads_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(bytes(3 * 8 * 8 * 4))
    tensor = numpy_helper.from_array(np.zeros((1, 3, 8, 8), np.float32), "x")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "input_0.pb").write_bytes(tensor.SerializeToString())
    with pytest.raises(DataError, match="in another file, which is not read"):
        load_samples(tmp_path / "data", graph())


def test_inputs_that_no_memory_holds(tmp_path: Path) -> None:
    for shape in ((1 << 62,), (1, 1 << 40), (1 << 31, 1 << 31, 4)):
        with pytest.raises(DataError, match="a sample of input 'x' would take"):
            synthesise(graph(*shape))
        save(graph(*shape), tmp_path / "m.onnx")
        assert run([str(tmp_path / "m.onnx"), "--passes", "quant", "-q"]) == 2


# -- documents


def test_documents_that_are_nested_deep(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(DEEP)
    with pytest.raises(LockError, match="is no lock file"):
        Lock.read(str(path))
    for text in (f"a = {DEEP}", f"a = {'9' * 5000}", "a = 2000-99-99"):
        (tmp_path / "optc.toml").write_text(text)
        with pytest.raises(SpecError, match="is not TOML"):
            config.load(str(tmp_path / "optc.toml"))
    with pytest.raises(DataError, match="is not JSON"):
        explain.load(str(path))
    with pytest.raises(DataError, match="is no table of latencies"):
        from_json(DEEP, "t.json")
    (tmp_path / "manifest.json").write_text(DEEP)
    with pytest.raises(TargetError, match="cannot be read"):
        manifest.read(str(tmp_path))


def test_control_characters_in_a_configuration(tmp_path: Path) -> None:
    for text in ('[[model]]\npath = "m\\u0000.onnx"\n', 'output = "a\\u001b[2J"\n[[model]]\npath = "m.onnx"\n'):
        (tmp_path / "optc.toml").write_text(text)
        with pytest.raises(SpecError, match="control character"):
            config.load(str(tmp_path / "optc.toml"))


# -- artifacts


def test_archives_that_are_mostly_holes(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        entry = tarfile.TarInfo("model.so")
        entry.type = tarfile.GNUTYPE_SPARSE
        tar.addfile(entry)
    with pytest.raises(TargetError):
        unpack(str(tmp_path / "a.tar"), str(tmp_path))
    with open(tmp_path / "b.tar", "wb") as file:
        file.truncate(6 << 30)
    with pytest.raises(TargetError, match="mostly a hole"):
        unpack(str(tmp_path / "b.tar"), str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "b.tar"]


def test_a_manifest_answers_for_what_is_loaded(tmp_path: Path) -> None:
    document = {"schema": manifest.SCHEMA, "target": "host", "machine": {"triple": "", "features": []},
                "inputs": [], "outputs": [], "files": {}}  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    (tmp_path / "0.npy").write_bytes(b"an answer of the user's")
    manifest.read(str(tmp_path))
    (tmp_path / "model.so").write_bytes(b"")
    with pytest.raises(TargetError, match=r"model\.so is nothing that manifest\.json answers for"):
        manifest.read(str(tmp_path))


def test_out_of_memory_shows_its_traceback_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*words: object, **more: object) -> None:
        raise MemoryError

    monkeypatch.setattr(app, "app", full)
    assert run(["inspect", "m.onnx"]) == 2
    with pytest.raises(MemoryError):
        run(["inspect", "m.onnx", "--traceback"])


def test_metadata_that_is_nested_deep() -> None:
    from optc.ir.onnx.reader import from_bytes
    from optc.ir.onnx.writer import to_proto
    from optc.ir.origin import NODES_KEY, PASSES_KEY

    model: onnx.ModelProto = to_proto(graph())
    for key in (NODES_KEY, PASSES_KEY):
        model.graph.node[0].metadata_props.add(key=key, value=DEEP)
    assert next(iter(from_bytes(model.SerializeToString()))).op == "Relu"


@pytest.mark.parametrize("place", ["pipe", "x.npy", "x.npz", "folder/x.npy", "folder/input_0.pb", "folder/x/0.npy"])
def test_samples_in_a_pipe_are_refused_at_once(place: str, tmp_path: Path) -> None:
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(tmp_path / place)
    data = str(tmp_path / place.split("/")[0])
    done = subprocess.run(
        [sys.executable, "-m", "optc", "zoo:digits_dscnn", "--passes", "quant", "--data", data, "-o", "out.onnx"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 2, done.stderr
    assert "is not a plain file" in done.stderr


READERS = {
    "config": [*RUN, "--config", "p"],
    "matrix": ["build", "--config", "p"],
    "search": ["search", "m.onnx", "--budget", "size=50%", "--config", "p"],
    "lock": [*RUN, "--lock", "p"],
    "record": ["explain", "conv", "--report", "p"],
    "latencies": [*RUN, "--latency-table", "p"],
    "function": ["m.onnx", "--passes", "p:f", "--no-check", "-o", "out.onnx"],
    "artifact": ["run", "folder", "--data", "x.npz"],
    "external data": ["inspect", "external.onnx"],
}


@pytest.mark.parametrize("reader", READERS)
def test_a_silent_pipe_is_waited_for_nowhere(reader: str, tmp_path: Path) -> None:
    save(graph(), tmp_path / "m.onnx")
    os.mkfifo(tmp_path / "p")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "folder" / "manifest.json")
    model = onnx.load(tmp_path / "m.onnx")
    tensor = TensorProto(name="w", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="p")
    model.graph.initializer.append(tensor)
    (tmp_path / "external.onnx").write_bytes(model.SerializeToString())
    words = [sys.executable, "-m", "optc", *READERS[reader]]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "internal error" not in done.stderr


def test_documents_of_any_length_are_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "long", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(SpecError, match="it is larger than 256 MiB"):
        config.load(str(tmp_path / "long"))


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["targets"], ["inspect", "zoo:digits_dscnn"]])
def test_a_reader_that_has_gone_is_no_error(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as out:
        command = [sys.executable, "-m", "optc", *words]
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
@pytest.mark.parametrize("name", ["a\nb.npy", "\x1b]0;title\x07.png", "folder\n/x.npy"])
def test_names_of_samples_write_nothing_on_the_terminal(name: str, tmp_path: Path) -> None:
    graph = Graph("g", opsets={"": 17})
    graph.add_input("x", TensorType(DType.FLOAT, ("N", 4)))
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"no array")
    with pytest.raises(DataError, match="control characters") as error:
        load_samples(tmp_path, graph)
    assert str(error.value).isprintable()
