"""A pick as what `optc build` carries out: a pipeline, and what single layers want of its passes."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import dataclass

from ..passes.base import Override
from .space import FLOAT, Pick, Setting, Space

PASSES: Mapping[str, str] = {
    "prune": "prune:kind=channels:groups=all:ratio=0",
    "svd": "svd:ratio=1",
    "depthwise": "depthwise:error=0",
}
"""The passes of structure in the order in which they run, each told to change nothing but what an override asks for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`passes` is the text of the pipeline."""

    passes: str
    overrides: tuple[Override, ...]


def plan_of(space: Space, pick: Pick, distil: str = "") -> Plan:
    """The plan that carries out `pick`, with the pass `distil` before quantization where that is not empty."""
    changes: dict[str, dict[str, dict[str, Setting]]] = {}
    for site, option in space.chosen(pick):
        for name, wanted in option.changes.items():
            changes.setdefault(site.match, {}).setdefault(name, {}).update(wanted)
    used = {name for wanted in changes.values() for name in wanted}
    passes = [text for name, text in PASSES.items() if name in used]
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
