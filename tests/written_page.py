"""A small build whose names would break a careless page, and its page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from optc.compiler import Build, Data, compile

EVIL = '</script><script>alert("1")</script>'
"""A node's name."""
WORSE = '"><img src=x onerror=alert(1)>&amp;$x$'
"""A graph output's name."""


def evil_model() -> onnx.ModelProto:
    """Two convolutions and a classifier of four classes over pictures [3, 16, 16]."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "w3": (4, 8)}
    tensors = {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], EVIL, pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "relu <b>"),
        helper.make_node("Conv", ["b", "w2"], ["c"], "block/conv", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["b", "c"], ["d"], "block/add"),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], "pool"),
        helper.make_node("Flatten", ["e"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w3"], [WORSE], "gemm", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "evil",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 16, 16])],
        [helper.make_tensor_value_info(WORSE, onnx.TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@dataclass(frozen=True)
class Written:
    """A build, where its page lies, the page's text, and the JSON document of the same build."""

    build: Build
    path: Path
    text: str
    document: dict[str, Any]


def write_page(folder: Path) -> Written:
    """Build and write into `folder`."""
    from optc.report.page import write

    model = folder / "<i>model.onnx"
    onnx.save(evil_model(), str(model))
    samples = np.random.default_rng(1).normal(size=(80, 3, 16, 16)).astype(np.float32)
    build = compile(
        str(model),
        "quant",
        output=folder / "small.onnx",
        data=Data({"x": samples}),
        threads=1,
        trail=True,
        budget="size=0.9x,macs=1",
    )
    path = folder / "page.html"
    write(build, path)
    return Written(build, path, path.read_text(encoding="utf-8"), json.loads(build.report.to_json()))
