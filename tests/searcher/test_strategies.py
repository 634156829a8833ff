"""The strategies on a database whose truth is known: all within the caps, and how near each comes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import cast

import numpy as np
import pytest

from optc.compiler.options import Options
from optc.passes.base import Progress
from optc.passes.pipeline import Pipeline
from optc.passes.quant import Quant
from optc.report.budget import Budget
from optc.searcher.judge import Figures, Judge, Judged, Waiting
from optc.searcher.loop import Loop
from optc.searcher.order import Wanted
from optc.searcher.pipelines import Single, common, defaults, singles
from optc.searcher.plan import Plan, kind_of, plan_of
from optc.searcher.space import FLOAT, FORMS, LayerCost, Meter, Metric, Option, Pick, Site, Space
from optc.searcher.strategies import STRATEGIES, knapsack, strategy
from optc.searcher.strategies.evolution import crowding, fronts
from optc.searcher.surrogate import Surrogate, front
from optc.searcher.task import Aim, Task

WEIGHTS = {"svd": 0.4, "bits": 0.2, "channels": 1.7}
"""What the losses of a family really come to, as shares of what the database says."""
PROPOSALS = 4
REMOVE = {"prune": {"remove": True}}


def space(count: int = 6) -> Space:
    random = np.random.default_rng(0)
    layers, sites = [], []
    for i in range(count):
        macs, weights = float(random.integers(1, 50)) * 1e5, float(random.integers(1, 50)) * 1e3
        layers.append(LayerCost(f"l{i}", f"l{i}", macs, weights, 1e-4))
        reach = {f"l{i}": (1.0,)}
        scale = 10 ** random.uniform(-4, -1)
        ranks = [
            Option(f"svd {q}", "svd", {"svd": {"ratio": q}}, loss=scale * (1 - q) ** 2, macs=q, params=q, time=q)
            for q in (0.75, 0.5, 0.3)
        ]
        sites.append(Site(f"l{i}", "structure", f"l{i}", (Option("keep"), *ranks), reach))
        scale = 10 ** random.uniform(-4, -1)
        bits = [Option(f"int{b}", "bits", loss=scale * 4.0 ** (3 - b), bits=b) for b in (8, 4, 3)]
        sites.append(Site(f"l{i}", "bits", f"l{i}", tuple(bits), reach))
        if i % 3 == 0 and i + 1 < count:
            counts = [Option(f"channels {k}", "channels", loss=scale * (1 - k), kept=k) for k in (0.75, 0.5)]
            both = {f"l{i}": (1.0,), f"l{i + 1}": (1.0,)}
            sites.append(Site(f"g{i}", "channels", f"g{i}", (Option("keep"), *counts), both))
    macs, weights = sum(one.macs for one in layers), sum(one.params for one in layers)
    return Space(tuple(layers), tuple(sites), (FLOAT, "int8"), macs, weights, 4 * weights)


def task(budget: str) -> Task:
    whole = space()
    aim = Aim.of(Budget.parse(budget), {"macs": 1.0, "params": 1.0, "size": 1.0}, timed=False)
    return Task(whole, aim, np.random.default_rng(0), Surrogate(whole))


def judged(one: Task, pick: Pick) -> Judged:
    costs = Meter(one.space).costs(pick)
    loss = sum(WEIGHTS[family] * total for family, total in one.space.losses(pick).items())
    loss += 2e-3 if pick.form != FLOAT else 0.0
    return Judged(pick, False, Plan("", ()), Figures(costs, loss, 1.0, _miss(one, costs), 0.0), "", 0.0)


def searched(name: str, budget: str) -> Judged:
    one = task(budget)
    for form in one.space.forms:
        one.learn(judged(one, one.space.within(one.space.pick(form))))
    for pick in islice(strategy(name)(one), PROPOSALS):
        one.learn(judged(one, one.space.within(pick)))
    assert one.best is not None
    return one.best


def test_every_strategy_keeps_the_budget_and_beats_chance() -> None:
    best = {name: searched(name, "size=10%,macs=80%") for name in STRATEGIES}
    assert {name: one.figures.miss for name, one in best.items()} == dict.fromkeys(STRATEGIES, 0.0)
    for name, one in best.items():
        assert one.figures.loss <= best["random"].figures.loss, name
    assert best["knapsack"].figures.loss <= 1.2 * min(one.figures.loss for one in best.values())


def test_the_knapsack_leaves_a_hopeless_form_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def proposed() -> list[str]:
        one, forms = task("macs=60%"), []
        for pick in islice(strategy("knapsack")(one), 16):
            figures = judged(one, pick).figures
            if pick.form == "int8":
                figures = replace(figures, loss=figures.loss + 5.0)
            forms.append(pick.form)
            one.learn(Judged(pick, False, Plan("", ()), figures, "", 0.0))
        return forms

    few = proposed()
    assert few.count("int8") == knapsack.TRIED
    monkeypatch.setattr(knapsack, "HOPELESS", np.inf)
    many = proposed()
    assert many.count("int8") > 2 * knapsack.TRIED
    assert few.count(FLOAT) >= many.count(FLOAT)


def test_the_prediction_learns_how_losses_add_up() -> None:
    one = task("macs=50%")
    for pick in islice(strategy("random")(one), 12):
        one.learn(judged(one, pick))
    assert one.surrogate.weights["svd"] == pytest.approx(WEIGHTS["svd"], rel=0.3)
    pick = next(strategy("knapsack")(one))
    assert one.surrogate.loss(pick) == pytest.approx(judged(one, pick).figures.loss, rel=0.5)


def test_a_model_of_floats_says_nothing_of_what_bits_lose() -> None:
    """It loses nothing; were its weights taken to have eight bits, bits would be taken to lose nothing, either."""
    one = task("size=10%")
    for form in (FLOAT, "int8"):
        pick = one.space.within(one.space.pick(form))
        figures = replace(judged(one, pick).figures, loss=0.0 if form == FLOAT else 0.01)
        one.learn(Judged(pick, False, Plan("", ()), figures, "", 0.0))
    assert one.space.losses(one.space.pick(FLOAT)) == {}
    assert one.surrogate.weights["bits"] == pytest.approx(1.0, abs=0.1)


def test_what_came_out_dearer_is_not_proposed_again_as_dear() -> None:
    """The model as it is came out as predicted, and tells nothing of half of it."""
    one = task("macs=50%")
    one.learn(judged(one, one.space.within(one.space.pick(FLOAT))))
    proposals = strategy("knapsack")(one)
    missed = 0
    for pick in islice(proposals, 3):
        figures = judged(one, pick).figures
        costs = {metric: cost * (1.06 if cost < 0.9 else 1.0) for metric, cost in figures.costs.items()}
        missed += costs["macs"] > 0.5
        one.learn(Judged(pick, False, Plan("", ()), replace(figures, costs=costs), "", 0.0))
    assert missed == 1


def test_a_cost_that_does_not_vanish_with_the_work_is_met_within_a_few_candidates() -> None:
    """Each node takes time however little it computes: a third of the time is not that of work."""
    whole = task("latency=60%")
    whole.learn(_slow(whole, whole.space.within(whole.space.pick(FLOAT))))
    came = []
    for pick in islice((one for one in strategy("knapsack")(whole) if one.form == FLOAT), 6):
        came.append(_slow(whole, pick))
        whole.learn(came[-1])
    inside = [one.figures.costs["latency"] for one in came if one.figures.met]
    assert len(inside) >= 3
    assert min(inside) > 0.5, "no more was given up than the cap asks for"
    assert max(inside) > 0.58


def _slow(one: Task, pick: Pick) -> Judged:
    figures = judged(one, pick).figures
    costs = {**figures.costs, "latency": 0.33 + 0.67 * figures.costs["latency"]}
    return Judged(pick, False, Plan("", ()), replace(figures, costs=costs, miss=_miss(one, costs)), "", 0.0)


def _miss(one: Task, costs: Mapping[Metric, float]) -> float:
    return sum(max(costs[metric] / cap - 1.0, 0.0) for metric, cap in one.aim.caps.items())


def test_predictions_are_taken_to_be_as_wrong_as_they_lately_were() -> None:
    whole = task("size=10%")
    plain = whole.space.pick("int8")
    few = [
        Pick("int8", tuple(min(i, len(whole.space.options(s, "int8")) - 1) for s in range(len(plain.at))))
        for i in (1, 2)
    ]
    assert whole.surrogate.careful(plain) == whole.surrogate.costs(plain)
    for pick, factor in ((plain, 1.0), (few[0], 1.0), (few[1], 1.1)):
        figures = judged(whole, pick).figures
        costs = {metric: factor * cost for metric, cost in figures.costs.items()}
        whole.learn(Judged(pick, False, Plan("", ()), replace(figures, costs=costs), "", 0.0))
    assert whole.surrogate.margin("macs", "int8") == pytest.approx(0.1, abs=0.01)
    assert whole.surrogate.margin("macs", FLOAT) == 0.0
    assert whole.surrogate.careful(plain)["macs"] > 1.05 * whole.surrogate.costs(plain)["macs"]


def test_floors_alone_are_kept_by_the_smallest() -> None:
    aim = Aim.of(Budget.parse("agreement=98%"), {}, timed=False)
    assert aim.caps == {"size": aim.cap}

    def figures(size: float, *, met: bool) -> Figures:
        return Figures({"size": size}, 0.1, 0.99 if met else 0.9, 0.0 if met else 0.08, 0.0)

    start = aim.cap
    aim.learn(figures(start, met=True))
    assert aim.cap < start
    aim.learn(figures(aim.cap, met=False))
    assert 0.8 * start < aim.cap < start
    assert aim.order(figures(0.2, met=True)) < aim.order(figures(0.3, met=True)) < aim.order(figures(0.1, met=False))


def test_fronts() -> None:
    points = np.array([[1.0, 4.0], [2.0, 2.0], [4.0, 1.0], [3.0, 3.0], [4.0, 4.0]])
    assert fronts(points) == [[0, 1, 2], [3], [4]]
    assert list(np.isinf(crowding(points[:3]))) == [True, False, True]
    pairs = [(float(a), float(b)) for a, b in points]
    assert front(pairs) == [0, 1, 2]


def aim_of(budget: str) -> Aim:
    return Aim.of(Budget.parse(budget), {"macs": 1.0, "size": 1.0, "latency": 1.0}, timed="latency" in budget)


def test_single_pipelines_are_told_a_little_less_than_the_cap() -> None:
    structures = ["svd:ratio=0.49:scope=global", "prune:kind=channels:ratio=0.51", "prune:kind=blocks:ratio=0.51"]
    assert [one.plan.passes for one in singles(aim_of("macs=50%"), FORMS)] == structures
    small = [one.plan.passes for one in singles(aim_of("size=10%"), FORMS)]
    assert "quant:weights=int4" in small
    assert all(Pipeline.parse(text) for text in small)


def test_a_single_pipeline_that_misses_its_cap_is_told_another_share() -> None:
    aim = aim_of("latency=60%")
    svd, channels, *_ = singles(aim, (FLOAT,))
    less = svd.nearer(aim, {"latency": 0.72, "macs": 0.4})
    assert less is not None
    assert less.plan.passes == f"svd:ratio={0.98 * svd.work / 1.2:.3g}:scope=global"
    more = channels.nearer(aim, {"latency": 0.48})
    assert more is not None
    assert more.plan.passes == f"prune:kind=channels:ratio={1 - 0.98 * channels.work / 0.8:.3g}"
    assert svd.nearer(aim, {"latency": 0.59}) is None, "it is near enough"
    assert svd.nearer(aim, {"latency": 0.2}) is None, "with all of the work it is no pruning"
    assert svd.nearer(aim, {}) is None, "nothing was measured"
    assert Single("quant").nearer(aim, {"latency": 0.9}) is None, "it takes no share"


def test_plans_of_one_kind_differ_in_shares_alone() -> None:
    def kind(passes: str) -> tuple[str, ...]:
        return kind_of(Plan(passes, ()))

    assert kind("prune:kind=channels:ratio=0.3,quant") == kind("prune:kind=channels:groups=all:ratio=0,quant")
    several = ["prune:kind=channels:ratio=0.3", "prune:ratio=0.3", "svd:ratio=0.3", "quant", "quant:activations=none"]
    assert len({kind(passes) for passes in several}) == len(several)


@dataclass
class Teacher:
    """What judges by a table: of a lesson the loss of what is taught, by whether it is the long one."""

    losses: dict[str, tuple[float, float, float]]
    begun: list[tuple[str, float]] = field(default_factory=list)

    def begin(self, plan: Plan) -> Waiting:
        (name,) = (one for one in plan.passes.split(",") if not one.startswith("distill"))
        minutes = sum(float(one.rpartition("=")[2]) for one in plan.passes.split(",") if one.startswith("distill"))
        self.begun.append((name, minutes))
        loss = self.losses[name][0 if not minutes else 1 if minutes < 5 else 2]
        return Waiting(lambda: Figures({"macs": 0.5}, loss, 0.9, 0.0, 1.0))

    def remember(self, plan: Plan) -> None:
        """Nothing is kept."""


def test_the_best_of_each_kind_has_a_short_lesson_and_the_best_of_these_a_long_one() -> None:
    svd, channels, fewer = "svd:ratio=0.5", "prune:kind=channels:ratio=0.5", "prune:kind=channels:ratio=0.4"
    judge = Teacher({svd: (0.1, 0.09, 0.08), channels: (0.4, 0.05, 0.02), fewer: (0.5, 0.5, 0.5), "clean": (0, 0, 0)})
    wanted = Wanted(Options(), Budget.parse("macs=50%"), False, (FLOAT,))
    loop = Loop(cast(Judge, judge), wanted, "knapsack", 600.0, 0, Progress(), lambda one, task: None, time.monotonic())
    task = loop.task = Task(space(1), aim_of("macs=50%"), np.random.default_rng(0), Surrogate(space(1)))
    for passes in (svd, channels, fewer):
        task.learn(Judged(None, False, Plan(passes, ()), judge.begin(Plan(passes, ())).figures(), "single", 0.0))
    judge.begun.clear()
    loop._teach(task)
    assert [name for name, _ in judge.begun] == [svd, channels, channels]
    short, other, long = (minutes for _, minutes in judge.begun)
    assert short == pytest.approx(1.0, abs=0.05)
    assert other == pytest.approx(1.0, abs=0.05)
    assert long > 9
    best = task.best
    assert best is not None
    assert (best.plan.passes.split(",")[0], best.taught, best.figures.loss) == (channels, True, 0.02)


def test_what_lies_in_a_block_that_goes_is_asked_for_nothing() -> None:
    whole = space(3)
    block = Site(
        "sum", "blocks", "sum", (Option("keep"), Option("remove", "blocks", REMOVE, 0.1, kept=0.0)), {"l1": (1.0,)}
    )
    one = replace(whole, sites=(*whole.sites, block))
    at = [len(site.options) - 1 if site.kind == "structure" else 0 for site in one.sites]
    keeps, goes = Pick(FLOAT, tuple(at)), Pick(FLOAT, (*at[:-1], 1))
    assert Meter(one).costs(goes)["macs"] < Meter(one).costs(keeps)["macs"]
    plan = plan_of(one, goes)
    assert plan.passes.split(",")[0] == "prune:kind=blocks:ratio=0"
    assert {override.match for override in plan.overrides} == {"l0", "l2", "sum"}
    assert "blocks" not in plan_of(one, keeps).passes


def test_pipelines_on_their_defaults_are_candidates_of_every_search() -> None:
    for budget, pipelines in (
        ("latency=50%", ["quant", "prune,svd,quant", "prune:kind=channels,quant"]),
        ("size=30%", ["quant", "prune,svd,quant", "prune:kind=channels,quant"]),
        ("agreement=98%", ["quant", "prune,svd,quant", "prune:kind=channels,quant"]),
        ("macs=50%", ["prune:kind=channels"]),
    ):
        aim = aim_of(budget)
        assert defaults(aim, FORMS) == pipelines
        needed, others = common(aim, FORMS)
        assert [plan.passes for plan in (*needed, *others) if plan.guard] == pipelines
        assert any(plan.guard for plan in needed) == (len(pipelines) > 1)


def test_what_first_keeps_tight_caps_comes_first() -> None:
    assert common(aim_of("size=30%"), FORMS)[0][0].passes == "quant"
    first, others = common(aim_of("size=10%"), FORMS)
    assert first[0].passes == "quant:weights=int4"
    assert not any(plan.guard for plan in (*first, *others)), "eight bits are a quarter"
    assert common(aim_of("macs=50%"), FORMS)[0][0].passes == "svd:ratio=0.49:scope=global"
    assert common(aim_of("macs=50%,size=60%"), FORMS)[0][0].passes == "svd:ratio=0.49:scope=global,quant"


@pytest.mark.parametrize("forms", [(FLOAT,), ("none",), ("int8",), (FLOAT, "dynamic")])
@pytest.mark.parametrize("budget", ["macs=50%", "size=20%", "latency=50%", "agreement=98%"])
def test_known_pipelines_take_no_form_that_is_not_wanted(forms: tuple[str, ...], budget: str) -> None:
    plans = [plan for some in common(aim_of(budget), forms) for plan in some]
    for plan in plans:
        codes = [one for one in Pipeline.parse(plan.passes) if isinstance(one, Quant)]
        assert [one.activations for one in codes] in (
            [[form] for form in forms if form != FLOAT] + [[]] * (FLOAT in forms)
        )
