"""The driver of all lossy passes that change layers one after the other.

A pass is its hooks (`Layerwise`): which layers stay, which form a layer takes (`choose`), what dense weights that form
stands for (`dense`), how it is fitted anew to another target (`refit`), and how it is put in the layer's place
(`write`). The driver does the rest, once for all of them: it keeps what the user keeps and what a rival has made,
spreads a budget over the layers where the pass has one (`share`, `candidates`), walks, settles what stays, eases what a
saturating activation forgives, leaves to a rival what that does better, and reports.

`Layerwise.run` is a whole pass; `rewrite` is the walk alone, for one that knows its layers and reports in its own way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar, cast

from ...errors import BudgetMissed
from ..base import Context, Detail, Pass, PassT, Report, Skip
from .allocate import knapsack
from .bodies import body_layers, white_step
from .choice import Choice
from .glance import CLEARLY, glance
from .layer_pass import LayerPass
from .layer_time import slower, time_ratio
from .linear import Linear, too_small
from .rivals import made_by_rivals, outdo
from .saturation import eased
from .target import Array, LayerTarget
from .tolerance import loosest
from .walk import BATCH, ROWS, Step, thin_note, walk, walkable

if TYPE_CHECKING:
    from ...ir.graph import Graph

Form = TypeVar("Form")
Options = TypeVar("Options")

FEW = 8192
"""Rows that are enough where a layer loses no more than a small share of its answer: there is little to make up for."""

ENOUGH, EACH = 128, 8
"""Samples that are enough there, where they give so many rows for each input of every layer: ResNet-20 pruned within
half a percent of each answer has a KL of .0073 to .0075 so, and of .0076 to .0079 with all of 256."""

READS_INPUT = "it reads the model's input: few weights, and every one of them matters"


class Layerwise(ABC, Generic[Options, Form]):
    """The hooks of one run of a pass with `Options`, whose layers take the form `Form`. `options` given to a hook are
    those of one layer; any hook may raise `Skip` to leave it."""

    rows: int = ROWS
    batch: ClassVar[int] = BATCH
    begins_late: ClassVar[bool] = True
    """Whether the walk begins at the first layer that may change, and ends with the last where none did."""

    def __init__(self, options: Options, ctx: Context) -> None:
        self.options = options
        self.ctx = ctx

    glances: ClassVar[bool] = False
    """Whether layers without any form within the tolerance are told from a few rows, before the walk."""
    sketches: ClassVar[bool] = False
    """Whether `sketch` tells about the weights that a layer would end with."""
    looks_again: ClassVar[bool] = True
    """Whether layers, those that only repair too, are fitted to what a saturating activation after them forgives."""

    @property
    def eases(self) -> bool:
        """Whether a form is refitted to what a saturating activation after the layer forgives."""
        return True

    def stays(self, layer: Linear) -> str:
        """Why the layer is never changed, or "". Layers of too few weights, and those that read the model's input,
        stay whatever this says."""
        return ""

    def tolerance(self, options: Options) -> float | None:
        """The loss allowed in a layer, as a share of its answer's variance; `None` where it goes by something else."""
        return None

    def share(self, options: Options) -> float | None:
        """The share of the cost that is kept and spread over all layers where it loses least; `None` without one."""
        return None

    def candidates(self, step: Step, options: Options) -> Sequence[Choice[Form]]:
        """Ways to make the layer, itself among them, by cost and about their errors: what a budget is spread by."""
        return []

    @abstractmethod
    def choose(self, step: Step, options: Options, allotted: Choice[Form] | None) -> Choice[Form]:
        """The choice that the options ask for, with its form; `allotted` is the one that a budget leaves the layer."""

    def within(self, step: Step, options: Options, most: float, tolerance: float) -> Choice[Form] | None:
        """As a rival: the choice of least error at no more than the share `most` of the layer's MACs, `None` where the
        options allow nothing. `tolerance` is the loss allowed where they name no amount."""
        return None

    def sketch(self, step: Step, options: Options) -> Array:
        """About the weights (groups, n, d) that `choose` would come to, at once. Raises `Skip` as it does."""
        raise TypeError(f"{type(self).__name__} has no sketches")

    @abstractmethod
    def dense(self, form: Form) -> Array:
        """The weights (groups, n, d) that a form stands for; (n, d) where there is one group."""

    def refit(self, layer: Linear, target: LayerTarget, form: Form) -> Form:
        """The form fitted to another target, starting from what it is."""
        raise TypeError(f"{type(self).__name__} eases, and has no way to refit")

    @abstractmethod
    def write(self, layer: Linear, form: Form, bias: Array | None) -> None:
        """Put the form in the layer's place, with the bias (groups * n,) that goes with it; `None` for a layer without
        one."""

    def figures(self, done: Rewritten[Form]) -> dict[str, Detail]:
        """What the report tells of a layer that was changed, besides its error."""
        return {}

    def end(self, layers: Sequence[Linear], report: Report) -> None:
        """Called after the walk with the layers that were changed, in the graph's order."""

    def run(self: Layerwise[PassT, Form], graph: Graph) -> Report:
        """The whole pass, on all layers of `graph`."""
        one, ctx = self.options, self.ctx
        assert isinstance(one, LayerPass)
        if one.unbounded:

            def sketched(error: float) -> float:
                return _sketched(_bounded(one, error).layerwise(ctx), graph)

            return loosest(
                graph, ctx, lambda trial, error: _run(_bounded(one, error).layerwise(ctx), trial),
                sketched if self.sketches else None, lambda reason: _left(self, graph, reason),
            )  # fmt: skip
        return _run(self, graph)

    def timed(self, step: Step, choice: Choice[Form]) -> float | None:
        """How many times as long the form of `choice` takes as the layer; `None` where nothing tells."""
        form = choice.form
        assert form is not None
        sizes = "x".join(f"{size:g}" for size in reversed([*choice.settings.values()]))
        assert isinstance(self.options, Pass)
        word = f"{self.options.name} {choice.kind} {sizes}"
        bias = None if step.layer.bias_place is None else step.target.bias(self.dense(form))
        return time_ratio(step, self.ctx, word, lambda layer: self.write(layer, form, bias))


