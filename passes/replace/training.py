"""A form of a block trained on what the block read and answered: the block stage of `distill`, before the block is in
place."""

from __future__ import annotations

import numpy as np

from ...errors import ModelError
from ...ir.cost import cost
from ...ir.graph import Graph
from ...runtime.training.optimizer import AdamW
from ...runtime.training.parameters import Parameters
from ...runtime.training.trainer import Trainer
from ..base import Context
from ..distill.batches import Rows
from ..distill.loss import Term, append_loss, drop_loss, variance_of
from ..distill.parameters import parameters as parameters_of
from ..distill.training import RATES, Training, average_over, channel_axes, onward, sizes, trial_of
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
    loss = append_loss(graph, [term], {term: variance_of(term, [answers])}, 1.0)
    own = Parameters(list(kinds), masks={value: one.mask for value, one in kinds.items() if one.mask is not None})
    try:
        trainer = Trainer(
            graph,
            loss,
            own,
            optimizer=AdamW(scale=sizes(own, kinds, channel_axes(kinds))),
            average=average_over(1),
            threads=ctx.threads,
        )
    except ModelError:  # no gradient reaches any parameter
        return
    finally:
        drop_loss(graph)

    def judge() -> float:
        own.write()
        return pairs.error(graph, ctx.threads)

    course = Training(trainer, Rows(graph.inputs[0].name, read, answers, batch=batch, seed=ctx.seed), judge)
    course.begin(steps, onward(course.try_rates(RATES, trial_of(steps), lambda _: None), steps))
    course.run(lambda _: None)
    own.write()
