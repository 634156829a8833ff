"""Single layers are kept, or have options of their own, in every lossy pass."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from facts import facts_of

from optc.compiler.model import read
from optc.ir.graph import Graph
from optc.ir.types import DType, TensorType
from optc.passes.base import Context, Layer, Outcome, Override, Report
from optc.passes.pipeline import Pipeline
from optc.passes.runner import run
from optc.runtime.sources import load_samples

LOSSY = [
    "prune:ratio=0.5",
    "prune:kind=nm",
    "prune:kind=channels:ratio=0.5",
    "svd:ratio=0.5",
    "svd:ratio=0.5:scope=global",
    "depthwise:rank=1",
    "prune:kind=blocks:ratio=0.1",
    "merge:ratio=0.01",
    "replace:ratio=0.1:steps=20",
    "quant",
    "quant:activations=none",
]


def net(*, pair: bool = False) -> Graph:
    """Four convolutions, a residual sum over two of them, and a classifier, with weights drawn by chance; with a `pair`
    of pointwise ones before it that could be one."""
    rng = np.random.default_rng(0)
    graph = Graph("net", opsets={"": 17})
    value = graph.add_input("x", TensorType(DType.FLOAT, ("N", 8, 8, 8)))
    skip = value
    for name, inputs in (("stem", 8), ("a", 32), ("b", 32), ("c", 32)):
        weight = rng.normal(size=(32, inputs, 3, 3)) / np.sqrt(4.5 * inputs)
        bias = rng.normal(size=32) / 8.0
        constants = [graph.constant(array.astype(np.float32)) for array in (weight, bias)]
        value = graph.add("Conv", [value, *constants], {"pads": [1] * 4}, name=name).output
        if name == "b":
            value = graph.add("Add", [value, skip], name="sum").output
        value = graph.add("Relu", [value], name=f"{name}.relu").output
        if name == "stem":
            skip = value
    for name, outputs, inputs in (("wide", 64, 32), ("narrow", 32, 64)) if pair else ():
        weight = rng.normal(size=(outputs, inputs, 1, 1)) / np.sqrt(inputs)
        value = graph.add("Conv", [value, graph.constant(weight.astype(np.float32))], name=name).output
    value = graph.add("Flatten", [graph.add("GlobalAveragePool", [value], name="pool").output], name="flat").output
    fc = [graph.constant(rng.normal(size=size).astype(np.float32)) for size in ((10, 32), (10,))]
    graph.add_output(graph.add("Gemm", [value, *fc], {"transB": 1}, name="fc").output, "y")
    return graph


def build(passes: str, *overrides: Override) -> tuple[Graph, Report]:
    graph = read(net(pair="merge" in passes))
    data = np.random.default_rng(1).normal(size=(48, 8, 8, 8)).astype(np.float32)
    ctx = Context(facts_of(measurable=False), overrides=overrides, threads=1)
    ctx.fit, ctx.held_out = load_samples({"x": data}, graph).split(8)
    return graph, run(Pipeline.parse(f"clean,{passes}"), graph, ctx)[-1]


plainly = functools.cache(build)


def done(report: Report) -> list[str]:
    return [layer.name for layer in report.layers if layer.outcome is Outcome.DONE]


def convolutions(report: Report) -> list[Layer]:
    return [layer for layer in report.layers if layer.op == "Conv" and layer.outcome is Outcome.DONE]


def weight(graph: Graph, name: str) -> np.ndarray:
    node = next(node for node in graph if name in (node.name, *node.origin.nodes) and node.op in ("Conv", "Gemm"))
    value = node.inputs[1]
    assert value is not None
    assert value.constant is not None, f"the weight of {name} is no constant any more"
    return np.asarray(value.numpy())


@pytest.mark.parametrize("passes", LOSSY)
def test_a_kept_layer_is_as_it_was(passes: str) -> None:
    _, plain = plainly(passes)
    changed = done(plain)
    assert changed
    target = changed[-1]
    clean, _ = plainly("clean,merge:ratio=0" if "merge" in passes else "clean")
    graph, report = build(passes, Override(target, keep=True))
    assert target not in done(report)
    mine = [layer for layer in report.layers if layer.name == target]
    assert mine
    assert all(f"kept by match={target}" in layer.reason for layer in mine)
    if mine[0].op != "Add":  # a block has the name of the sum that it ends in
        np.testing.assert_array_equal(weight(graph, target), weight(clean, target))
    if len(changed) > 1:
        assert done(report), "the others are done all the same"


def test_a_layer_is_kept_from_one_pass_alone() -> None:
    conv = Override(op="Conv", skips=("svd",))
    assert not convolutions(build("svd:ratio=0.5", conv)[1])
    assert convolutions(build("prune:ratio=0.5", conv)[1])


def detail(report: Report, name: str, key: str) -> object:
    return next(layer.detail[key] for layer in report.layers if layer.name == name and layer.outcome is Outcome.DONE)


def test_a_layer_has_a_ratio_of_its_own() -> None:
    _, plain = plainly("prune:ratio=0.5")
    name = done(plain)[0]
    for scope in ("layer", "global"):
        _, report = build(f"prune:ratio=0.5:scope={scope}", Override(name, passes={"prune": {"ratio": 0.8}}))
        assert detail(report, name, "sparsity") == pytest.approx(0.8, abs=0.02)
    _, plain = plainly("svd:ratio=0.6")
    name = done(plain)[-1]
    _, report = build("svd:ratio=0.6", Override(name, passes={"svd": {"ratio": 0.3, "form": "channel"}}))
    assert float(str(detail(report, name, "macs"))) <= 0.3
    assert detail(report, name, "form") == "channel"


def test_a_group_of_channels_has_a_ratio_of_its_own() -> None:
    _, plain = plainly("prune:kind=channels:ratio=0.25:scope=layer")
    name = done(plain)[0]
    _, report = build("prune:kind=channels:ratio=0.25", Override(name, passes={"prune": {"ratio": 0.5}}))
    assert int(str(detail(report, name, "kept"))) < int(str(detail(plain, name, "kept")))


def test_a_layer_has_a_rank_of_its_own() -> None:
    _, plain = plainly("depthwise:rank=1")
    name = done(plain)[0]
    _, report = build("depthwise:rank=1", Override(name, passes={"depthwise": {"rank": 2}}))
    assert (detail(plain, name, "rank"), detail(report, name, "rank")) == (1, 2)


def test_a_layer_has_one_scale_alone() -> None:
    _, plain = plainly("quant")
    name = done(plain)[0]
    graph, _ = build("quant", Override(name, passes={"quant": {"per_channel": False}}))

    def scale(graph: Graph) -> int:
        node = next(n for n in graph if n.name == name)
        weight = node.inputs[1]
        assert weight is not None
        assert weight.producer is not None
        value = weight.producer.inputs[1]
        assert value is not None
        return np.asarray(value.numpy()).size

    assert scale(graph) == 1
    assert scale(plainly("quant")[0]) > 1


def test_later_overrides_win_and_patterns_see_where_a_layer_came_from() -> None:
    overrides = (Override("*", passes={"prune": {"ratio": 0.9}}), Override(op="Conv", passes={"prune": {"ratio": 0.2}}))
    _, report = build("prune:ratio=0.5", *overrides)
    conv = convolutions(report)
    assert conv
    assert all(x.detail["sparsity"] == pytest.approx(0.2, abs=0.03) for x in conv)
    _, plain = plainly("svd:ratio=0.5")
    name = done(plain)[0]
    _, report = build("svd:ratio=0.5,quant", Override(name, skips=("quant",)))
    kept = [x for x in report.layers if "kept by" in x.reason]
    assert len(kept) == 2, "both factors of it"
