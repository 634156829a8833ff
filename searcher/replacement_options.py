"""Blocks of another kind: each a site whose options are the forms that can stand there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from ..errors import DataError
from ..ir.cost import cost
from ..ir.graph import Graph, Node
from ..passes.base import Context, Skip
from ..passes.replace import Replace
from ..passes.replace.forms import fitted
from ..passes.replace.kind import Fitted, Replacements, cost_left, finished, own_options
from ..passes.replace.places import Place, places
from ..passes.replace.samples import Taken, taken
from ..passes.structure.order import EditJudge, start, tried
from ..passes.structure.saving import Saving
from ..runtime.sizes import sizes
from .layer_options import LEAST
from .space import Option, Setting

WAYS: tuple[Mapping[str, Setting], ...] = (
    {"form": "conv"},
    {"form": "inverted", "expansion": 4.0},
    {"form": "inverted", "expansion": 2.0},
    {"form": "separable"},
    {"form": "lowrank", "rank": 0.25},
)
"""The forms that are offered, by the options that `replace` is given."""
WORTH = 0.01
"""The least share of the work or the weights that a block has to have to be tried."""
STEPS = 25
"""Of training that a form is given here, which a candidate trains longer: enough to tell what it may become."""
_FULL = 0.9
"""The share of both the work and the weights from which on a form is no option."""


def replaceable(graph: Graph, ctx: Context) -> dict[str, Place]:
    """The places by name whose block is large enough to be worth a trial, and that nothing keeps."""
    total = cost(graph, sizes(graph, ctx.fit))
    named: dict[str, Place] = {}
    for place in places(graph):
        try:
            own_options(Replace(), place, ctx)
        except Skip:
            continue
        macs, params = (sum(getattr(total.nodes[node], of) for node in place.nodes) for of in ("macs", "params"))
        if max(macs / max(total.macs, 1), params / max(total.params, 1)) >= WORTH and place.node.label not in named:
            named[place.node.label] = place
    return named


def replacement_options(
    graph: Graph,
    ctx: Context,
    named: Mapping[str, Place],
    deadline: float,
    done: Callable[[str, tuple[Option, ...]], None],
    *,
    timed: bool,
) -> None:
    """Fit the forms of each of `named` until the `deadline` (`time.monotonic`); `done` is handed what each place can
    be."""
    judge = EditJudge(graph, ctx)
    with ctx.progress.task("survey of replacements", len(named)) as advance:
        for name, place in named.items():
            if time.monotonic() > deadline:
                return
            done(name, _options(graph, ctx, place, judge, timed=timed))
            advance(1)


def _options(graph: Graph, ctx: Context, place: Place, judge: EditJudge, *, timed: bool) -> tuple[Option, ...]:
    options: list[Option] = []
    pairs = taken(graph, place.begin, place.end, ctx)
    for way in WAYS:
        try:
            one = _fitted(place, pairs, way, ctx)
        except (Skip, DataError):
            continue
        if one is None:
            continue
        kind = Replacements([one])
        trial = start(kind, graph, Saving.in_graph(graph, ctx, "macs"), kind.named(graph), {}, judge)
        (name,) = trial.at
        outcome = tried(trial, (name,), judge)
        if outcome is None:
            continue
        macs, params = (cost_left(place, one.form, one.body, pairs, ctx, of) for of in ("macs", "params"))
        share = cost_left(place, one.form, one.body, pairs, ctx, "latency") if timed else macs
        words = " ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in way.values())
        changes = {"replace": {"force": True, **way}}
        loss = max(outcome[1].loss, LEAST)
        options.append(Option(words, "replace", changes, loss, macs=macs, params=params, time=share))
    return tuple(options)


def _fitted(place: Place, pairs: Taken, way: Mapping[str, Setting], ctx: Context) -> Fitted | None:
    """What stands for a block in one way; `None` where it saves nothing."""
    options = Replace(steps=STEPS, **way)  # type: ignore[arg-type]
    body = fitted(options.form, place, pairs, options, ctx)
    macs, params = (cost_left(place, options.form, body, pairs, ctx, of) for of in ("macs", "params"))
    if min(macs, params) > _FULL:
        return None
    return finished(place, options.form, body, pairs, options, ctx, macs)


def inside(place: Place, names: Mapping[Node, str]) -> dict[str, tuple[float, ...]]:
    """The layers of a block, whole."""
    return {names[node]: (1.0,) for node in place.nodes if node in names}
