"""Forms besides static int8: weights alone, in several types and blocks, and ranges found as the model runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from quantized import cleaned, quantized, runtime_ops, signal_to_noise

from optc.ir.graph import Graph
from optc.ir.onnx.writer import to_bytes
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.models import zoo
from optc.passes.base import Outcome
from optc.passes.quant import Quant
from optc.runtime.agreement import agreement
from optc.runtime.sources import load_samples


def stored_types(graph: Graph) -> Counter[DType]:
    """Elements of constants by type."""
    types: Counter[DType] = Counter()
    for value in graph.constants:
        assert value.constant is not None
        types[value.constant.dtype] += value.constant.size
    return types


@pytest.mark.parametrize(
    ("one", "dtype", "ratio", "share"),
    [
        (Quant(weights="float16"), DType.FLOAT16, 0.75, 0.999),
        (Quant(weights="bfloat16"), DType.BFLOAT16, 0.75, 0.99),
        (Quant(activations="none"), DType.INT8, 0.6, 0.99),
        (Quant(activations="none", block=16), DType.INT8, 0.65, 0.99),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["digits_dscnn", "digits_transformer"])
def test_weights_alone_fold_into_the_float_model(
    name: str, one: Quant, dtype: DType, ratio: float, share: float, tmp_path: Path
) -> None:
    graph = cleaned(name)
    teacher = graph.clone()
    report = quantized(graph, zoo.samples(name, "calib"), one)
    assert report.count(Outcome.DONE) >= 4
    assert stored_types(graph)[dtype] > 0.5 * stored_types(teacher)[DType.FLOAT]
    assert len(to_bytes(graph)) < ratio * len(to_bytes(teacher))
    # Nothing is left to decode at run time but the rows gathered from tables of codes.
    decoding = {"Cast", "DequantizeLinear", "QuantizeLinear"} & set(runtime_ops(graph, tmp_path))
    assert decoding <= ({"Cast"} if name == "digits_transformer" else set())
    test = load_samples(zoo.samples(name, "test"), graph)
    assert agreement(teacher, graph, test, threads=1).share >= share


def product(*, op: str = "MatMul", inputs: int = 64, outputs: int = 48) -> Graph:
    rng = np.random.default_rng(0)
    graph = Graph("product", opsets={"": 21})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", inputs)))
    shape = (outputs, inputs) if op == "Gemm" else (inputs, outputs)
    weight = graph.constant(rng.normal(size=shape).astype(np.float32), "w")
    bias = graph.constant(rng.normal(size=outputs).astype(np.float32), "b")
    if op == "Gemm":
        y = graph.add("Gemm", [x, weight, bias], {"transB": 1}, name="product").output
    else:
        y = graph.add("Add", [graph.add("MatMul", [x, weight], name="product").output, bias]).output
    graph.add_output(y, "y", TensorType(DType.FLOAT, ("N", outputs)))
    infer(graph)
    return graph


@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
def test_four_bits_in_blocks_run_in_the_kernel_that_reads_them(op: str, tmp_path: Path) -> None:
    graph = product(op=op)
    teacher = graph.clone()
    x = {"x": np.random.default_rng(1).normal(size=(40, 64)).astype(np.float32)}
    report = quantized(graph, x, Quant(weights="int4", activations="none", block=16), measurable=False)
    assert {"bits": 4, "block": 16}.items() <= report.layers[0].detail.items()
    assert runtime_ops(graph, tmp_path)["MatMulNBits"] == 1
    assert signal_to_noise(teacher, graph, x) > 17


def test_four_bits_of_a_gemm_that_an_activation_joins_are_not_decoded_in_every_run(tmp_path: Path) -> None:
    graph = product(op="Gemm")
    graph.set_output(0, graph.add("Relu", [graph.outputs[0].value]).output)
    infer(graph)
    x = {"x": np.random.default_rng(1).normal(size=(40, 64)).astype(np.float32)}
    quantized(graph, x, Quant(weights="int4", activations="none", block=16))
    assert not runtime_ops(graph, tmp_path)["DequantizeLinear"]


def test_a_reduction_that_is_not_made_of_blocks_is_skipped_by_name() -> None:
    graph = product(inputs=30)
    x = {"x": np.random.default_rng(1).normal(size=(40, 30)).astype(np.float32)}
    report = quantized(graph, x, Quant(activations="none", block=16))
    assert [layer.reason for layer in report.layers] == ["the reduction over 30 is not made of blocks of 16"]


def test_blocks_of_a_convolution_keep_its_layout() -> None:
    rng = np.random.default_rng(0)
    graph = Graph("conv", opsets={"": 17})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 8, 6, 7)))
    weight = graph.constant(rng.normal(size=(5, 8, 3, 2)).astype(np.float32), "w")
    graph.add_output(graph.add("Conv", [x, weight], name="c").output, "y", TensorType(DType.FLOAT, ("N", 5, 4, 6)))
    infer(graph)
    teacher = graph.clone()
    feeds = {"x": rng.normal(size=(4, 8, 6, 7)).astype(np.float32)}
    quantized(graph, feeds, Quant(activations="none", block=8))
    assert signal_to_noise(teacher, graph, feeds) > 38


def test_a_weight_too_large_for_float16_stays_float() -> None:
    graph = product()
    node = next(node for node in graph if node.op == "MatMul")
    node.set_input(1, graph.constant(np.full((64, 48), 1e6, np.float32), "w"))
    report = quantized(graph, {"x": np.ones((4, 64), np.float32)}, Quant(weights="float16"))
    assert "larger than float16" in report.layers[0].reason
    assert not report.changed


@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
def test_ranges_found_as_the_model_runs_need_no_calibration_to_fit(op: str, tmp_path: Path) -> None:
    graph = product(op=op)
    teacher = graph.clone()
    rng = np.random.default_rng(1)
    report = quantized(graph, {"x": rng.normal(size=(40, 64)).astype(np.float32)}, Quant(activations="dynamic"))
    assert {"bits": 8, "activations": "dynamic"}.items() <= report.layers[0].detail.items()
    ops = runtime_ops(graph, tmp_path)
    assert ops["DynamicQuantizeMatMul"] + ops["MatMulIntegerToFloat"] == 1
    assert not {"MatMul", "Gemm", "MatMulInteger"} & set(ops)
    # Inputs a hundred times larger than any seen.
    assert signal_to_noise(teacher, graph, {"x": 100 * rng.normal(size=(8, 64)).astype(np.float32)}) > 38


def test_dynamic_ranges_of_a_transformer(tmp_path: Path) -> None:
    graph = cleaned("digits_transformer")
    teacher = graph.clone()
    quantized(graph, zoo.samples("digits_transformer", "calib"), Quant(activations="dynamic"))
    assert runtime_ops(graph, tmp_path)["MatMulInteger"] == 0
    test = load_samples(zoo.samples("digits_transformer", "test"), graph)
    assert agreement(teacher, graph, test, threads=1).share >= 0.985


def test_convolutions_under_dynamic_ranges_keep_float_kernels() -> None:
    graph = cleaned("digits_dscnn")
    report = quantized(graph, zoo.samples("digits_dscnn", "calib"), Quant(activations="dynamic"))
    forms = {(layer.op, layer.detail["activations"]) for layer in report.layers if layer.outcome is Outcome.DONE}
    assert forms == {("Conv", "stored"), ("Gemm", "dynamic")}


def test_sixteen_bits_lose_next_to_nothing() -> None:
    graph = cleaned("digits_dscnn")
    teacher = graph.clone()
    report = quantized(graph, zoo.samples("digits_dscnn", "calib"), Quant(activations="int16"))
    assert report.count(Outcome.DONE) >= 4
    assert {v.dtype for n in graph if n.op == "QuantizeLinear" for v in n.outputs} == {DType.INT16}
    samples = zoo.samples("digits_dscnn", "test")
    assert signal_to_noise(teacher, graph, {name: rows[:64] for name, rows in samples.items()}) > 30


def test_auto_says_what_it_chose_and_why() -> None:
    graph = product()
    x = {"x": np.random.default_rng(1).normal(size=(40, 64)).astype(np.float32)}
    report = quantized(graph, x, Quant(activations="auto", slower="int8"), measurable=False)
    assert report.notes[0].startswith("activations=auto chose int8 (int8: agreement ")
    assert any(node.op == "QuantizeLinear" for node in graph)


@pytest.mark.parametrize(
    ("ratios", "form"), [((0.5, 0.7, 1.0), "int8"), ((0.9, 0.7, 1.0), "dynamic"), ((1, 1, 1), "none")]
)
def test_auto_takes_the_fastest_of_the_faithful(ratios: tuple[float, ...], form: str) -> None:
    from optc.passes.base import Context, Layer, Report, TargetFacts
    from optc.passes.quant.choose import Tried, _pick

    done = Report(layers=[Layer("a", "Conv", Outcome.DONE)])
    names = ("int8", "dynamic", "none")
    tried = [Tried(n, product(), done, 0.99, r) for n, r in zip(names, ratios)]  # type: ignore[arg-type]
    assert _pick(tried, Context(TargetFacts("test"))).form == form
    unfaithful = Tried("int8", product(), done, 0.5, 0.1)
    assert _pick([unfaithful, *tried[1:]], Context(TargetFacts("test"))).form == (
        "dynamic" if ratios[1] < 1 else "none"
    )
