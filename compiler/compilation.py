"""A compilation, from its options on: the order that they stand for, and the stages for each of its targets."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from ..targets.base import Emit
from .model import Model
from .order import Order

if TYPE_CHECKING:
    from .options import Options
    from .result import Build


def compile_with(model: Model, options: Options, *, forks: bool = False) -> Build:
    """`optc.compile`, with its options as one value.

    With `forks`, a copy of this process may load what the target needs while this one reads the model. That is for a
    process of our own: in another's, threads of its libraries may hold what the copy would wait for.
    """
    order, targets = Order.of(model, options)
    if len(targets) > 1:
        from .several_targets import build_all

        return build_all(order, targets)
    with _emitter(order, forks) as emit:
        from .stages import build  # what they need is imported while the target is made ready

        return build(order, emit)


def _emitter(order: Order, forks: bool) -> AbstractContextManager[Emit]:
    """What writes the artifact, made ready from now on where not much else is to be done before."""
    brief = not order.pipeline.lossy and order.tuning is None
    return order.target.emitter() if forks and brief else nullcontext(order.target.emit)
