"""What cannot be searched: one line each, before anything is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from searched import model, samples

import optc
from optc.errors import DataError, ModelError, OptcError, SpecError
from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType

CASES: dict[str, tuple[dict[str, Any], type[OptcError], str]] = {
    "no budget": ({"budget": None}, SpecError, "needs a budget to keep"),
    "a budget that does not parse": ({"budget": "speed=2"}, SpecError, "no metric is called 'speed'"),
    "no time": ({"time": 0.0}, SpecError, "takes some time"),
    "no such strategy": ({"strategy": "knapsak"}, SpecError, "Did you mean 'knapsack'"),
    "no such form": ({"forms": ["int9"]}, SpecError, "Did you mean 'int8'"),
    "no check": ({"check": False}, SpecError, "--no-check cannot be"),
    "a floor on made-up samples": (
        {"data": None, "budget": "size=30%,agreement=98%"},
        DataError,
        "tell nothing of",
    ),
    "several targets": ({"target": "onnx,onnx:cpu=arm"}, SpecError, "for one target"),
    "a plan without an output": ({"plan": "plan.toml"}, SpecError, "give an output beside it"),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused(name: str, tmp_path: Path) -> None:
    changes, error, words = CASES[name]
    options: dict[str, Any] = {"budget": "macs=50%", "data": samples(tmp_path), "threads": 1, **changes}
    with pytest.raises(error, match=words) as refused:
        optc.search(model(tmp_path), options.pop("budget"), **options)
    assert len(str(refused.value).splitlines()) == 1 or "\n  " in str(refused.value)


def test_a_model_without_a_layer_that_can_change_is_refused(tmp_path: Path) -> None:
    graph = Graph("plain", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4)))
    graph.add_output(graph.add("Relu", [x]).output, "y", TensorType(DType.FLOAT, ("N", 4)))
    with pytest.raises(ModelError, match="no layer of this model can change"):
        optc.search(graph, "size=50%", data={"x": np.ones((20, 4), np.float32)}, threads=1)
