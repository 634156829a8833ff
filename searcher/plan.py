"""A pick as what `optc build` carries out: a pipeline, and what single layers want of its passes."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..passes.base import Override
from .space import FLOAT, Pick, Setting, Space

PASSES: Mapping[str, str] = {
    "blocks": "prune:kind=blocks:ratio=0",
    "replace": "replace:ratio=0",
    "channels": "prune:kind=channels:groups=all:ratio=0",
    "svd": "svd:ratio=1:scope=layer",
    "depthwise": "depthwise:error=0",
}
"""The passes of structure, by the family of their options, in the order in which they run, each told to change nothing
but what an override asks for. A ratio over all layers would spread over others what an override saved."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`passes` is the text of the pipeline; `guard` tells whether what does not pay is undone."""

    passes: str
    overrides: tuple[Override, ...]
    guard: bool = False


def plan_of(space: Space, pick: Pick) -> Plan:
    """The plan that carries out `pick`."""
    changes: dict[str, dict[str, dict[str, Setting]]] = {}
    used = set()
    for site, option in space.chosen(space.within(pick)):
        used.add(option.family)
        for name, wanted in option.changes.items():
            changes.setdefault(site.match, {}).setdefault(name, {}).update(wanted)
    passes = [text for family, text in PASSES.items() if family in used]
    if pick.form != FLOAT:
        passes.append(quant_in(pick.form))
    return Plan(",".join(passes) or "clean", tuple(_override(match, wanted) for match, wanted in changes.items()))


def quant_in(form: str) -> str:
    """`quant` as it brings layers into a form of codes."""
    return "quant" if form == "int8" else f"quant:activations={form}"


def kind_of(plan: Plan) -> tuple[str, ...]:
    """What a plan does, whatever the shares: its passes, with what they prune and the form of activations."""
    kinds = []
    for word in plan.passes.split(","):
        name, *options = word.split(":")
        kinds.append(":".join([name, *(one for one in options if one.partition("=")[0] in ("kind", "activations"))]))
    return tuple(kinds)


def with_lesson(plan: Plan, minutes: float) -> Plan:
    """The plan with `distill` for so many minutes: behind the passes of structure, and behind `quant` where weights
    have few bits, or nothing else changes; half of the time each where both is so."""
    words = plan.passes.split(",")
    at = next((i for i, word in enumerate(words) if word.partition(":")[0] == "quant"), len(words))
    structure, codes = words[:at], words[at:]
    few = any("weights" in word for word in codes) or any(
        "weights" in one.passes.get("quant", ()) for one in plan.overrides
    )
    before = structure not in ([], ["clean"])
    behind = bool(codes) and (few or not before)
    lesson = [f"distill:minutes={minutes / (before + behind or 1):.3g}"]
    return replace(plan, passes=",".join([*structure, *lesson * before, *codes, *lesson * behind]))


def _override(match: str, wanted: Mapping[str, Mapping[str, Setting]]) -> Override:
    skips = tuple(sorted(name for name, options in wanted.items() if options.get("keep") is True))
    return Override(match, skips=skips, passes={name: options for name, options in wanted.items() if name not in skips})


def pattern(name: str) -> str:
    """The pattern that fits `name` alone."""
    return glob.escape(name)
