"""What a caller of the library gives wrongly ends in one line of an `OptcError`, not in some inner line of Python."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import optc
from optc.errors import DataError, ModelError, OptcError, OutputError, SpecError
from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType
from optc.passes.depthwise import Depthwise
from optc.passes.prune import Prune
from optc.passes.quant import Quant
from optc.passes.svd import Svd
from optc.targets.onnx import OnnxTarget

ROWS = np.random.default_rng(0).standard_normal((24, 4)).astype(np.float32)


def network() -> Graph:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4)))
    weight = graph.constant(np.eye(4, dtype=np.float32))
    graph.add_output(graph.add("MatMul", [x, weight]).output, "y", TensorType(DType.FLOAT, ("N", 4)))
    return graph


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        *(("model", value, ModelError) for value in (None, 3, {}, ["m.onnx"], ROWS, Graph)),
        *(("passes", value, SpecError) for value in (None, 3, b"clean", {"clean": 1}, Svd, [Svd], ["clean", 3])),
        *(("target", value, SpecError) for value in (None, 3, [], [3], OnnxTarget)),
        *(("budget", value, SpecError) for value in ({}, 5, ["size=3MB"])),
        *(("data", value, DataError) for value in (3, b"x", [[1.0]], (3, ROWS), {3}, optc.Samples)),
        *(("data", value, DataError) for value in ({"x": "abc"}, {"x": None}, [{"x": None}], np.array([None], object))),
        *(("seed", value, SpecError) for value in ("a", -1, 1.5, None, True)),
        *(("threads", value, SpecError) for value in ("a", -1, None)),
        *(("min_agreement", value, SpecError) for value in ("a", 2, -0.1, float("nan"))),
        *(("shapes", value, SpecError) for value in ([1], {"x": 3}, {"x": "1x4"}, {"x": (-1, 4)}, {"x": (1.5, 4)})),
        *(("output", value, OutputError) for value in (3, b"x")),
        *(("overrides", value, SpecError) for value in ("abc", [{}], 3)),
        *(("check", value, SpecError) for value in ("no", None, 1)),
        *((name, 3, SpecError) for name in ("cache", "lock", "latency_table", "tune_records", "progress", "device")),
        ("observers", [3], SpecError),
        ("tune", "10m", SpecError),
    ],
)
def test_an_argument_of_a_wrong_kind_is_named(name: str, value: object, error: type[OptcError]) -> None:
    arguments: dict[str, Any] = {"model": network(), "passes": "clean", "data": {"x": ROWS}, name: value}
    with pytest.raises(error) as caught:
        optc.compile(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cls", "option", "value", "says"),
    [
        (Quant, "weights", "int5", "'weights' takes int8|int4"),
        (Quant, "block", "a", "'block' takes int, not 'a'"),
        (Quant, "block", 1.5, "'block' takes int, not 1.5"),
        (Quant, "block", True, "'block' takes int, not True"),
        (Quant, "per_channel", "yes", "'per_channel' takes true|false"),
        (Quant, "percentile", 200, "'percentile' must be 50 to 100, not 200"),
        (Quant, "keep", None, "'keep' takes str, not None"),
        (Svd, "ratio", 3, "'ratio' must be"),
        (Svd, "ratio", "a", "'ratio' takes float|none"),
        (Prune, "kind", "x", "'kind' takes"),
        (Prune, "ratio", float("nan"), "'ratio' must be"),
        (Depthwise, "rank", 0.5, "'rank' takes"),
        (OnnxTarget, "cpu", "vax", "'cpu' takes here|x86"),
    ],
)
def test_an_option_is_held_to_what_the_command_line_takes(cls: type, option: str, value: object, says: str) -> None:
    with pytest.raises(SpecError, match=re.escape(f"{cls.name}: {says}")):  # type: ignore[attr-defined]
        cls(**{option: value})


def test_numbers_of_other_libraries_are_numbers() -> None:
    assert Quant(block=np.int64(32)).block == 32  # type: ignore[arg-type]
    assert Svd(ratio=1).ratio == 1
    assert optc.compile(network(), [Svd(ratio=np.float32(0.5))], data={"x": ROWS}, check=False)  # type: ignore[arg-type]


def test_the_other_doors_are_watched_too(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a model is read from a path, not None"):
        optc.load(None)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="a Graph is written, not None"):
        optc.save(None, tmp_path / "m.onnx")  # type: ignore[arg-type]
    with pytest.raises(OutputError, match="is a path, not int"):
        optc.save(network(), 3)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="inputs of a Graph, not None"):
        optc.load_samples({"x": ROWS}, None)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="not int"):
        optc.load_samples(3, network())  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="a budget is text"):
        optc.Budget.parse(3)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"Svd is a class; a pass is what it makes: Svd\(\)"):
        optc.Pipeline.of(Svd)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="'limit' is 1 or more, not -1"):
        optc.Data({"x": ROWS}, limit=-1)
    with pytest.raises(DataError, match="'mean' is a number"):
        optc.Data({"x": ROWS}, mean="a")
    with pytest.raises(OutputError, match="not None"):
        optc.compile(network(), "clean", check=False).save(None)  # type: ignore[arg-type]
