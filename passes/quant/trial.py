"""Whether a change that keeps the function makes the quantized model answer better: tried, on samples held out.

Equalising channels, turning factors and absorbing means change no answer of the float model, only how well it
quantizes; what they are expected to gain and what they gain are two things. So activations are rounded to grids from a
few samples, all else is computed in floats, and the model is compared with the float one:

    loss = sum over outputs of  KL(teacher || student)    or noise over variance, where an output decides nothing.

A change stays if that loss falls. The float model answers the same throughout, and is asked once.

Weights with a scale a channel are not rounded for it: the walk rounds them so that they add a hundredth to what rounded
activations do, while plain rounding adds ten times as much and would decide alone. Those with one scale a tensor, whose
rounding is what matters, are rounded plainly to 8 bits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...ir.clone import clone
from ...ir.graph import Graph, Node, Value
from ...runtime.kinds import Kind, output_kind
from ...runtime.parallel import imap, threads_each, threads_for
from ..base import Context
from ..walk.linear import Linear
from .activation_functions import activation_functions
from .calibrate import Array, calibrate
from .deciding import deciding
from .layers import find_layers
from .numbers.params import QuantParams, activation_params, limits
from .numbers.ranges import find_range
from .qdq.insertion import Insertion
from .qdq.parameters import encode_weights
from .qdq.placement import place
from .qdq.ramps import laid_through
from .scheme import FREE, Form, Scheme, Schemes, of_copy

if TYPE_CHECKING:
    from ...runtime.samples import Feeds, Samples
    from ...runtime.session import Session
    from ...runtime.sums import OutputAgreement

SAMPLES = 32
BATCH = 2
"""Samples that run at a time: the activations of all of them would take more memory than all else."""
CLEARLY = 0.9
"""The share of a loss that is left where a rule of ranges is clearly better."""
ELEMENTS = 1 << 17
"""Elements of a value that its grid is found by."""
KEPT = 32 << 20
"""Bytes of the float model's answers that are kept; what is beyond is computed anew each time."""


@dataclass(slots=True)
class Trial:
    """Judges changes to one graph. `exact` are the grids that are known beforehand."""

    graph: Graph
    ctx: Context
    schemes: Schemes
    exact: Mapping[Value, QuantParams] = field(default_factory=dict)
    _loss: float | None = None
    _teacher: Session | None = None
    _answers: list[list[Array]] = field(default_factory=list)

    def keeps(self, layers: Mapping[Node, Linear], change: Callable[[], int]) -> int:
        """What `change` returns, how much it changed in the weights and biases of `layers`; 0 where it did not help,
        and then all is as it was."""
        if self.ctx.held_out is None:
            return change()
        if self._loss is None:
            before = {node: node.inputs for node in layers}
            if not (count := change()):
                return 0
            after = {node: node.inputs for node in layers}
            _restore(before)
            self._loss = self._measured()
            _restore(after)
        else:
            before = {node: node.inputs for node in layers}
            if not (count := change()):
                return 0
        loss = self._measured()
        if not loss < self._loss:  # nor where it is no number
            _restore(before)
            return 0
        self._loss = loss
        return count

    def widest(self) -> bool:
        """Whether ranges that cut nothing off answer clearly better than those of least squares, where outputs are more
        than one decision a sample: what a detector finds is rare in every tensor on the way to it."""
        kinds = [output_kind(o.value) for o in self.graph.outputs]
        if self.ctx.held_out is None or all(kind in (Kind.LOGITS, Kind.PROBABILITIES, Kind.DISCRETE) for kind in kinds):
            return False
        if self._loss is None:
            self._loss = self._measured()
        return self._measured("minmax") < CLEARLY * self._loss

    def _measured(self, rule: str = "mse") -> float:
        return sum(output.loss for output in self.results(rule))

    def results(self, rule: str = "mse") -> tuple[OutputAgreement, ...]:
        """How each output agrees with the float model's, with ranges by `rule`."""
        from ...runtime.agreement import AnswerJudge
        from ...runtime.session import Session

        ctx = self.ctx
        assert ctx.fit is not None
        assert ctx.held_out is not None
        copy = self._quantized(ctx.fit.take(SAMPLES, ctx.seed), rule)
        # Left to itself, the runtime would round float weights between codes, with one scale a tensor.
        threads = threads_for(copy, ctx.threads)
        student = Session(copy, threads=threads_each(threads), exact=True, spins=False)
        judge = AnswerJudge(self.graph)
        if self._teacher is None:
            self._teacher = Session(self.graph, threads=threads_each(threads), spins=False)

        def run(item: tuple[int, Feeds]) -> tuple[list[Array], list[Array]]:
            return self._answer(*item), student.run(item[1])

        batches = enumerate(ctx.held_out.take(SAMPLES, ctx.seed).batches(1 if judge.picked else BATCH))
        for number, (answers, student_answers) in enumerate(imap(run, batches, threads)):
            self._keep(number, answers)
            judge.add(answers, student_answers)
        return judge.results()

    def _answer(self, number: int, feeds: Feeds) -> list[Array]:
        """What the float model answers to batch `number`."""
        assert self._teacher is not None
        return self._answers[number] if number < len(self._answers) else self._teacher.run(feeds)

    def _keep(self, number: int, answers: list[Array]) -> None:
        size = sum(getattr(a, "nbytes", KEPT) for batch in (*self._answers, answers) for a in batch)
        if number == len(self._answers) and size <= KEPT:
            self._answers.append(answers)

    def _quantized(self, samples: Samples, rule: str) -> Graph:
        twins: dict[Value, Value] = {}
        copy = clone(self.graph, twins)
        schemes = of_copy(self.schemes, self.graph, copy)
        layers = find_layers(copy, schemes, Form.INTEGER)[0]
        plan = place(copy, layers, schemes)
        sources = plan.sources()
        coarse = [layer for node, layer in layers.items() if not schemes.get(node, FREE).per_channel]
        ctx = dataclasses.replace(self.ctx, fit=samples)
        seen = calibrate(copy, [v for group in sources.values() for v in group], coarse, ctx, elements=ELEMENTS)
        dtype = self.ctx.target.activation_dtype
        low, high = limits(dtype)
        params_of: dict[Value, QuantParams] = {}
        rules, through, laid = deciding(copy, plan, ctx), activation_functions(copy, plan), plan.laid()
        for group, values in sources.items():
            merged = seen.histograms[values[0]]
            for value in values[1:]:
                merged.merge(seen.histograms[value])
            bounds = plan.ends(group)
            ends = bounds or find_range(merged, rules.get(group, rule), high - low + 1, through=through.get(group))
            params_of[group] = laid_through(activation_params(*ends, dtype), laid.get(group, ()))
        params_of |= {twins[value]: params for value, params in self.exact.items()}
        insertion = Insertion(copy, plan, params_of, dtype)
        insertion.activations()
        insertion.constants()
        facts = dataclasses.replace(ctx.target, saturating_int8=False)
        eight = {layer.node: Scheme(Form.INTEGER, per_channel=False) for layer in coarse}
        encode_weights(insertion, coarse, seen.energy, facts, eight)
        copy.sweep()
        copy.sort()
        return copy


def _restore(inputs: Mapping[Node, tuple[Value | None, ...]]) -> None:
    for node, values in inputs.items():
        for index, value in enumerate(values):
            if value is not None and (index >= len(node.inputs) or node.inputs[index] is not value):
                node.set_input(index, value)
        for index in range(len(values), len(node.inputs)):
            node.set_input(index, None)
