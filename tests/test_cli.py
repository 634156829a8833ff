"""The command line through real processes: each mistake is one clear line and the right status."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

Runner = Callable[..., "subprocess.CompletedProcess[str]"]

_X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
_Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])


def optc(
    *arguments: str, cwd: Path | None = None, file_limit: int | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        if file_limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    return subprocess.run(
        [sys.executable, "-m", "optc", *arguments],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def model(nodes: list[onnx.NodeProto], *, opset: int = 17, **graph: object) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32), "w")
    made = helper.make_graph(nodes, "g", [_X], [_Y], initializer=[weight])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def write(path: Path, content: bytes | onnx.ModelProto) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return str(path)


MATMUL = helper.make_node("MatMul", ["x", "w"], ["y"], "matmul")


@pytest.fixture
def good(tmp_path: Path) -> str:
    return write(tmp_path / "good.onnx", model([MATMUL]))


def assert_one_line(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    assert done.returncode == status, done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines, "the mistake was not told"
    assert lines[0].startswith("optc: ")
    # A caret under the wrong place takes two more lines; nothing else may follow.
    assert len(lines) == 1 or (len(lines) == 3 and lines[2].strip() == "^"), done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def external(location: str) -> onnx.ModelProto:
    made = model([MATMUL])
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return made


BAD_MODELS = {
    "empty": (b"", ("empty",)),
    "random": (bytes(range(256)) * 20, ()),
    "truncated": (model([MATMUL]).SerializeToString()[:-20], ()),
    "text": (b"this is not a model\n" * 9, ()),
    "dangling": (model([helper.make_node("MatMul", ["x", "nowhere"], ["y"])]), ("nowhere",)),
    "duplicate": (model([MATMUL, helper.make_node("Relu", ["x"], ["y"])]), ("y",)),
    "cycle": (
        model([helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"]), MATMUL]),
        ("cycle",),
    ),
    "unknown-opset": (model([MATMUL], opset=999), ("999",)),
    "unknown-op": (model([helper.make_node("Matmull", ["x", "w"], ["y"])]), ("Matmull",)),
    "external-missing": (external("weights.bin"), ("weights.bin",)),
    "external-outside": (external("../weights.bin"), ("weights.bin",)),
    "external-absolute": (external("/etc/passwd"), ("/etc/passwd",)),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_a_bad_model_is_one_line(name: str, tmp_path: Path) -> None:
    content, words = BAD_MODELS[name]
    path = write(tmp_path / "bad.onnx", content)
    before = Path(path).read_bytes()
    assert_one_line(optc(path, "--passes", "quant"), 2, "bad.onnx", *words)
    assert Path(path).read_bytes() == before
    assert os.listdir(tmp_path) == ["bad.onnx"]


def test_a_folder_and_a_missing_file_are_not_models(tmp_path: Path) -> None:
    assert_one_line(optc(str(tmp_path)), 2, "folder")
    assert_one_line(optc(str(tmp_path / "none.onnx")), 2, "none.onnx")


def npz(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path, **arrays)
    return str(path)


ROWS = np.random.default_rng(1).standard_normal((40, 4)).astype(np.float32)
BAD_SAMPLES = {
    "name": ({"z": ROWS, "w": ROWS}, ("x",)),
    "shape": ({"x": ROWS[:, :3]}, ("x", "4")),
    "dtype": ({"x": ROWS.astype(complex)}, ("x",)),
    "nan": ({"x": np.where(np.isin(ROWS, ROWS[7, 2]), np.nan, ROWS)}, ("x", "NaN", "7")),
    "empty": ({"x": ROWS[:0]}, ()),
}


@pytest.mark.parametrize("name", BAD_SAMPLES)
def test_bad_samples_are_one_line(name: str, tmp_path: Path, good: str) -> None:
    arrays, words = BAD_SAMPLES[name]
    data = npz(tmp_path / "bad.npz", **arrays)
    assert_one_line(optc(good, "--passes", "quant", "--data", data), 2, *words)
    assert not (tmp_path / "good.optc.onnx").exists()


def test_samples_that_are_no_samples(tmp_path: Path, good: str) -> None:
    assert_one_line(optc(good, "--data", str(tmp_path / "none.npz")), 2, "none.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK not a zip")
    assert_one_line(optc(good, "--data", str(tmp_path / "broken.npz")), 2, "broken.npz")


def test_a_misspelt_pass_gets_a_caret(good: str) -> None:
    done = optc(good, "--passes", "prune,qant")
    assert_one_line(done, 2, "no pass is called 'qant'", "Did you mean 'quant'?")
    assert done.stderr.splitlines()[2] == "  " + " " * 6 + "^"


def test_a_misspelt_option_gets_the_nearest_name(good: str) -> None:
    assert_one_line(optc(good, "--passes", "prune:ratoi=0.5"), 2, "Did you mean 'ratio'?")
    assert_one_line(optc(good, "--pases", "prune"), 2, "--pases")
    assert_one_line(optc(good, "--target", "onx"), 2, "Did you mean 'onnx'?")
    assert_one_line(optc("zoo:digits_resnt"), 2, "Did you mean 'digits_resnet'?")


def test_no_model_at_all() -> None:
    done = optc()
    assert done.returncode == 2 or "Usage" in done.stdout
    assert "Traceback" not in done.stderr


def test_the_output_place_must_exist(good: str, tmp_path: Path) -> None:
    assert_one_line(optc(good, "-o", str(tmp_path / "no" / "such" / "out.onnx")), 2, "there is no folder")
    assert_one_line(optc(good, "-o", str(tmp_path)), 2, "folder")
    assert_one_line(optc(good, "-o", "/proc/out.onnx"), 2, "/proc")


def test_no_option_overwrites_what_another_names(good: str, tmp_path: Path) -> None:
    data = npz(tmp_path / "rows.npz", x=ROWS)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert_one_line(optc(good, "--report", good), 2, "--report would overwrite MODEL")
    assert_one_line(optc(good, "--data", data, "--report", data), 2, "--report would overwrite --data")
    assert_one_line(optc(good, "--data", data, "-o", data), 2, "-o would overwrite --data")
    assert_one_line(optc(good, "-o", "a", "--report", "a", cwd=tmp_path), 2, "--report would overwrite -o")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_report_that_cannot_be_written_is_told_before_the_work(good: str, tmp_path: Path) -> None:
    assert_one_line(optc(good, "--report", str(tmp_path / "no" / "r.json")), 2, "there is no folder", "--report")
    assert os.listdir(tmp_path) == ["good.onnx"]


def test_a_pipe_is_neither_a_model_nor_replaced_by_one(good: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert_one_line(optc(good, "-o", str(pipe)), 2, "not a plain file")
    assert_one_line(optc(str(pipe)), 2, "not a plain file")
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--samples", "0"], "--samples"),
        (["--seed", "-1"], "--seed"),
        (["--threads", "-1"], "--threads"),
        (["--min-agreement", "98"], "--min-agreement"),
        (["--std", "0"], "--std takes positive numbers"),
        (["--mean", "nan"], "--mean takes numbers"),
        (["--resize", "0"], "HEIGHTxWIDTH"),
        (["--data", ""], "no such file"),
        (["twice.onnx"], "left over: twice.onnx"),
    ],
)
def test_a_number_out_of_range_is_one_line(flags: list[str], word: str, good: str, tmp_path: Path) -> None:
    assert_one_line(optc(good, *flags, cwd=tmp_path), 2, word)
    assert os.listdir(tmp_path) == ["good.onnx"]


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    out.write_bytes(b"what was there before")
    done = optc("zoo:digits_resnet", "--passes", "clean", "--no-check", "-q", "-o", str(out), file_limit=20_000)
    assert_one_line(done, 2, "out.onnx")
    assert os.listdir(tmp_path) == ["out.onnx"]
    assert out.read_bytes() == b"what was there before"


@pytest.mark.slow
@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_at_once_and_leaves_nothing(told: signal.Signals, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    (tmp_path / "temporary").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "optc", "zoo:digits_resnet", "--passes", "prune,svd,quant", "-o", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "temporary")},
    )
    assert process.stderr is not None
    # The first line says that `clean` has run: the build is then in the middle of its work.
    assert process.stderr.readline().startswith("clean")
    start = time.monotonic()
    process.send_signal(told)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert rest.strip().splitlines()[-1] == "optc: interrupted; no output was written"
    assert "Traceback" not in rest
    assert time.monotonic() - start < 30
    assert os.listdir(tmp_path) == ["temporary"]
    assert os.listdir(tmp_path / "temporary") == []


@pytest.mark.slow
def test_the_main_road_on_a_shipped_model(tmp_path: Path) -> None:
    out, record = tmp_path / "small.onnx", tmp_path / "report.json"
    done = optc("zoo:digits_resnet", "--passes", "prune,svd,quant", "-o", str(out), "--report", str(record))
    assert done.returncode == 0, done.stderr
    report = json.loads(record.read_text())
    assert report["schema"] == "optc.build/1"
    assert [one["name"] for one in report["passes"]] == ["clean", "prune", "svd", "quant"]
    for one in report["passes"]:
        for layer in one["layers"]:
            assert layer["outcome"] in ("done", "skipped", "reverted")
            assert layer["outcome"] == "done" or layer["reason"]
    assert out.stat().st_size == report["after"]["bytes"] <= 0.45 * report["before"]["bytes"]
    assert report["agreement"]["share"] >= 0.95
    assert "small.onnx" in done.stdout
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[0] == "N", "the dynamic batch stays"
    assert sorted(os.listdir(tmp_path)) == ["report.json", "small.onnx"]


@pytest.mark.slow
def test_the_same_build_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    outs = [tmp_path / name for name in ("a.onnx", "b.onnx")]
    for out in outs:
        done = optc("zoo:digits_dscnn", "--passes", "prune:ratio=0.3,quant", "-o", str(out), "--no-guard", "-q")
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_without_data_the_user_is_told(good: str, tmp_path: Path) -> None:
    done = optc(good, "--passes", "quant", "--json", "-o", str(tmp_path / "out.onnx"))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["samples"]["synthetic"] is True
    assert any("--data" in note for note in report["notes"])


def test_a_user_function_over_graphsurgeon(good: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def rename(graph):\n    graph.nodes[0].name = 'renamed'\n    return graph\n"
        "def crash(graph):\n    raise RuntimeError('boom')\n"
    )
    done = optc(good, "--passes", "mine.py:rename", "-o", "out.onnx", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert onnx.load(tmp_path / "out.onnx").graph.node[0].name == "renamed"
    (tmp_path / "temporary").mkdir()
    environment = {"TMPDIR": str(tmp_path / "temporary")}
    crashed = optc(good, "--passes", "mine.py:crash", "-o", "out2.onnx", cwd=tmp_path, environment=environment)
    assert_one_line(crashed, 1, "RuntimeError: boom", f"to reproduce: optc {tmp_path}")
    (kept,) = (tmp_path / "temporary").iterdir()
    assert sorted(os.listdir(kept)) == ["before.onnx", "command.txt"]
    assert not (tmp_path / "out2.onnx").exists()


def test_the_runtime_sends_nothing_home_and_leaves_nothing_behind(good: str, tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    environment = {"TMPDIR": str(tmp_path / "temporary"), "HOME": str(tmp_path / "home")}
    done = optc(good, "--passes", "quant", "-q", environment=environment)
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path / "temporary") == []
    assert sorted(os.listdir(tmp_path)) == ["good.onnx", "good.optc.onnx", "temporary"]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_names_that_the_terminal_cannot_show(encoding: str, tmp_path: Path) -> None:
    odd = os.fsdecode(b"odd-\xff\xe2\x9c\x93[red].onnx")
    made = model([helper.make_node("MatMul", ["x", "w"], ["y"], "[red]\u2713\n\x1b[31m%s")])
    write(tmp_path / odd, made)
    environment = {"PYTHONIOENCODING": encoding}
    for flags in (["-o", "out.onnx", "--verbose", "--report", "r.json"], ["-o", "out.onnx", "--json"]):
        done = optc(odd, "--passes", "clean", *flags, cwd=tmp_path, environment=environment)
        assert done.returncode == 0, done.stderr
        assert "[red]" in done.stdout
    assert json.loads((tmp_path / "r.json").read_bytes())["model"] == odd
    shown = optc("inspect", odd, "--text", cwd=tmp_path, environment=environment)
    assert shown.returncode == 0, shown.stderr


def test_closed_streams_and_a_narrow_terminal(good: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "optc", good, "--passes", "clean", "-o", str(tmp_path / "out.onnx")]
    done = subprocess.run(["/bin/sh", "-c", '"$@" <&- >&- 2>&-', "sh", *command], check=False)
    assert done.returncode == 0
    assert (tmp_path / "out.onnx").exists()
    narrow = optc("passes", "quant", environment={"COLUMNS": "20"}).stdout
    assert narrow == optc("passes", "quant", environment={"COLUMNS": "80"}).stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no device that is always full")
def test_a_full_disk_behind_standard_output_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "optc", "passes"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["optc: standard output cannot be written: its disk is full"]


def test_dump_writes_the_graph_after_every_pass(good: str, tmp_path: Path) -> None:
    done = optc(good, "--passes", "quant", "--dump", str(tmp_path / "dump"), "-o", str(tmp_path / "out.onnx"))
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path / "dump")) == [
        "000_input.txt",
        "001_clean.txt",
        "002_quant.txt",
        "003_onnx-version.txt",
    ]


@pytest.mark.parametrize("command", [["passes"], ["targets"], ["zoo"], ["inspect", "zoo:digits_dscnn"]])
def test_listings_speak_to_people_and_to_programs(command: list[str]) -> None:
    plain, machine = optc(*command), optc(*command, "--json")
    assert plain.returncode == machine.returncode == 0, plain.stderr + machine.stderr
    assert plain.stdout.strip()
    assert json.loads(machine.stdout)


def test_inspect_prints_one_node_a_line() -> None:
    done = optc("inspect", "zoo:digits_dscnn", "--text")
    assert done.returncode == 0, done.stderr
    assert "Conv" in done.stdout
    assert done.stdout.count("\n") > 10


def test_help_names_every_command() -> None:
    done = optc("--help")
    assert done.returncode == 0
    for word in ("inspect", "passes", "targets", "zoo", "--passes", "--data"):
        assert word in done.stdout
