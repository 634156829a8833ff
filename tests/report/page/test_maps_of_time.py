"""The page's pictures of a whole build: time by area, bytes pass by pass, and two models side by side."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from written_page import Written

from optc.cli.app import run
from optc.ir.graph import Graph
from optc.ir.onnx.writer import save
from optc.ir.types import DType, TensorType
from optc.report.model_explorer import render
from optc.report.page.rows import PartCost
from optc.report.page.treemap import Area, squarified, unaligned
from optc.report.page.waterfall import waterfall


@pytest.mark.parametrize("sizes", [[1.0], [6.0, 6, 4, 3, 2, 2, 1], [5.0] + [0.01] * 30])
def test_areas_fill_the_whole_in_proportion(sizes: list[float]) -> None:
    areas = squarified(sizes, Area(0, 0, 60, 40))
    assert len(areas) == len(sizes)
    for size, area in zip(sizes, areas, strict=True):
        assert area.width * area.height == pytest.approx(2400 * size / sum(sizes))
        assert area.x >= -1e-6
        assert area.y >= -1e-6
        assert area.x + area.width <= 60 + 1e-6
        assert area.y + area.height <= 40 + 1e-6


def convolution(channels: int) -> Graph:
    graph = Graph("g", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1, 3, 8, 8)))
    weight = np.random.default_rng(0).standard_normal((channels, 3, 3, 3)).astype(np.float32)
    conv = graph.add("Conv", [x, graph.constant(weight, "w")], name="conv")
    graph.add_output(conv.output, "y", TensorType(DType.FLOAT, (1, channels, 6, 6)))
    return graph


def test_channels_that_leave_vectors_unfilled_are_told() -> None:
    for channels, odd in ((16, False), (11, True)):
        assert unaligned(PartCost(work=list(convolution(channels))), 8) is odd
        assert not unaligned(PartCost(work=list(convolution(channels))), 1)


def test_a_pass_that_was_undone_is_grey_and_says_why() -> None:
    def step(name: str, size: int, layers: list[dict[str, str]], done: int) -> dict[str, object]:
        after = {"bytes": size}
        return {"spec": name, "after": after, "layers": layers, "done": done, "rewrites": {}, "seconds": 1.0}

    undone = [{"outcome": "reverted", "reason": "it would run 1.2 times as long"}]
    document = {"before": {"bytes": 100}, "passes": [step("prune", 60, [], 3), step("svd", 60, undone, 0)]}
    drawn = str(waterfall(document))
    assert drawn.count('class="undone"') == 1
    assert drawn.count('class="left"') == 1
    assert "was undone: it would run 1.2 times as long" in drawn
    assert waterfall({"before": {"bytes": 100}, "passes": []}) is None


def test_the_page_has_them_all(written: Written) -> None:
    for mark in ('class="waterfall"', 'class="treemap"', "For the phone", "cold start", "p90 of a run", "quantized"):
        assert mark in written.text, mark


def test_model_explorer_gets_a_figure_a_layer(written: Written) -> None:
    sets = json.loads(render(written.build.report))
    assert any("what became of the layer" in name for name in sets)
    for one in sets.values():
        assert one["results"]
        assert all("value" in result for result in one["results"].values())


def test_two_models_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="the page draws its charts with matplotlib (optc[html])")
    for name, channels in (("a", 16), ("b", 12)):
        save(convolution(channels), tmp_path / f"{name}.onnx")
    places = [str(tmp_path / f"d.{form}") for form in ("html", "json")]
    words = ["diff", str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx"), "--no-run", "-q"]
    assert run([*words, "--report", places[0], "--report", places[1]]) == 0, capsys.readouterr().err
    page = Path(places[0]).read_text()
    assert page.count('class="pane"') == 2
    assert page.count('href="#layer-0"') >= 2, "the same layer in both graphs leads to one row"
    assert json.loads(Path(places[1]).read_text())["differs"] is True
    assert run([*words, "--report", str(tmp_path / "d.xml")]) == 2
