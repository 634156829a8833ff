"""Weights of recurrent cells and transposed convolutions, which have no integer kernel of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from quantized import quantized, runtime_ops, signal_to_noise

from optc.ir.graph import Graph
from optc.ir.onnx.writer import to_bytes
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.base import Outcome
from optc.passes.quant import Quant
from optc.passes.quant.stored.recurrent import _plain
from optc.runtime.session import Session

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FEEDS = {"x": np.random.default_rng(1).normal(size=(9, 8, 24)).astype(np.float32)}


def cell(op: str, *, hidden: int = 32, layout: int = 0) -> Graph:
    """A cell of both directions over [sequence, batch, 24] (or [batch, sequence, 24])."""
    rng = np.random.default_rng(0)
    graph = Graph("cell", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("S", "N", 24)))
    count = GATES[op] * hidden
    parts = [
        graph.constant((rng.normal(size=shape) / np.sqrt(shape[-1])).astype(np.float32), name)
        for name, shape in (("w", (2, count, 24)), ("r", (2, count, hidden)), ("b", (2, 2 * count)))
    ]
    attributes = {"hidden_size": hidden, "direction": "bidirectional", "layout": layout}
    node = graph.add(op, [x, *parts], attributes, name="cell")
    graph.add_output(node.output, "y", TensorType(DType.FLOAT, None))
    infer(graph)
    return graph


@pytest.mark.parametrize("op", list(GATES))
@pytest.mark.parametrize("activations", ["int8", "none"])
def test_weights_of_cells_are_stored_in_int8_and_folded(op: str, activations: str, tmp_path: Path) -> None:
    graph = cell(op)
    teacher = graph.clone()
    report = quantized(graph, FEEDS, Quant(activations=activations))  # type: ignore[arg-type]
    assert [(x.outcome, x.detail["activations"]) for x in report.layers] == [(Outcome.DONE, "stored")]
    assert 0 < float(str(report.layers[0].detail["weight_error"])) < 1e-4
    assert set(runtime_ops(graph, tmp_path)) == {op}
    assert len(to_bytes(graph)) < 0.35 * len(to_bytes(teacher))
    assert signal_to_noise(teacher, graph, FEEDS) > 35


@pytest.mark.parametrize("saturating", [False, True])
def test_an_lstm_that_finds_its_ranges_multiplies_codes(saturating: bool, tmp_path: Path) -> None:
    graph = cell("LSTM")
    teacher = graph.clone()
    report = quantized(graph, FEEDS, Quant(activations="dynamic"), saturating_int8=saturating)
    assert report.layers[0].detail["activations"] == "dynamic"
    assert set(runtime_ops(graph, tmp_path)) == {"DynamicQuantizeLSTM"}
    assert len(to_bytes(graph)) < 0.35 * len(to_bytes(teacher))
    assert signal_to_noise(teacher, graph, FEEDS) > (25 if saturating else 10)


@pytest.mark.parametrize(("op", "contrib"), [("GRU", True), ("LSTM", False)])
def test_other_cells_stay_stored_where_ranges_are_found(op: str, contrib: bool) -> None:
    report = quantized(cell(op), FEEDS, Quant(activations="dynamic"), contrib_ops=contrib)
    assert report.layers[0].detail["activations"] == "stored"


def test_a_cell_that_reads_the_batch_first_is_not_for_the_integer_operator() -> None:
    assert _plain(next(iter(cell("LSTM"))))
    assert not _plain(next(iter(cell("LSTM", layout=1))))


def test_weights_that_others_read_and_small_ones_stay_as_they_are() -> None:
    graph = cell("GRU")
    node = next(iter(graph))
    weight = node.inputs[1]
    graph.add_output(graph.add("Exp", [weight], name="reader").output, "e", TensorType(DType.FLOAT, None))
    small = cell("RNN", hidden=4)
    assert quantized(graph, FEEDS).layers[0].reason == "reader reads the same weight and needs it float"
    assert "fewer than 512 weights" in quantized(small, FEEDS).layers[0].reason


@pytest.mark.parametrize(("weights", "dtype"), [("int8", DType.INT8), ("float16", DType.FLOAT16)])
@pytest.mark.parametrize(("groups", "outputs"), [(1, 12), (2, 6), (16, 1), (16, 2)])
def test_transposed_convolutions(weights: str, dtype: DType, groups: int, outputs: int, tmp_path: Path) -> None:
    """Every output of every group is as exact as the others, however much smaller its weights are."""
    rng = np.random.default_rng(0)
    graph = Graph("up", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 16, 5, 5)))
    sizes = np.geomspace(1, 300, groups * outputs).reshape(groups, outputs).repeat(16 // groups, axis=0)
    kernel = rng.normal(size=(16, outputs, 6, 6)) * sizes[:, :, None, None]
    up = graph.add("ConvTranspose", [x, graph.constant(kernel.astype(np.float32), "w")], {"group": groups}, name="up")
    graph.add_output(up.output, "y", TensorType(DType.FLOAT, ("N", groups * outputs, 10, 10)))
    infer(graph)
    teacher = graph.clone()
    feeds = {"x": rng.normal(size=(8, 16, 5, 5)).astype(np.float32)}
    report = quantized(graph, feeds, Quant(weights=weights))  # type: ignore[arg-type]
    assert any(v.dtype is dtype and len(v.shape or ()) >= 4 for v in graph.constants)
    assert set(runtime_ops(graph, tmp_path)) == {"ConvTranspose"}
    want, got = (np.asarray(Session(g, threads=1).run(feeds)[0], np.float64) for g in (teacher, graph))
    power, off = ((a**2).sum(axis=(0, 2, 3)) for a in (want, want - got))
    assert 10 * np.log10(power / off).min() > 38
    assert not any("eight bits" in note for note in report.notes)


def test_that_eight_bits_are_kept_where_four_were_asked_for_is_told() -> None:
    report = quantized(cell("GRU"), FEEDS, Quant(weights="int4", activations="none"))
    assert [layer.detail["bits"] for layer in report.layers if layer.op == "GRU"] == [8]
    assert "weights of GRU have eight bits: no form of fewer bits is known for them" in report.notes
