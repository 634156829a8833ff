"""The options of one layer: its structures by the passes that know some, and the bits of its weights.

Each is fitted by the closed form of its pass, and its dense weights stand for it while the rest of the model behind the
layer is run on held-out samples (`Damage`). Of each pass a weak and a strong option are tried so; what lies between is
read off the power law through the two, loss = a e^p, with e the error of the fit, as pruning does for groups of
channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ..errors import TargetError
from ..passes.base import Context, Skip
from ..passes.depthwise import Depthwise
from ..passes.prune.damage import Damage
from ..passes.quant import Quant
from ..passes.quant.mixed import rounded_rows
from ..passes.quant.stored.blocks import has_blocks
from ..passes.svd import Svd
from ..passes.walk.choice import Choice
from ..passes.walk.layer_pass import LayerPass
from ..passes.walk.layerwise import Layerwise
from ..passes.walk.target import Array
from ..passes.walk.walk import Step
from .space import Option, Setting

Way: TypeAlias = "tuple[LayerPass, Mapping[str, Setting]]"
"""A pass with the options that one layer is given, and these options by name."""

STRUCTURES: Mapping[str, tuple[LayerPass, tuple[Way, ...]]] = {
    "svd": (
        Svd(ratio=1.0),
        tuple((Svd(ratio=share), {"ratio": share}) for share in (0.8, 0.65, 0.5, 0.35, 0.2)),
    ),
    "depthwise": (Depthwise(error=0.0), tuple((Depthwise(rank=rank), {"rank": rank}) for rank in (3, 2, 1))),
}
"""The passes that give a layer another structure, each as it changes nothing, and in the ways that are offered, weak
ones first. A further pass on the walk is a further row."""
BITS = (8, 4, 3, 2)
PRODUCTS = ("MatMul", "Gemm")
"""Layers that can find the range of their input as the model runs."""
DYNAMIC = "dynamic"
BLOCK = 32
"""Weights that share a scale where they are stored alone in four bits."""
LEAST = 1e-12
"""A loss below which nothing is told apart."""


def layer_options(step: Step, damage: Damage, ctx: Context, *, fixed: bool, timed: bool) -> tuple[Option, ...]:
    """The options of the layer of `step`, but the one that keeps it. A `fixed` one has no other structure; where they
    are `timed`, options say how long they take beside the layer."""
    options: list[Option] = []
    for name, (one, ways) in STRUCTURES.items() if not fixed else ():
        hooks = one.layerwise(ctx)
        if not hooks.stays(step.layer) and not ctx.kept(one, step.layer.node):
            options += _structures(step, damage, name, hooks, ways, timed=timed)
    if not ctx.kept(Quant(), step.layer.node):
        options += _bits(step, damage)
    return tuple(options)


def _structures(
    step: Step, damage: Damage, name: str, hooks: Layerwise[Any, Any], ways: Sequence[Way], *, timed: bool
) -> list[Option]:
    forms: list[tuple[Choice[Any], dict[str, Setting]]] = []
    for one, setting in ways:
        try:
            choice = hooks.choose(step, one, None)
        except Skip:
            continue
        if choice.cost < 1.0 and all(choice.cost != other.cost for other, _ in forms):
            forms.append((choice, {**setting, "form": choice.kind}))
    if not forms:
        return []
    tried = sorted({0, len(forms) - 1})
    losses = {i: _loss(step, damage, hooks, forms[i][0]) for i in tried}
    law = PowerLaw.through([(forms[i][0].error, loss) for i, loss in losses.items()])
    return [
        Option(
            word=f"{name} {choice.kind} {setting.get('rank', setting.get('ratio'))}",
            family=name,
            changes={name: setting},
            loss=losses.get(i, law.at(choice.error)),
            macs=float(choice.cost),
            params=sum(np.size(part) for part in _factors(choice.form)) / max(float(np.prod(step.layer.shape)), 1.0),
            time=_time(step, hooks, choice) if timed else float(choice.cost),
            measured=i in losses,
        )
        for i, (choice, setting) in enumerate(forms)
    ]


def _loss(step: Step, damage: Damage, hooks: Layerwise[Any, Any], choice: Choice[Any]) -> float:
    dense = hooks.dense(choice.form)
    weight = dense.reshape(step.target.weight.shape)
    return max(damage.of({step.layer: (weight, step.target.bias(weight))}), LEAST)


def _time(step: Step, hooks: Layerwise[Any, Any], choice: Choice[Any]) -> float:
    """The time of a form beside the layer's, its share of the work where nothing tells."""
    try:
        taken = hooks.timed(step, choice)
    except TargetError:
        taken = None
    return float(choice.cost if taken is None else taken)


def _bits(step: Step, damage: Damage) -> list[Option]:
    """Weights of fewer bits, rounded alone. The loss of 8 is that of 4 by the power of rounding noise, 4^-bits."""
    target = step.target
    rows = step.layer.weights().reshape(-1, target.weight.shape[-1]).astype(np.float32)
    losses: dict[int, float] = {}
    for bits in BITS[1:]:
        weight: Array = rounded_rows(rows, bits).astype(np.float64).reshape(target.weight.shape)
        losses[bits] = max(damage.of({step.layer: (weight, target.bias(weight))}), LEAST)
    losses[8] = losses[4] / 4.0**4
    return [
        Option(
            f"int{bits}", "bits", _weights(bits), losses[bits], bits=bits, measured=bits != 8, forms=_forms(step, bits)
        )
        for bits in BITS
    ]


def _forms(step: Step, bits: int) -> tuple[str, ...]:
    """The forms in which the layer has weights of so many bits (none: all): stored alone they have four where the
    reduction is made of blocks, and ranges found while the model runs are a matter of products."""
    if bits == 8:
        return ()
    dynamic = (DYNAMIC,) if step.layer.op in PRODUCTS else ()
    alone = ("none",) if bits == 4 and has_blocks(step.target.weight.shape[-1], BLOCK) else ()
    return ("int8", *dynamic, *alone)


def _weights(bits: int) -> dict[str, dict[str, Setting]]:
    """What `quant` is given for weights of so many bits; 8 are its default."""
    return {} if bits == 8 else {"quant": {"weights": f"int{bits}"}}


def _factors(form: Any) -> tuple[Array, ...]:
    """The weights that a form of a layer is stored as."""
    factors = getattr(form, "factors", None)
    return (form.first, form.second) if factors is None else tuple(factors)


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """loss = scale * error ^ power, with a power of 1 to 2."""

    scale: float
    power: float

    @staticmethod
    def through(points: Sequence[tuple[float, float]]) -> PowerLaw:
        """The law through the points of least and largest error."""
        (e, d), *_ = ordered = sorted((max(error, LEAST), loss) for error, loss in points)
        power = 1.0
        e2, d2 = ordered[-1]
        if e2 > e:
            power = min(max(math.log(d2 / d) / math.log(e2 / e), 1.0), 2.0)
        return PowerLaw(d2 / e2**power, power)

    def at(self, error: float) -> float:
        return max(float(self.scale * max(error, LEAST) ** self.power), LEAST)
