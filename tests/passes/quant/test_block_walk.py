"""Four bits with a scale a block, rounded on the walk: less is lost than by rounding to the nearest, and zeros stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from facts import facts_of
from quantized import quantized, runtime_ops, signal_to_noise

from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.base import Context, Outcome
from optc.passes.quant import Quant
from optc.passes.quant.numbers.rounding import losses
from optc.passes.quant.stored import four_bits
from optc.passes.quant.stored.block_walk import refit_scales, round_blocks

FOUR_BITS = Quant(weights="int4", activations="none")


def problem(groups: int, n: int, d: int) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """A target, a metric of strongly correlated inputs, and the box of four bits."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(groups, d, d)) * 0.3 + np.ones((groups, d, 1)) * rng.normal(size=(groups, 1, d))
    goal = rng.normal(size=(groups, n, d)) * np.exp(rng.normal(size=(groups, n, d // 8))).repeat(8, axis=2)
    box = np.full(goal.shape, -8.0), np.full(goal.shape, 7.0)
    return goal, mixing @ mixing.transpose(0, 2, 1) + 0.05 * np.eye(d), box


def test_codes_and_scales_are_found_together() -> None:
    goal, metric, box = problem(2, 12, 32)
    codes, scale = round_blocks(goal, metric, box, 8)
    assert np.array_equal(codes, np.rint(np.clip(codes, *box)))
    assert np.array_equal(scale, scale.astype(np.float16))
    errors = losses(codes, goal, metric, scale)
    widest = np.abs(goal).reshape(2, 12, 4, 8).max(axis=3) / 7
    nearest = np.rint(goal / widest.repeat(8, axis=2))
    assert errors.sum() < 0.25 * losses(nearest, goal, metric, widest).sum()
    one = np.abs(goal).max(axis=2) / 7
    assert errors.sum() < 0.5 * losses(np.rint(goal / one[..., None]), goal, metric, one).sum()


def test_scales_are_the_best_for_their_codes() -> None:
    goal, metric, _ = problem(1, 6, 24)
    scale = np.abs(goal).reshape(1, 6, 3, 8).max(axis=3) / 7
    codes = np.rint(goal / scale.repeat(8, axis=2))
    codes[0, 2, 8:16] = 0.0
    scales = refit_scales(codes[0], goal[0], metric[0], scale[0])
    assert scales[2, 1] == scale[0, 2, 1]
    least = losses(codes, goal, metric, scales[None])
    assert (least <= losses(codes, goal, metric, scale)).all()
    for factor in (0.99, 1.01):
        moved = scales.copy()
        moved[:, 0] *= factor
        assert (losses(codes, goal, metric, moved[None]) >= least - 1e-4 * least).all()


def test_zeros_stay_zeros() -> None:
    goal, metric, (low, high) = problem(1, 6, 32)
    low[..., ::3] = high[..., ::3] = 0.0
    codes, _ = round_blocks(goal, metric, (low, high), 8)
    assert not codes[..., ::3].any()
    assert codes.any()


def products(rows: int, *, sparse: bool = False) -> tuple[Graph, dict[str, np.ndarray]]:
    """Two products with a Relu between, of inputs that depend on each other, so many rows a sample."""
    rng = np.random.default_rng(0)
    graph = Graph("products", opsets={"": 21})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", rows, 64)))
    for name in ("first", "second"):
        weight = rng.normal(size=(64, 64)).astype(np.float32) / 8
        if sparse:
            weight[::4] = 0.0
        inputs = [x, graph.constant(weight, f"{name}_weight")]
        product = graph.add("MatMul", inputs, name=name).output
        bias = graph.constant(rng.normal(size=64).astype(np.float32))
        x = graph.add("Relu", [graph.add("Add", [product, bias]).output]).output
    graph.add_output(x, "y", TensorType(DType.FLOAT, ("N", rows, 64)))
    infer(graph)
    mixing = rng.normal(size=(64, 16)) @ rng.normal(size=(16, 64)) + 0.3 * rng.normal(size=(64, 64))
    return graph, {"x": (rng.normal(size=(640 // rows, rows, 64)) @ mixing).astype(np.float32) / 8}


@pytest.mark.parametrize(("rows", "kernel"), [(4, "MatMulNBits"), (32, "MatMul")])
def test_products_of_many_rows_keep_the_float_kernel(rows: int, kernel: str, tmp_path: Path) -> None:
    graph, feeds = products(rows)
    teacher = graph.clone()
    report = quantized(graph, feeds, FOUR_BITS, measurable=False)
    assert [{"bits": 4, "block": 32}.items() <= layer.detail.items() for layer in report.layers] == [True, True]
    ops = runtime_ops(graph, tmp_path)
    assert ops[kernel] + ops[f"Fused{kernel}"] == 2
    assert not {"Cast", "Mul", "DequantizeLinear"} & set(ops)
    assert signal_to_noise(teacher, graph, feeds) > 24


@pytest.mark.parametrize("follows", ["Relu", "Clip"])
def test_an_activation_behind_does_not_keep_the_runtime_from_its_kernel(follows: str, tmp_path: Path) -> None:
    """It took MatMul and Relu for one, and decoded the weight in every run: six times as slow as floats."""
    rng = np.random.default_rng(0)
    graph = Graph("products", opsets={"": 21})
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 64)))
    bounds = [graph.constant(np.float32(end)) for end in (-1, 4)] if follows == "Clip" else []
    for _ in range(3):
        product = graph.add("MatMul", [x, graph.constant(rng.normal(size=(64, 64)).astype(np.float32) / 8)]).output
        x = graph.add(follows, [product, *bounds]).output
    graph.add_output(x, "y", TensorType(DType.FLOAT, ("N", 64)))
    infer(graph)
    feeds = {"x": rng.normal(size=(128, 64)).astype(np.float32)}
    teacher = graph.clone()
    quantized(graph, feeds, FOUR_BITS, measurable=False)
    ops = runtime_ops(graph, tmp_path)
    assert ops["MatMulNBits"] == 3
    assert "DequantizeLinear" not in ops
    assert signal_to_noise(teacher, graph, feeds) > 15


def test_what_was_pruned_stays_pruned() -> None:
    graph, feeds = products(32, sparse=True)
    quantized(graph, feeds, FOUR_BITS)
    stored = [v for v in graph.constants if v.constant is not None and v.constant.dtype is DType.INT4]
    assert len(stored) == 2
    for value in stored:
        codes = value.numpy().astype(np.int8).reshape(64, 64)  # outputs, inputs
        assert not codes[:, ::4].any()
        assert codes.any()


def test_a_reduction_of_no_blocks_is_stored_in_eight_bits() -> None:
    graph = Graph("short", opsets={"": 21})
    rng = np.random.default_rng(0)
    x = graph.add_input("x", TensorType(DType.FLOAT, ("N", 30)))
    weight = graph.constant(rng.normal(size=(30, 8)).astype(np.float32), "w")
    graph.add_output(graph.add("MatMul", [x, weight], name="p").output, "y", TensorType(DType.FLOAT, ("N", 8)))
    infer(graph)
    report = quantized(graph, {"x": rng.normal(size=(40, 30)).astype(np.float32)}, FOUR_BITS)
    assert [(layer.outcome, layer.detail["bits"]) for layer in report.layers] == [(Outcome.DONE, 8)]


@pytest.mark.parametrize(("rows", "kernel"), [(4, "MatMulNBits"), (12, "MatMul")])
def test_how_many_rows_are_few_is_measured(
    rows: int, kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[object, ...]] = []

    def ratio(rows: int, *others: object) -> float:
        sizes.append((rows, *others[:3]))
        return 0.9 if rows < 8 else 1.1

    monkeypatch.setattr(four_bits, "_ratio", ratio)
    graph, feeds = products(rows)
    quantized(graph, feeds, FOUR_BITS, measurable=True)
    ops = runtime_ops(graph, tmp_path)
    assert ops[kernel] + ops[f"Fused{kernel}"] == 2
    assert set(sizes) == {(rows, 64, 64, 32)}


def test_both_products_are_really_timed() -> None:
    """Which is faster is the machine's to say; that both run, and give a ratio, is ours."""
    ratio = four_bits._ratio(4, 64, 32, 32, Context(facts_of(), threads=1))
    assert 0 < ratio < 1000