@dataclass(frozen=True, slots=True)
class Rewritten(Generic[Form]):
    """A layer that was changed: the `choice` as it was made, the `form` that was written, its `error` (a share of the
    answer's variance), and what lost against it (`rivals`)."""

    step: Step
    choice: Choice[Form]
    form: Form
    error: float
    over: dict[str, str]


def _bounded(one: LayerPass, error: float) -> LayerPass:
    changes: dict[str, object] = {"error": error}
    return replace(one, **changes)


def _run(hooks: Layerwise[PassT, Form], graph: Graph) -> Report:
    report, ctx = Report(), hooks.ctx
    inside = body_layers(graph)
    layers = walkable(graph, report, {reader.node for layer in inside for reader in layer.readers})
    own, reasons, kept = _parted(hooks, layers)
    if own and all(hooks.tolerance(options) is not None for options in own.values()):
        hooks.rows = FEW
        out = _hopeless(hooks, graph, own) if hooks.glances else {}
        own = {layer: options for layer, options in own.items() if layer not in out}
        reasons |= out
        hooks.ctx = _with_enough(ctx, own)
    allotted = _allotted(hooks, graph, own, report)
    for layer, reason in reasons.items():
        report.skipped(layer.name, layer.op, reason)
    changed = set()
    for done in rewrite(hooks, graph, layers, own, report, kept=kept, allotted=allotted):
        layer = done.step.layer
        figures = {**hooks.figures(done), "error": round(done.error, 6)}
        if done.choice.time is not None:
            figures["time"] = done.choice.time
        report.done(layer.name, layer.op, **figures, **layer.shared, **done.over)
        changed.add(layer)
    if hooks.ctx is not ctx and hooks.ctx.fit and ctx.fit:
        ctx.forward = hooks.ctx.forward * ctx.fit.count / hooks.ctx.fit.count
    hooks.end([layer for layer in layers if layer in changed], report)
    _change_bodies(hooks, inside, report)
    return report


def _with_enough(ctx: Context, layers: Iterable[Linear]) -> Context:
    """What a pass is given, with no more samples than are enough to fit `layers` where little is lost."""
    fit = ctx.fit
    if fit is None or fit.count <= ENOUGH or not fit.batched:
        return ctx
    enough = all(ENOUGH * _sites(layer) >= EACH * layer.shape[2] for layer in layers)
    return replace(ctx, fit=fit.take(ENOUGH, ctx.seed)) if enough else ctx


def _sites(layer: Linear) -> int:
    """The positions of a layer's output in one sample, 0 where its shape does not tell."""
    shape = (layer.output.shape or (None, None))[1:]
    sizes = [size for size in shape if isinstance(size, int)]
    return layer.sites((1, *sizes))[0] if len(sizes) == len(shape) else 0


