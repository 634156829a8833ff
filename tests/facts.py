"""The target `onnx` on a CPU of one kind, whichever runs the tests: passes choose the same everywhere."""

from __future__ import annotations

import dataclasses
from typing import Literal

from optc.passes.base import TargetFacts
from optc.targets.onnx import OnnxTarget


def facts_of(cpu: Literal["x86", "x86-vnni", "arm"] = "x86", **changes: object) -> TargetFacts:
    """x86 without VNNI is the careful one: what is made for it is right on every CPU that a test may run on."""
    facts = dataclasses.replace(OnnxTarget(cpu=cpu).facts, name="onnx", measurable=True)
    return dataclasses.replace(facts, **changes)  # type: ignore[arg-type]
