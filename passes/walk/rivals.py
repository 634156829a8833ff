"""Two passes that change the same layers in different ways: each layer takes the better of them, or stays as it is.

What a rival would make of a layer is another form among the choices of that layer. The first of them to run asks the
other, before it changes a layer, for its best at no more MACs (`Layerwise.within`). Where that loses less, the layer is
left for the other pass, and the reason has both figures. Otherwise the layer is done, and what lost is told beside it.
The other pass leaves alone what the first has made. Errors are compared before saturation is eased, which gains about
the same for either form.

Not compared: layers that the first pass leaves as they are (the other is free to change them), and passes that are not
both in the pipeline. A rival keeps within what it may lose in a layer; one that is told no amount is taken to lose what
the first may, or the strictest of `TOLERANCES` where that goes by MACs. Whether its whole result is kept in the end is
not known here: where it is not, the layers left for it stay as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..base import Context, Skip
from .choice import Choice
from .layer_pass import LayerPass
from .linear import Linear
from .tolerance import TOLERANCES

if TYPE_CHECKING:
    from .walk import Step


def made_by_rivals(layers: Sequence[Linear], ctx: Context) -> dict[Linear, str]:
    """The layers that a rival which ran before has made, with the reason to leave them."""
    reasons = {}
    for layer in layers:
        for one in ctx.rivals.before:
            if one.name in layer.node.origin.passes:
                reasons[layer] = f"{one.name} made it, and a layer takes one of the two"
    return reasons


def outdo(step: Step, ctx: Context, own: Choice[Any], tolerance: float | None) -> dict[str, str]:
    """What lost against `own` (its cost a share of the layer's MACs), as figures of the report: {"over": ...} or {}.

    `tolerance` is the loss that the pass may make in a layer, `None` where it goes by something else. Raises `Skip`
    where a rival that runs later does better.
    """
    over = []
    for one in ctx.rivals.after:
        if not isinstance(one, LayerPass):
            continue
        hooks = one.layerwise(ctx)
        try:
            options = ctx.options(one, step.layer.node)
            rival = hooks.within(step, options, own.cost, TOLERANCES[-1] if tolerance is None else tolerance)
        except Skip:
            continue
        if rival is None:
            continue
        if rival.error < own.error:
            raise Skip(f"{one.name} does this better: {_figures(rival)}, against {_figures(own)}")
        over.append(f"{one.name} ({_figures(rival)})")
    return {"over": ", ".join(over)} if over else {}


def _figures(choice: Choice[Any]) -> str:
    return f"error {choice.error:.3g} at {choice.cost:.3g} of its MACs"
