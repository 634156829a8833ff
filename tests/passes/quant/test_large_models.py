"""Models larger than memory: their weights are stored in eight bits, one after the other, and the model is not run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from optc import compile

WEIGHTS, ROWS, COLUMNS = 12, 3072, 3072


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Products by `WEIGHTS` matrices of 36 MiB, zeros but for a row of each, in a file with holes."""
    weights, nodes, size = [], [], ROWS * COLUMNS * 4
    with open(tmp_path / "large.data", "wb") as file:
        file.truncate(WEIGHTS * size)
        for at in range(WEIGHTS):
            file.seek(at * size)
            (np.linspace(-1, 1, COLUMNS, dtype=np.float32) * (at + 1)).tofile(file)
            weight = TensorProto(name=f"w{at}", data_type=TensorProto.FLOAT, dims=(ROWS, COLUMNS))
            weight.data_location = TensorProto.EXTERNAL
            for key, entry in {"location": "large.data", "offset": at * size, "length": size}.items():
                weight.external_data.add(key=key, value=str(entry))
            weights.append(weight)
            nodes.append(helper.make_node("MatMul", [f"x{at}", f"w{at}"], [f"x{at + 1}"], name=f"product{at}"))
    inputs = [helper.make_tensor_value_info("x0", TensorProto.FLOAT, ["n", ROWS])]
    outputs = [helper.make_tensor_value_info(f"x{WEIGHTS}", TensorProto.FLOAT, ["n", COLUMNS])]
    graph = helper.make_graph(nodes, "large", inputs, outputs, weights)
    path = tmp_path / "large.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="the resource module of Unix tells the peak of memory")
def test_memory_is_that_of_a_few_weights(large: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "optc", str(large), "--passes", "quant:activations=none", "--no-check"]
    program = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done.returncode)"
    )
    command = [sys.executable, "-c", program, *arguments, "-o", str(tmp_path / "small.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak = int(done.stdout.split()[-1]) * (1 if sys.platform == "darwin" else 1024)
    assert peak < 480 << 20, peak  # of 432 MiB of float weights, and 108 MiB of quantized ones
    assert (tmp_path / "small.onnx").stat().st_size < 1.01 * WEIGHTS * ROWS * COLUMNS
    assert "the model was not run" in done.stdout


def test_it_runs_where_samples_are_given_or_a_layer_wants_them(large: Path, tmp_path: Path) -> None:
    model = onnx.load(large)  # with its data, to be cut to one small product
    one = model.graph.initializer[0]
    del model.graph.initializer[1:], model.graph.node[1:]
    one.CopyFrom(onnx.numpy_helper.from_array(np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32), "w0"))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 8
    model.graph.output[0].name = "x1"
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4
    samples = {"x0": np.ones((8, 8), np.float32)}
    unseen = compile(model, "quant:activations=none", check=False)
    assert unseen.report.samples is None
    assert unseen.report.steps[-1].report.changed
    assert compile(model, "quant:activations=none", check=False, data=samples).report.samples is not None
    assert compile(model, "quant:activations=none").report.samples is not None
    assert compile(model, "quant:activations=dynamic", check=False).report.samples is not None
