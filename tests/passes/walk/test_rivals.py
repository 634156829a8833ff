"""svd and depthwise in one pipeline: each layer takes the better of them, in either order, and what lost is told."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest

from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.passes.base import Context, Layer, Outcome, Override, Report, TargetFacts
from optc.passes.cached import PassCache
from optc.passes.depthwise import Depthwise
from optc.passes.pipeline import Pipeline
from optc.passes.runner import run
from optc.passes.svd import Svd
from optc.runtime.sources import load_samples
from optc.storage.store import Store

FIRST = "svd:ratio=0.5:align=1"
SECOND = "depthwise:rank=2"
TOLD = re.compile(r"(\w+) \(error ([\d.e-]+) at ([\d.]+) of its MACs\)")
BOTH = [f"{FIRST},{SECOND}", f"{SECOND},{FIRST}"]


def net() -> Graph:
    """A stem, a layer that is separable, one of rank 3 across its outputs, and one that is neither."""
    rng = np.random.default_rng(0)
    separable = np.einsum("ni,ik->nik", rng.normal(size=(16, 16)), rng.normal(size=(16, 9)))
    thin = np.tensordot(rng.normal(size=(16, 3)), rng.normal(size=(3, 16, 9)), 1)
    graph = Graph("net", opsets={"": 17})
    value = graph.add_input("x", TensorType(DType.FLOAT, ("N", 8, 8, 8)))
    for name, weight in (
        ("stem", rng.normal(size=(16, 8, 9))),
        ("separable", separable),
        ("thin", thin),
        ("dense", rng.normal(size=(16, 16, 9))),
    ):
        data = (weight / np.linalg.norm(weight) * 4.0).astype(np.float32).reshape(*weight.shape[:2], 3, 3)
        inputs = [value, graph.constant(data), graph.constant(np.full(16, 0.1, dtype=np.float32))]
        conv = graph.add("Conv", inputs, {"pads": [1] * 4}, outputs=[name], name=name).output
        value = graph.add("Relu", [conv], outputs=[f"{name}.relu"]).output
    graph.add_output(value, "y", TensorType(DType.FLOAT, None))
    infer(graph)
    return graph


def build(passes: str, *overrides: Override) -> tuple[Graph, list[Report]]:
    graph = net()
    data = np.random.default_rng(1).normal(size=(40, 8, 8, 8)).astype(np.float32)
    facts = TargetFacts("onnx", measurable=False)
    ctx = Context(facts, fit=load_samples({"x": data}, graph), overrides=overrides, threads=1)
    return graph, run(Pipeline.parse(passes), graph, ctx)


built = functools.cache(build)


def layers(report: Report) -> dict[str, Layer]:
    return {layer.name: layer for layer in report.layers}


def makers(graph: Graph) -> dict[str, set[str]]:
    """The passes that made what stands for each layer."""
    passes_of: dict[str, set[str]] = {}
    for node in graph:
        if node.op == "Conv":
            for name in node.origin.nodes or (node.name,):
                passes_of.setdefault(name.split(".")[0], set()).update(node.origin.passes)
    return passes_of


@pytest.mark.parametrize("passes", BOTH)
def test_each_layer_takes_the_better_form(passes: str) -> None:
    graph, reports = built(passes)
    names = makers(graph)
    assert names["separable"] == {"depthwise"}
    assert names["thin"] == {"svd"}
    assert len(names["dense"]) == 1, "the form of one pass is not changed by the other"
    first, second = reports
    lost = [layer for layer in first.layers if "does this better" in layer.reason]
    assert lost
    for layer in lost:
        assert layers(second)[layer.name].outcome is Outcome.DONE
        better, worse = (float(x) for x in re.findall(r"error ([\d.e-]+) at", layer.reason))
        assert better < worse


@pytest.mark.parametrize("passes", BOTH)
def test_what_is_done_tells_what_lost(passes: str) -> None:
    _, (first, second) = built(passes)
    done = [layer for layer in first.layers if layer.outcome is Outcome.DONE]
    compared = [layer for layer in done if "over" in layer.detail]
    for layer in compared:
        match = TOLD.fullmatch(str(layer.detail["over"]))
        assert match is not None
        rival, error, share = match.groups()
        assert rival != first.spec.split(":")[0]
        assert float(error) >= 0.999 * float(layer.detail["error"])
        assert float(share) <= 0.5
    assert compared
    word = first.spec.split(":")[0]
    for layer in done:
        parts = [one for one in second.layers if one.name.startswith(f"{layer.name}.")]
        assert [one.reason for one in parts] == [f"{word} made it, and a layer takes one of the two"] * len(parts)
        assert parts


def test_by_error_a_layer_is_left_for_the_one_that_answers_better() -> None:
    _, (first, second) = build("svd:error=0.02:align=1,depthwise:error=0.02")
    assert "depthwise does this better" in layers(first)["separable"].reason
    assert layers(second)["separable"].outcome is Outcome.DONE
    assert layers(first)["thin"].outcome is Outcome.DONE


@pytest.mark.parametrize("alone", [FIRST, SECOND])
def test_a_pass_alone_is_as_it_was(alone: str) -> None:
    _, (report,) = build(alone)
    assert not any("better" in layer.reason or "over" in layer.detail for layer in report.layers)
    assert {"separable", "thin", "dense"} <= {x.name for x in report.layers if x.outcome is Outcome.DONE}


def test_a_layer_that_the_rival_must_not_change_is_not_left_for_it() -> None:
    _, (first, _) = build(BOTH[0], Override("separable", skips=("depthwise",)))
    assert layers(first)["separable"].outcome is Outcome.DONE
    assert "over" not in layers(first)["separable"].detail


def test_offers_keep_to_the_options_of_the_rival() -> None:
    _, (first, _) = build(f"{FIRST},depthwise:rank=9")
    assert layers(first)["separable"].outcome is Outcome.DONE, "all taps cost more than half"
    _, (first, _) = build(f"{FIRST},depthwise:error=0.000001")
    assert layers(first)["dense"].outcome is Outcome.DONE, "no rank loses so little"
    _, (first, _) = build("depthwise:rank=2,svd:error=0.000001:align=1")
    assert layers(first)["dense"].outcome is Outcome.DONE


def test_a_finished_pass_is_known_by_its_rivals_and_by_no_other_pass(tmp_path: object) -> None:
    class Keys(PassCache):
        def key(self, one, before, teacher, ctx, guard):  # type: ignore[no-untyped-def]
            keys.append(super().key(one, before, teacher, ctx, guard))
            return keys[-1]

    def first_key(passes: str) -> str | None:
        keys.clear()
        graph = net()
        data = np.random.default_rng(1).normal(size=(32, 8, 8, 8)).astype(np.float32)
        ctx = Context(TargetFacts("onnx", measurable=False), fit=load_samples({"x": data}, graph), threads=1)
        run(Pipeline.parse(passes), graph, ctx, cache=Keys(Store(str(tmp_path))))
        return keys[0]

    keys: list[str | None] = []
    alone = first_key("depthwise:rank=1")
    assert alone is not None
    assert first_key("depthwise:rank=1,clean") == alone
    assert len({alone, first_key("depthwise:rank=1,svd:ratio=0.5"), first_key("depthwise:rank=1,svd:ratio=0.4")}) == 3


def test_rivals_are_named_both_ways() -> None:
    assert Svd.rivals == (Depthwise.name,)
    assert Depthwise.rivals == (Svd.name,)
