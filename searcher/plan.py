"""A pick as what `optc build` carries out: a pipeline, and what single layers want of its passes."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import dataclass

from ..passes.base import Override
from .space import FLOAT, Pick, Setting, Space

PASSES: Mapping[str, str] = {
    "blocks": "prune:kind=blocks:ratio=0",
    "replace": "replace:ratio=0",
    "channels": "prune:kind=channels:groups=all:ratio=0",
    "svd": "svd:ratio=1",
    "depthwise": "depthwise:error=0",
}
"""The passes of structure, by the family of their options, in the order in which they run, each told to change nothing
but what an override asks for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`passes` is the text of the pipeline; `guard` tells whether what does not pay is undone."""

    passes: str
    overrides: tuple[Override, ...]
    guard: bool = False


def plan_of(space: Space, pick: Pick, distil: str = "") -> Plan:
    """The plan that carries out `pick`, with the pass `distil` before quantization where that is not empty."""
    changes: dict[str, dict[str, dict[str, Setting]]] = {}
    used = set()
    for site, option in space.chosen(space.within(pick)):
        used.add(option.family)
        for name, wanted in option.changes.items():
            changes.setdefault(site.match, {}).setdefault(name, {}).update(wanted)
    passes = [text for family, text in PASSES.items() if family in used]
    passes += [distil] if distil else []
    if pick.form != FLOAT:
        passes.append("quant" if pick.form == "int8" else f"quant:activations={pick.form}")
    return Plan(",".join(passes) or "clean", tuple(_override(match, wanted) for match, wanted in changes.items()))


def _override(match: str, wanted: Mapping[str, Mapping[str, Setting]]) -> Override:
    skips = tuple(sorted(name for name, options in wanted.items() if options.get("keep") is True))
    return Override(match, skips=skips, passes={name: options for name, options in wanted.items() if name not in skips})


def pattern(name: str) -> str:
    """The pattern that fits `name` alone."""
    return glob.escape(name)
