"""Bad input through real processes: one clear line and the right status, or a right result and a reason a layer.

Nothing half-written is left, and what was given is never touched.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from processes import MATMUL, assert_one_line, model, npz, optc, write


@pytest.fixture
def good(tmp_path: Path) -> str:
    return write(tmp_path / "good.onnx", model([MATMUL]))


def external(location: str) -> onnx.ModelProto:
    proto = model([MATMUL])
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return proto


POINTER = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b\nsize 12345\n"
)

BAD_MODELS = {
    "pointer": (POINTER, ("Git LFS", "git lfs pull")),
    "library": (b"model.onnx".ljust(257, b"\0") + b"ustar".ljust(767, b"\0"), ("tar archive", "optc run")),
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


@pytest.mark.parametrize("name", ["samples.npz", "samples/0.npy", "test_data_set_0/input_0.pb"])
def test_a_pointer_in_place_of_samples_is_told(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "model.onnx", model([MATMUL]).SerializeToString())
    data = tmp_path / name
    data.parent.mkdir(exist_ok=True)
    data.write_bytes(POINTER)
    place = data.parent if data.parent.name == "samples" else tmp_path if data.suffix == ".pb" else data
    assert_one_line(optc(path, "--passes", "quant", "--data", str(place)), 2, data.name, "Git LFS", "git lfs pull")


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


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ("sise=4MB", ("no metric is called 'sise'", "Did you mean 'size'?")),
        ("size=4MB,", ("a limit is missing here",)),
        ("size=4", ("'size' needs a unit",)),
        ("agreement=99", ("at most 1 or 100%",)),
        ("", ("a limit is missing here",)),
    ],
)
def test_a_budget_that_does_not_parse(budget: str, words: tuple[str, ...], good: str, tmp_path: Path) -> None:
    assert_one_line(optc(good, "--budget", budget), 2, *words)
    assert_one_line(optc("check", good, "--against", good, "--budget", budget), 2, *words)
    assert os.listdir(tmp_path) == ["good.onnx"]


def test_a_budget_that_nothing_measures(good: str, tmp_path: Path) -> None:
    assert_one_line(optc(good, "--budget", "latency=1ms", "--no-check"), 2, "latency needs the check")
    assert os.listdir(tmp_path) == ["good.onnx"]


def test_a_report_of_unknown_form(good: str, tmp_path: Path) -> None:
    assert_one_line(optc(good, "--report", "r.txt", cwd=tmp_path), 2, "r.txt", ".json, .md, .xml")
    twice = optc(good, "--report", "r.md", "--report", "r.md", cwd=tmp_path)
    assert_one_line(twice, 2, "--report would overwrite --report r.md")
    assert os.listdir(tmp_path) == ["good.onnx"]


@pytest.mark.parametrize("command", ["inspect", "bench"])
def test_a_model_that_is_none(command: str, tmp_path: Path) -> None:
    assert_one_line(optc(command, str(tmp_path / "none.onnx")), 2, "none.onnx")
    assert_one_line(optc(command, write(tmp_path / "bad.onnx", b"junk")), 2, "bad.onnx")


@pytest.mark.parametrize("arguments", [["diff", "MODEL", "none.onnx"], ["check", "none.onnx", "--against", "MODEL"]])
def test_one_model_of_two_that_is_none(arguments: list[str], good: str) -> None:
    assert_one_line(optc(*[good if word == "MODEL" else word for word in arguments]), 2, "none.onnx")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["check", "MODEL"], "--against"),
        (["diff", "MODEL"], "SECOND"),
        (["bench"], "MODEL"),
        (["explain", "x"], "--report"),
        (["explain", "x", "--report", "none.json"], "none.json"),
        (["explain", "x", "--report", "MODEL"], "is not JSON"),
        (["bench", "MODEL", "--threads", "many"], "--threads takes numbers"),
        (["bench", "MODEL", "--threads", "1,-1"], "--threads takes numbers"),
        (["bench", "MODEL", "--seconds", "0"], "--seconds"),
        (["inspect", "MODEL", "--dim", "N"], "--dim takes NAME=SIZE"),
        (["inspect", "MODEL", "--dim", "N=-5"], "--dim takes NAME=SIZE"),
        (["inspect", "MODEL", "--dim", "M=3"], "'M'"),
        (["inspekt", "MODEL"], "left over"),
        (["passes", "qant"], "Did you mean 'quant'?"),
        (["check", "MODEL", "--against", "MODEL", "--data", "none.npz"], "none.npz"),
        (["check", "MODEL", "--against", "zoo:digits_dscnn"], "has other inputs"),
        (["--install-completion", "--shell", "tcsh"], "--shell"),
    ],
)
def test_mistakes_of_every_command(arguments: list[str], word: str, good: str, tmp_path: Path) -> None:
    done = optc(*[good if argument == "MODEL" else argument for argument in arguments], cwd=tmp_path)
    assert_one_line(done, 2, word)
    assert os.listdir(tmp_path) == ["good.onnx"]


RANDOM = np.random.default_rng(2)
W = RANDOM.standard_normal((4, 3)).astype(np.float32)
KERNEL = RANDOM.standard_normal((6, 2, 3, 3)).astype(np.float32)


def graph(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    x: list[int | str] | None = None,
    y: tuple[int, list[int | str]] = (TensorProto.FLOAT, ["N", 3]),
    opset: int = 17,
) -> onnx.ModelProto:
    proto = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x or ["N", 4])],
        [helper.make_tensor_value_info("y", *y)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(proto, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def branches() -> onnx.ModelProto:
    bodies = {
        f"{word}_branch": helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], [word], f"{word}_matmul")],
            word,
            [],
            [helper.make_tensor_value_info(word, TensorProto.FLOAT, ["N", 3])],
        )
        for word in ("then", "else")
    }
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], **bodies),
    ]
    return graph(nodes, {"w": W, "zero": np.float32([0]).reshape(())})


def loop() -> onnx.ModelProto:
    body = helper.make_graph(
        [node("MatMul", "state v", "next"), node("Identity", "going", "still")],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, ["N", 4]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ["N", 4]),
        ],
    )
    nodes = [helper.make_node("Loop", ["trips", "", "x"], ["a"], "loop", body=body), node("MatMul", "a w", "y")]
    return graph(nodes, {"trips": np.int64(2), "v": np.eye(4, dtype=np.float32) / 2, "w": W})


def sequence() -> onnx.ModelProto:
    proto = graph([node("MatMul", "x w", "a"), node("SequenceConstruct", "a a", "y")], {"w": W})
    proto.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, ["N", 3]))
    return proto


def node(op: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), outputs.split()[0] + "_node", **attributes)


QDQ = [
    node("QuantizeLinear", "x s z", "xq"),
    node("DequantizeLinear", "xq s z", "xd"),
    node("DequantizeLinear", "wq ws wz", "wd"),
    node("MatMul", "xd wd", "y"),
]
ODD_MODELS = {
    "zero-weights": graph([node("MatMul", "x w", "y")], {"w": np.zeros((4, 3), np.float32)}),
    "nan-weights": graph([node("MatMul", "x w", "y")], {"w": np.where(W > 1, np.nan, W)}),
    "infinite-weights": graph([node("MatMul", "x w", "y")], {"w": np.where(W > 1, np.inf, W)}),
    "shared-weight": graph(
        [node("MatMul", "x v", "a"), node("Relu", "a", "b"), node("MatMul", "b v", "c"), node("MatMul", "c w", "y")],
        {"v": np.eye(4, dtype=np.float32) + 0.1, "w": W},
    ),
    "dead-channels": graph(
        [node("Conv", "x k", "a"), node("Relu", "a", "b"), node("Conv", "b l", "y")],
        {
            "k": np.where(np.arange(6)[:, None, None, None] % 2, KERNEL, np.float32(0)),
            "l": RANDOM.standard_normal((3, 6, 1, 1)).astype(np.float32),
        },
        ["N", 2, 5, 5],
        (TensorProto.FLOAT, ["N", 3, 3, 3]),
    ),
    "batch-of-one": graph([node("MatMul", "x w", "y")], {"w": W}, [1, 4], (TensorProto.FLOAT, [1, 3])),
    "dynamic-sequence": graph(
        [node("MatMul", "x w", "y")], {"w": W}, ["N", "T", 4], (TensorProto.FLOAT, ["N", "T", 3])
    ),
    "computed-weight": graph([node("Mul", "w s", "v"), node("MatMul", "x v", "y")], {"w": W, "s": np.float32([2])}),
    "quantized": graph(
        QDQ,
        {
            "s": np.float32(0.02),
            "z": np.uint8(128),
            "wq": (W * 20).astype(np.int8),
            "ws": np.float32(0.05),
            "wz": np.int8(0),
        },
    ),
    "opset-7": graph([node("Gemm", "x w b", "y")], {"w": W, "b": np.ones(3, np.float32)}, opset=7),
    "integer-output": graph(
        [node("MatMul", "x w", "a"), node("ArgMax", "a", "y", axis=1, keepdims=0)],
        {"w": W},
        y=(TensorProto.INT64, ["N"]),
    ),
    "opset-23": graph([node("MatMul", "x w", "a"), node("Relu", "a", "y")], {"w": W}, opset=23),
    "branches": branches(),
    "loop": loop(),
    "qoperator": graph(
        [
            node("QuantizeLinear", "x s z", "xq"),
            node("QLinearMatMul", "xq s z wq ws wz s z", "yq"),
            node("DequantizeLinear", "yq s z", "y"),
        ],
        {
            "s": np.float32(0.02),
            "z": np.uint8(128),
            "wq": (W * 20).astype(np.int8),
            "ws": np.float32(0.05),
            "wz": np.int8(0),
        },
    ),
    "constant-activations": graph(
        [
            node("Mul", "x zero", "a"),
            node("MatMul", "a v", "b"),
            node("Add", "b one", "c"),
            node("MatMul", "c w", "d"),
            node("MatMul", "x w", "e"),
            node("Add", "d e", "y"),
        ],
        {"zero": np.zeros(1, np.float32), "one": np.ones(1, np.float32), "v": np.eye(4, dtype=np.float32), "w": W},
    ),
    "sequence-output": sequence(),
}
"""Graphs that are odd by nobody's mistake: each is compiled, and what cannot be done is skipped by name."""