def _parted(
    hooks: Layerwise[PassT, Form], layers: Sequence[Linear]
) -> tuple[dict[Linear, PassT], dict[Linear, str], dict[Linear, str]]:
    """The layers that may change, with the options of each; the others, with the reason; those that the user keeps."""
    ctx = hooks.ctx
    kept = {layer: reason for layer in layers if (reason := ctx.kept(hooks.options, layer.node))}
    reasons = _staying(hooks, layers) | made_by_rivals(layers, ctx) | kept
    own = {layer: ctx.options(hooks.options, layer.node) for layer in layers if layer not in reasons}
    return own, reasons, kept


def _sketched(hooks: Layerwise[PassT, Form], graph: Graph) -> float:
    """How far a copy of `graph` agrees with the teacher whose layers are as they are sketched, none of which makes up
    for another; 1 where no layer is, which loses nothing."""
    if not walkable(graph, Report()):
        return 1.0
    ctx, copy = hooks.ctx, graph.clone()
    own, _, _ = _parted(hooks, walkable(copy, Report()))
    written: dict[Linear, tuple[Array, Array | None]] = {}
    for step in glance(copy, ctx, list(own)):
        with suppress(Skip):
            weight = hooks.sketch(step, own[step.layer])
            bias = step.layer.bias()  # what a glance sees is answered without it
            written[step.layer] = weight, None if bias is None else bias + step.target.bias(weight)
    for layer, (weight, bias) in written.items():
        layer.write(weight, bias)
    return ctx.agreement(copy).cautious if written else 1.0


def _left(hooks: Layerwise[PassT, Form], graph: Graph, reason: str) -> Report:
    """The report where no layer is changed, for one `reason` or for its own."""
    report = Report()
    own, reasons, _ = _parted(hooks, walkable(graph, report))
    for layer, why in (reasons | dict.fromkeys(own, reason)).items():
        report.skipped(layer.name, layer.op, why)
    report.notes.append(f"left as it was: {reason}")
    return report


def _change_bodies(hooks: Layerwise[PassT, Form], layers: Sequence[Linear], report: Report) -> None:
    """Change layers inside bodies by their weights alone."""
    small, ctx = too_small(layers), hooks.ctx
    count = 0
    for layer in layers:
        reason = ctx.kept(hooks.options, layer.node) or hooks.stays(layer) or small.get(layer, "")
        try:
            if reason:
                raise Skip(reason)
            done, target = _fitted(hooks, white_step(layer), ctx.options(hooks.options, layer.node), None)
        except Skip as skip:
            report.skipped(layer.name, layer.op, skip.reason)
            continue
        hooks.write(layer, done.form, None if layer.bias_place is None else target.bias(hooks.dense(done.form)))
        figures = {**hooks.figures(done), "error": round(done.error, 6)}
        report.done(layer.name, layer.op, **figures, **layer.shared, **done.over, inputs="not seen")
        count += 1
    if count:
        report.notes.append(f"{count} layer(s) in bodies of control flow changed by their weights alone: inputs unseen")


def _staying(hooks: Layerwise[PassT, Form], layers: Sequence[Linear]) -> dict[Linear, str]:
    """The layers that are left as they are, but for the repair of what the layers before lost, with the reason."""
    small = too_small(layers)
    entries = {layer for layer in layers if layer.source.is_input and not layer.others}
    reasons = {x: hooks.stays(x) or (READS_INPUT if x in entries else small.get(x, "")) for x in layers}
    return {layer: reason for layer, reason in reasons.items() if reason}


def _hopeless(hooks: Layerwise[PassT, Form], graph: Graph, own: Mapping[Linear, PassT]) -> dict[Linear, str]:
    """The layers that even a higher tolerance would leave as they are, by a glance at the unchanged student, with the
    reason."""
    reasons = {}
    for step in glance(graph, hooks.ctx, list(own)):
        options = own[step.layer]
        assert isinstance(options, LayerPass)
        try:
            hooks.choose(step, cast("PassT", _bounded(options, CLEARLY * (hooks.tolerance(options) or 0.0))), None)
        except Skip as skip:
            reasons[step.layer] = skip.reason
    return reasons


