"""What is asked of a search, checked before anything is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..compiler.data import Data, source_of
from ..compiler.model import Model
from ..compiler.options import Options
from ..compiler.order import Order
from ..errors import DataError, SpecError, nearest
from ..report.budget import METRICS, Budget
from ..targets import table
from .space import FLOAT, FORMS


@dataclass(frozen=True, slots=True)
class Wanted:
    """A checked search: the budget, whether times count, and the forms that layers may take."""

    options: Options
    budget: Budget
    timed: bool
    forms: tuple[str, ...]


def wanted(model: Model, options: Options, forms: Sequence[str] = ()) -> Wanted:
    """What `options` ask for, with layers in one of `forms` (none: those worth trying).

    Raises `SpecError`, `DataError` and `TargetError` in one line.
    """
    if options.budget is None:
        raise SpecError("a search needs a budget to keep: --budget size=30%,agreement=98%")
    order, targets = Order.of(model, replace(options, passes="clean"))
    if not options.check:
        raise SpecError("a search runs every candidate beside the original, so --no-check cannot be")
    assert order.budget is not None
    if len(targets) > 1:
        raise SpecError("a search is for one target; build its plan for others with optc build")
    target = targets[0]
    if target.cannot_run:
        raise SpecError(f"candidates are judged by running them; {target.name}: {target.cannot_run}")
    timed = any(one.metric == "latency" for one in order.budget.limits)
    if timed and not target.facts.measurable and order.latencies is None:
        raise SpecError(
            f"a budget on latency needs times of {table.spec(target)}, whose kernels are not timed here while a search "
            "goes on; give a table of its layers with --latency-table (see optc profile)"
        )
    _check_samples(model, options, order.budget)
    return Wanted(options, order.budget, timed, _forms_of(forms) or _forms(order.budget))


def _check_samples(model: Model, options: Options, budget: Budget) -> None:
    """Raises `DataError` where samples are to be made up, and the budget has a floor that they would be judged by."""
    source = options.source
    if not isinstance(source, Data) or source_of(model, source) is not None:
        return
    floors = [one.metric for one in budget.limits if METRICS[one.metric].floor or one.metric == "kl"]
    if floors:
        raise DataError(
            f"without --data the samples are made up, and tell nothing of {' and '.join(floors)}: give real samples, "
            "or a budget of costs alone"
        )


def _forms_of(words: Sequence[str]) -> tuple[str, ...]:
    """The forms that a user names, each once. Raises `SpecError`."""
    for word in words:
        if word not in FORMS:
            raise SpecError(f"layers have no form '{word}'.{nearest(word, FORMS)}")
    return tuple(dict.fromkeys(words))


def _forms(budget: Budget) -> tuple[str, ...]:
    """The forms worth trying: codes save bytes and time, no work and no weights; codes of weights alone no time."""
    limits = {one.metric for one in budget.limits}
    costs = limits & {"macs", "params", "size", "latency"}
    if not costs or "size" in costs:
        return (FLOAT, "int8", "none", "dynamic")
    return (FLOAT, "int8", "dynamic") if "latency" in costs else (FLOAT,)
