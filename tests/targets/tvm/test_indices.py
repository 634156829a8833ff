"""Places that are operands: right ones are taken, from either end, and others end the run, not the process."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from interpreted import build, run

from optc.errors import TargetError

pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")

Array = np.ndarray[Any, Any]

X = np.arange(12, dtype=np.float32).reshape(4, 3)
FORMS = {
    "Gather": ("float[4, 3] x, int64[2] i", "float[2, 3] y", "y = Gather (x, i)", [[1, -4]], [4], [-5]),
    "one": ("float[4, 3] x, int64 i", "float[3] y", "y = Gather (x, i)", -1, 4, -5),
    "columns": ("float[4, 3] x, int32[2] i", "float[4, 2] y", "y = Gather <axis = 1> (x, i)", [[-3, 2]], [3], [-4]),
    "elements": (
        "float[4, 3] x, int64[1, 3] i", "float[1, 3] y", "y = GatherElements (x, i)", [[[3, -1, 0]]], [[4]], [[-5]],
    ),
    "GatherND": ("float[4, 3] x, int64[1, 2] i", "float[1] y", "y = GatherND (x, i)", [[[3, -3]]], [[0, 3]], [[4, 0]]),
    "ScatterND": (
        "float[4, 3] x, int64[1, 2] i",
        "float[4, 3] y",
        "u = Constant <value_floats = [9.0]> () y = ScatterND (x, i, u)",
        [[[3, 2]]], [[0, 3]], [[4, 0]],
    ),
}  # fmt: skip


def parsed(name: str) -> tuple[onnx.ModelProto, np.dtype[Any], tuple[int, ...]]:
    inputs, outputs, body, *_ = FORMS[name]
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> net ({inputs}) => ({outputs}) {{ {body} }}'
    )
    kind = model.graph.input[1].type.tensor_type
    return (
        model,
        np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)),
        tuple(d.dim_value for d in kind.shape.dim),
    )


def places(name: str, numbers: Any) -> Array:
    _, dtype, sizes = parsed(name)
    return np.broadcast_to(np.array(numbers, dtype), sizes).copy()


@pytest.mark.parametrize("name", FORMS)
def test_places_within_are_taken_and_others_refused(name: str) -> None:
    import onnxruntime

    from optc.targets.tvm.cpu.machines import host

    model, *_ = parsed(name)
    program = build(model, host("x86-64-v3"))
    right, *wrong = FORMS[name][3:]
    feeds = {"x": X, "i": places(name, np.reshape(right, parsed(name)[2]))}
    want = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)[0]
    assert np.array_equal(run(program, list(feeds.values()))[0], want)
    for numbers in wrong:
        with pytest.raises(TargetError, match="beyond its operand"):
            run(program, [X, places(name, numbers)])


def test_a_library_lives_on_after_a_place_far_beyond(tmp_path: Any) -> None:
    import optc
    from optc.compiler.artifact import opened

    model, *_ = parsed("Gather")
    optc.compile(model, "clean", target="host", output=str(tmp_path / "net.tar"), check=False)
    library, _ = opened(str(tmp_path / "net.tar"))
    with pytest.raises(TargetError, match=r"Gather node 'y': it is asked for a place beyond its operand"):
        library.run({"x": X, "i": np.array([0, 10**15])})
    assert np.array_equal(library.run({"x": X, "i": np.array([1, 2])})[0], X[1:3])
