"""A form of a block trained on what the block read and answered: the block stage of `distill`, before the block is in
place."""

from __future__ import annotations

import numpy as np

from ...ir.cost import cost
from ...ir.graph import Graph
from ..base import Context
from ..distill.batches import TaughtRows
from ..distill.loss import Term
from ..distill.parameters import parameters as parameters_of
from ..distill.training import RATES, Training, onward, trainer_of, trial_of
from .samples import Taken

BATCH, SMALL = 32, 8
"""Samples of a step; few where they are large."""
STEP, WHOLE = 2e9, 300e9
"""Multiply-accumulates of a step from which on it has few samples, and of all steps: large images take fewer."""
_BACKWARD = 3
"""How much a step costs, in forward passes."""


def trained(graph: Graph, pairs: Taken, steps: int, ctx: Context) -> None:
    """Move the weights of `graph` by `steps` of Adam, where that makes it answer what judges better."""
    shapes = {(x.shape[1:], y.shape[1:]) for x, y in zip(pairs.read, pairs.answers, strict=True)}
    if not steps or len(shapes) > 1:  # images of many sizes make no batch
        return
    height, width = pairs.read[0].shape[2:]
    each = _BACKWARD * cost(graph, {"N": 1, "H": height, "W": width}).macs
    batch = BATCH if BATCH * each <= STEP else SMALL
    steps = min(steps, max(int(WHOLE / (batch * each)), 1))
    kinds = {one.value: one for one in parameters_of(graph)}
    read, answers = (np.concatenate(each[: pairs.count]) for each in (pairs.read, pairs.answers))
    output = graph.outputs[0].value
    term = Term(output, output, "values", 1)
    pair = trainer_of(graph, term, answers, kinds, ctx.threads)
    if pair is None:
        return
    trainer, own = pair

    def judge() -> float:
        own.write()
        return pairs.error(graph, ctx.threads)

    course = Training(trainer, TaughtRows(graph.inputs[0].name, read, answers, batch=batch, seed=ctx.seed), judge)
    course.begin(steps, onward(course.try_rates(RATES, trial_of(steps), lambda _: None), steps))
    course.run(lambda _: None)
    own.write()