def _allotted(
    hooks: Layerwise[PassT, Form], graph: Graph, own: Mapping[Linear, PassT], report: Report
) -> dict[Linear, Choice[Form]]:
    """One choice a layer under the budget of the pass, from the errors of the unchanged student; {} without a budget,
    and, as `report` tells, where the layers cannot save that much together. The share is one of the layers that can
    save anything: the others have no choice.

    Errors are shares of each layer's own answer, summed as they are. Weighing them by what each layer alone does to the
    outputs looks better founded and is worse: layers whose loss the others make up for when nothing else is lost are
    then given almost nothing (ResNet-20 factored to half the MACs: 84.1 % so weighed, 90.2 % plain).
    """
    share = hooks.share(hooks.options)
    layers = [layer for layer, options in own.items() if hooks.share(options) == share]
    if share is None or not layers:
        return {}
    steps = walk(graph, hooks.ctx, layers, rows=FEW, eases=False)
    every = {step.layer: hooks.candidates(step, own[step.layer]) for step in steps}
    curves = {layer: choices for layer, choices in every.items() if len(choices) > 1}
    budget = sum(max(choice.cost for choice in choices) for choices in curves.values()) * share
    try:
        return dict(zip(curves, knapsack(list(curves.values()), budget), strict=True))
    except BudgetMissed:
        report.notes.append(f"the layers together cannot keep {share:g}: each that can has that share of its own")
        return {}


def rewrite(
    hooks: Layerwise[Options, Form],
    graph: Graph,
    layers: Sequence[Linear],
    own: Mapping[Linear, Options],
    report: Report,
    *,
    kept: Container[Linear] = (),
    allotted: Mapping[Linear, Choice[Form]] | None = None,
) -> Iterator[Rewritten[Form]]:
    """Walk over `layers` and change those in `own` (with the options of each), which are yielded once they are written.

    The others take the weights that repair what was lost before them, unless they are `kept`. What is left for a
    reason, and the layers with few rows, are told in `report`.
    """
    thin = 0
    changing = own if hooks.begins_late else None
    for step in walk(
        graph, hooks.ctx, layers, rows=hooks.rows, batch=hooks.batch, report=report, changing=changing,
        eases=hooks.looks_again,
    ):  # fmt: skip
        thin += step.thin
        layer = step.layer
        if layer not in own:
            if layer not in kept:
                step.settle()
            continue
        try:
            done, target = _fitted(hooks, step, own[layer], (allotted or {}).get(layer))
        except Skip as skip:
            step.settle()
            report.skipped(layer.name, layer.op, skip.reason)
            continue
        hooks.write(layer, done.form, None if layer.bias_place is None else target.bias(hooks.dense(done.form)))
        yield done
    if thin:
        report.notes.append(thin_note(thin))


def _fitted(
    hooks: Layerwise[Options, Form], step: Step, options: Options, allotted: Choice[Form] | None
) -> tuple[Rewritten[Form], LayerTarget]:
    """The form that the layer takes, and the target that it was fitted to last."""
    if allotted is not None and allotted.kind == "keep":
        raise Skip("the share it could give is cheaper elsewhere")
    choice = hooks.choose(step, options, allotted)
    assert choice.form is not None
    over = outdo(step, hooks.ctx, choice, hooks.tolerance(options))
    saturation = step.saturation if hooks.eases else None
    refit, once = partial(hooks.refit, step.layer), hooks.tolerance(options) is not None
    form, target = eased(saturation, step.target, choice.form, hooks.dense, refit, once=once)
    return Rewritten(step, choice, form, step.target.error(hooks.dense(form)), over), target


def first_in_time(
    hooks: Layerwise[Options, Form],
    step: Step,
    candidates: Iterable[Choice[Form]],
    fitted: Callable[[Choice[Form]], Choice[Form] | None],
    error: float,
) -> Choice[Form]:
    """The first of `candidates` that, once it is `fitted` (`None`: it loses more than `error`), takes no longer than
    the layer. A kind that was too slow once is not tried again. Raises `Skip` where none is left."""
    slow: dict[str, str] = {}
    for candidate in candidates:
        choice = None if candidate.kind in slow else fitted(candidate)
        if choice is None:
            continue
        ratio = hooks.timed(step, choice)
        if not slower(ratio):
            return replace(choice, time=ratio)
        slow[candidate.kind] = f"{ratio:.2f} times as long as {candidate}"
    if slow:
        raise Skip(f"within an error of {error:g} it would run {' and '.join(slow.values())}")
    raise Skip(f"no rank saves MACs and parameters within an error of {error:g}")
