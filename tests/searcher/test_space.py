"""The database: what a pick is without what is moot, what it costs, and what a layer loses in other forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from searched import search

import optc
from optc.compiler import read
from optc.passes.base import Outcome, Override
from optc.searcher.judge import Judged
from optc.searcher.loop import Loop
from optc.searcher.plan import PASSES, Plan, plan_of, with_lesson
from optc.searcher.space import FLOAT, FORMS, LayerCost, Meter, Option, Pick, Site, Space

LAYERS = ("a", "b")


def forms(losses: tuple[float, float, float]) -> tuple[Option, ...]:
    """A layer's forms among integer ones."""
    words = ("int8", "none", "dynamic")
    return tuple(
        Option(word, "activations", {"quant": {"activations": word}}, loss, time=FORMS[word])
        for word, loss in zip(words, losses, strict=True)
    )


def space() -> Space:
    """Two layers of equal costs: each has ranks, bits and forms, and both are a block that can go, or be another."""
    sites = []
    for name in LAYERS:
        reach = {name: (1.0,)}
        half = Option("svd", "svd", {"svd": {"ratio": 0.5}}, 1e-3, macs=0.5, params=0.5, time=0.5)
        bits = [
            Option(f"int{b}", "bits", {"quant": {"weights": f"int{b}"}}, 4.0**-b, bits=b, forms=forms_of)
            for b, forms_of in ((8, ()), (4, ("int8", "none")), (3, ("int8",)))
        ]
        sites.append(Site(name, "structure", name, (Option("keep"), half), reach))
        sites.append(Site(name, "bits", name, tuple(bits), reach))
        sites.append(Site(name, "activations", name, forms((1e-2, 0.0, 1e-3)), reach))
    both = dict.fromkeys(LAYERS, (1.0,))
    gone = Option("remove", "blocks", {"prune": {"remove": True}}, 0.5, kept=0.0)
    other = Option("conv", "replace", {"replace": {"force": True}}, 0.1, macs=0.25, params=0.25, time=0.25)
    sites.append(Site("sum", "blocks", "sum", (Option("keep"), gone), both))
    sites.append(Site("b", "replacement", "b", (Option("keep"), other), both))
    less = Option("channels 4", "channels", {"prune": {"ratio": 0.5}}, 0.01, kept=0.5)
    sites.append(Site("a", "channels", "a", (Option("keep"), less), both))
    layers = tuple(LayerCost(name, name, 100.0, 10.0, 1e-3) for name in LAYERS)
    return Space(layers, tuple(sites), (FLOAT, "int8", "none"), 200.0, 20.0, 80.0)


def pick(form: str, **places: int) -> Pick:
    """A pick by site and kind, as `a_bits=1`."""
    whole = space()
    return Pick(form, tuple(places.get(f"{site.name}_{site.kind}", 0) for site in whole.sites))


def chosen(one: Pick) -> set[str]:
    """The options that a pick takes, of those that change something."""
    sites = space().chosen(one)
    return {f"{site.name} {option.word}" for site, option in sites if option.changes and option.word != "int8"}


def test_layers_of_another_block_have_no_structure_of_their_own() -> None:
    one = space().within(pick(FLOAT, a_structure=1, b_structure=1, a_channels=1, b_replacement=1))
    assert chosen(one) == {"b conv"}
    assert Meter(space()).costs(one)["macs"] == pytest.approx(0.25)


def test_layers_that_are_gone_want_nothing() -> None:
    one = space().within(pick("int8", a_structure=1, a_bits=2, b_activations=1, b_replacement=1, sum_blocks=1))
    assert chosen(one) == {"sum remove"}
    assert plan_of(space(), one).passes == "prune:kind=blocks:ratio=0,quant"


def test_weights_that_are_stored_alone_have_no_three_bits() -> None:
    one = space().within(pick("int8", a_bits=2, a_activations=1, b_bits=2))
    assert chosen(one) == {"a int4", "a none", "b int3"}


def test_a_layer_of_floats_stores_a_scale_for_each_block_of_its_weights() -> None:
    meter = Meter(space())
    few, mixed = pick("int8", a_bits=1), pick("int8", a_bits=1, a_activations=1)
    assert 80 * (meter.costs(mixed)["size"] - meter.costs(few)["size"]) == pytest.approx(10.0 * 0.5 / 8)


def test_bits_are_offered_in_the_forms_that_have_them(tmp_path: Path) -> None:
    """Stored alone, weights have four bits where the reduction is made of blocks; no ranges are found for convolutions
    as the model runs."""
    spaces = []
    learn = Loop._learn

    def seen(self: Loop, one: Judged) -> None:
        spaces.append(self.task.space if self.task is not None else None)
        learn(self, one)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "_learn", seen)
        search(tmp_path, "size=35%", candidates=6)
    whole = spaces[-1]
    assert whole is not None
    bits = {site.name: number for number, site in enumerate(whole.sites) if site.kind == "bits"}
    assert bits
    for number in bits.values():
        assert [option.bits for option in whole.options(number, "int8")] == [8, 4, 3, 2]
        assert [option.bits for option in whole.options(number, "none")] in ([8], [8, 4])
    dynamic = [len(whole.options(number, "dynamic")) for number in bits.values()]
    assert sorted(dynamic) == [*[1] * (len(bits) - 1), 4], "one layer is a product"