def answers(proto: onnx.ModelProto, rows: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    # A sequence of tensors is as good as its tensors.
    return np.stack([np.asarray(session.run(None, {"x": row[None]})[0]) for row in rows])


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD_MODELS)
def test_an_odd_model_comes_out_right_with_every_layer_accounted_for(name: str, tmp_path: Path) -> None:
    proto = ODD_MODELS[name]
    path = write(tmp_path / "odd.onnx", proto)
    shape = [40, *[d.dim_value or 6 for d in proto.graph.input[0].type.tensor_type.shape.dim][1:]]
    rows = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    data = npz(tmp_path / "rows.npz", x=rows)
    before = Path(path).read_bytes()
    done = optc(path, "--passes", "prune,svd,depthwise,quant", "--data", data, "--json", "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert Path(path).read_bytes() == before
    report = json.loads(done.stdout)
    for step in report["passes"]:
        for layer in step["layers"]:
            assert layer["outcome"] == "done" or layer["reason"], layer
    out = onnx.load(tmp_path / "odd.optc.onnx")
    assert [list(ports) for ports in (out.graph.input, out.graph.output)] == [
        list(proto.graph.input),
        list(proto.graph.output),
    ]
    old, new = (answers(form, rows) for form in (proto, out))
    assert old.shape == new.shape
    finite = np.isfinite(old)
    error = np.where(finite, old, 0) - np.where(finite, new, 0)
    assert np.linalg.norm(error) <= 0.2 * np.linalg.norm(old[finite])
    if name in ("nan-weights", "infinite-weights", "quantized", "qoperator"):
        # A reason says so, and nothing was quantized twice.
        count = sum("QuantizeLinear" in node.op_type for node in out.graph.node)
        assert count <= sum("QuantizeLinear" in node.op_type for node in proto.graph.node)


def odd_rows(kind: str) -> np.ndarray:
    rows = np.random.default_rng(3).standard_normal((40, 4)).astype(np.float32)
    if kind == "few":
        return rows[:2]
    rows[:, 1:] = {"singular": rows[:, :1], "constant": 1, "zero": 0}[kind]
    return rows


@pytest.mark.parametrize("kind", ["few", "singular", "constant", "zero"])
def test_samples_that_tell_little_do_no_harm(kind: str, good: str, tmp_path: Path) -> None:
    rows = odd_rows(kind)
    data = npz(tmp_path / "rows.npz", x=rows)
    words = ["--passes", "prune,svd,quant", "--json", "--threads", "1", "-o", str(tmp_path / "o")]
    done = optc(good, "--data", data, *words)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert kind != "few" or any("few samples" in note or "only 2 samples" in note for note in report["notes"])
    old, new = (answers(onnx.load(path), rows) for path in (good, tmp_path / "o"))
    assert np.linalg.norm(old - new) <= 0.2 * np.linalg.norm(old)


def test_infinite_samples_are_one_line(good: str, tmp_path: Path) -> None:
    data = npz(tmp_path / "bad.npz", x=np.where(np.isin(ROWS, ROWS[7, 2]), np.float32(np.inf), ROWS))
    assert_one_line(optc(good, "--passes", "quant", "--data", data), 2, "x", "7")
