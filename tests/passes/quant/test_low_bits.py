"""Weights of less than 8 bits: stored packed, run in the integer kernels, rounded with care."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from facts import facts_of
from quantized import cleaned, quantized, runtime_ops

from optc.ir.graph import Graph
from optc.ir.onnx.writer import to_bytes
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.models import zoo
from optc.passes.base import Context, Outcome, Report, TargetFacts
from optc.passes.quant import Quant
from optc.passes.quant.equivalent.pooling import pool_spatial_means
from optc.passes.quant.layers import find_layers
from optc.passes.quant.mixed import weigh
from optc.passes.quant.plan import SPARED, smallest
from optc.runtime.agreement import agreement
from optc.runtime.session import Session
from optc.runtime.sources import load_samples


@pytest.mark.parametrize("name", ["digits_dscnn", "digits_resnet"])
def test_packed_weights_run_in_integer_kernels(name: str, tmp_path: Path) -> None:
    graph = cleaned(name)
    layers = sum(node.op in ("Conv", "Gemm") for node in graph)
    teacher = graph.clone()
    report = quantized(graph, zoo.samples(name, "calib"), Quant(weights="int4", slower="int8"))
    assert widths(report)[4] > 0
    assert set(widths(report)) <= {4, 8}
    ops = runtime_ops(graph, tmp_path)
    assert ops["QLinearConv"] + ops["QGemm"] == layers
    assert not {"Cast", "DequantizeLinear", "Conv", "Gemm", "FusedConv"} & set(ops)
    test = load_samples(zoo.samples(name, "test"), graph)
    assert agreement(teacher, graph, test, threads=1).share >= 0.97
    eight = teacher.clone()
    quantized(eight, zoo.samples(name, "calib"))
    assert len(to_bytes(graph)) < 0.85 * len(to_bytes(eight))


def test_means_over_positions_are_pooled_as_codes_in_an_opset_whose_axes_are_inputs() -> None:
    rng = np.random.default_rng(0)
    graph = Graph("network", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 4, 6, 6)))
    kernel = graph.constant(rng.normal(size=(8, 4, 3, 3)).astype(np.float32))
    y = graph.add("Relu", [graph.add("Conv", [x, kernel]).output]).output
    mean = graph.add("ReduceMean", [y], {"axes": [2, 3], "keepdims": 0}).output
    weight = graph.constant(rng.normal(size=(8, 5)).astype(np.float32))
    graph.add_output(graph.add("Gemm", [mean, weight]).output, "y", TensorType(DType.FLOAT, ("N", 5)))
    infer(graph)
    quantized(graph, {"x": rng.normal(size=(16, 4, 6, 6)).astype(np.float32)}, Quant(weights="int4", slower="int8"))
    assert graph.opset() == 21
    ops = Counter(node.op for node in graph)
    assert ops["GlobalAveragePool"] == 1
    assert not {"ReduceMean", "Constant"} & set(ops)


@pytest.mark.parametrize(
    ("dtype", "shape", "convolved"),
    [(DType.FLOAT, ("N", 4, 6), True), (DType.FLOAT, ("N", 5, 6), False), (DType.DOUBLE, ("N", 4, 6, 6), False)],
)
def test_only_means_that_a_convolution_feeds_are_pooled_on_three_axes_and_only_of_floats(
    dtype: DType, shape: tuple[str | int, ...], convolved: bool
) -> None:
    graph = Graph("network", opsets={"": 17})
    x = graph.add_input("x", TensorType(dtype, shape))
    y = graph.add("Conv", [x, graph.constant(np.ones((8, 4, 3), np.float32))]).output if convolved else x
    axes = list(range(2, len(shape)))
    graph.add_output(graph.add("ReduceMean", [y], {"axes": axes}).output, "y")
    infer(graph)
    assert bool(pool_spatial_means(graph)) == convolved


@pytest.mark.parametrize(("weights", "most"), [("int3", 8), ("int2", 3)])
def test_narrower_weights_use_so_many_codes(weights: str, most: int) -> None:
    graph = cleaned("digits_resnet")
    quantized(graph, zoo.samples("digits_resnet", "calib"), Quant(weights=weights, slower="int8"))  # type: ignore[arg-type]
    values = [node.output for node in graph if node.op in ("Cast", "Reshape") and node.output.name.startswith("wide")]
    assert values
    feeds = {name: array[:1] for name, array in zoo.samples("digits_resnet", "calib").items()}
    assert max(len(np.unique(codes)) for codes in Session(graph, outputs=values, threads=1).run(feeds)) == most


def test_pruned_zeros_stay_zeros_in_four_bits() -> None:
    graph = cleaned("digits_resnet")
    rng = np.random.default_rng(0)
    masks: dict[tuple[int, ...], list[np.ndarray]] = {}
    for node in tuple(graph):
        if node.op == "Conv":
            weight = np.array(node.inputs[1].numpy())  # type: ignore[union-attr]
            mask = rng.random(weight.shape) < 0.5
            weight[mask] = 0
            masks.setdefault(weight.shape, []).append(mask)
            node.set_input(1, graph.constant(weight))
    quantized(graph, zoo.samples("digits_resnet", "calib"), Quant(weights="int4", slower="int8"))
    packed = [np.asarray(v.numpy(), np.int8) for v in graph.constants if v.dtype is DType.INT4 and len(v.shape) >= 4]  # type: ignore[arg-type]
    assert packed
    for parted in packed:
        codes = parted.reshape(len(parted), -1, *parted.shape[-2:])  # channels may be in blocks
        assert any(not codes[mask].any() for mask in masks[codes.shape])


def widths(report: Report) -> Counter[object]:
    return Counter(layer.detail["bits"] for layer in report.layers if layer.outcome is Outcome.DONE)


def test_bits_by_layer_keep_to_a_budget_and_spare_who_minds_most() -> None:
    graph = cleaned("digits_resnet")
    samples = zoo.samples("digits_resnet", "calib")
    layers = list(find_layers(graph)[0].values())
    held_out = load_samples(samples, graph)
    weighed = weigh(graph, layers, {}, Context(TargetFacts("test"), fit=held_out, held_out=held_out, threads=1))
    loss = {layer.name: choices[1].error / choices[1].cost for layer, choices in zip(layers, weighed)}
    report = quantized(graph, samples, Quant(weights="auto", size=0.18))
    width_of = widths(report)
    assert width_of[4]
    assert width_of[8]
    bits = {layer.name: layer.detail["bits"] for layer in report.layers if layer.name in loss}
    assert bits[max(loss, key=loss.__getitem__)] == 8
    packed = sum(v.constant.size for v in graph.constants if v.dtype is DType.INT4)  # type: ignore[union-attr]
    total = sum(layer.weight.constant.size for layer in layers)  # type: ignore[union-attr]
    assert (total - packed / 2) / (4 * total) <= 0.18


def test_an_agreement_floor_that_nothing_meets_leaves_eight_bits() -> None:
    graph = cleaned("digits_dscnn")
    teacher = graph.clone()
    samples = load_samples(zoo.samples("digits_dscnn", "calib"), graph)
    ctx = Context(facts_of(), teacher=teacher, fit=samples, held_out=samples, threads=1)
    one = Quant(weights="auto", min_agreement=1.0)
    one.requires(graph, ctx)
    report = one.run(graph, ctx)
    assert set(widths(report)) == {8} or agreement(teacher, graph, samples, threads=1).share == 1.0
    easy = teacher.clone()
    one = Quant(weights="auto", min_agreement=0.5)
    one.requires(easy, ctx)
    assert widths(one.run(easy, ctx))[4] > 0


def test_the_smallest_layers_are_spared() -> None:
    layers = list(find_layers(cleaned("digits_resnet"))[0].values())
    sizes = {layer.node: layer.weight.constant.size for layer in layers}  # type: ignore[union-attr]
    spared = smallest(layers, SPARED)
    assert min(sizes, key=sizes.__getitem__) in spared
    assert sum(sizes[node] for node in spared) <= SPARED * sum(sizes.values())
    assert smallest(layers, SPARED / 4) < spared