@pytest.mark.parametrize("form", [FLOAT, "none"])
def test_layers_have_forms_of_their_own_among_integers_alone(form: str) -> None:
    one = space().within(pick(form, a_activations=1))
    assert one.at == space().pick(form).at
    assert "activations" not in space().losses(one)


def test_a_layer_of_floats_loses_nothing_and_takes_its_time() -> None:
    meter, whole = Meter(space()), space()
    integers, mixed = pick("int8"), pick("int8", a_activations=1)
    assert whole.losses(integers)["activations"] == pytest.approx(2e-2)
    assert whole.losses(mixed)["activations"] == pytest.approx(1e-2)
    assert meter.costs(integers)["latency"] == pytest.approx(FORMS["int8"])
    assert meter.costs(mixed)["latency"] == pytest.approx((FORMS["int8"] + 1.0) / 2)
    assert meter.costs(mixed)["size"] == meter.costs(integers)["size"]


def test_forms_are_measured(tmp_path_factory: pytest.TempPathFactory) -> None:
    report = search(tmp_path_factory.mktemp("forms"), "size=35%", candidates=1).report
    sites = [site for site in report.sites if site.kind == "activations"]
    assert len(sites) == 8
    losses = np.array([[option.loss for option in site.options] for site in sites])
    integers, stored, dynamic = losses.T
    assert (integers > stored).all()
    assert (dynamic > stored).all()
    assert dynamic.sum() < integers.sum(), "a grid a sample is finer than one for all"


@pytest.mark.parametrize("bits", [(4,), (3,), (2,), (3, 4, 8)])
def test_the_bytes_of_codes_are_those_of_the_file(bits: tuple[int, ...]) -> None:
    """Codes of three and two bits are stored so from some weights on, and what decodes codes takes bytes, too."""
    layers = [node for node in read("zoo:digits_resnet") if node.op in ("Conv", "Gemm")]
    sites, costs = [], []
    for node in layers:
        options = tuple(Option(f"int{b}", "bits", {"quant": {"weights": f"int{b}"}}, bits=b) for b in (8, 4, 3, 2))
        sites.append(Site(node.name, "bits", node.name, options, {node.name: (1.0,)}))
        weight = node.inputs[1]
        assert weight is not None
        costs.append(LayerCost(node.name, node.name, 1.0, float(np.prod(weight.shape or ())), 0.0))
    whole = Space(tuple(costs), tuple(sites), (FLOAT, "int8"), 1.0, 1.0, 1e6)
    picks = [
        Pick("int8", tuple((8, 4, 3, 2).index(each[i % len(each)]) for i in range(len(sites)))) for each in ((8,), bits)
    ]
    stored = []
    for one in picks:
        plan = plan_of(whole, one)
        options = {"overrides": plan.overrides, "guard": False, "check": False, "threads": 1, "samples": 32}
        stored.append(optc.compile("zoo:digits_resnet", plan.passes, **options).report.after.bytes)
    before, after = (1e6 * Meter(whole).costs(one)["size"] for one in picks)
    assert stored[0] + after - before == pytest.approx(stored[1], rel=0.02)


FEW_BITS = (Override("a", passes={"quant": {"weights": "int3"}}),)


@pytest.mark.parametrize(
    ("plan", "passes"),
    [
        (Plan("svd:ratio=1", ()), "svd:ratio=1,distill:minutes=4"),
        (Plan("svd:ratio=1,quant", ()), "svd:ratio=1,distill:minutes=4,quant"),
        (Plan("svd:ratio=1,quant", FEW_BITS), "svd:ratio=1,distill:minutes=2,quant,distill:minutes=2"),
        (Plan("quant:activations=none", FEW_BITS), "quant:activations=none,distill:minutes=4"),
        (Plan("quant:weights=int4", ()), "quant:weights=int4,distill:minutes=4"),
        (Plan("clean", ()), "clean"),
    ],
)
def test_a_plan_is_taught_where_it_lost_most(plan: Plan, passes: str) -> None:
    assert with_lesson(plan, 4.0).passes == passes


@pytest.mark.parametrize("family", ["svd", "depthwise", "replace", "blocks"])
def test_a_pass_of_structure_changes_nothing_but_what_it_is_asked_for(family: str) -> None:
    """What a layer was not picked for would be neither in the predicted loss nor in the predicted cost."""
    build = optc.compile("zoo:digits_resnet", PASSES[family], guard=False, check=False, threads=1, samples=64)
    assert build.report.after.macs == build.report.before.macs
    assert not any(layer.outcome is Outcome.DONE for step in build.report.passes[1:] for layer in step.report.layers)
