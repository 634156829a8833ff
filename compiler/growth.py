"""A result that is only cleaned is no larger than what it was made of.

Constants that are folded may be longer than the nodes that made them, by a few bytes each. Where the passes took
nothing away that outweighs this, the model is written as it was.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from ..ir.graph import Graph
from ..ir.onnx.writer import size
from ..targets.onnx import OnnxTarget
from .model import forget_types

if TYPE_CHECKING:
    from ..report.build import BuildReport
    from .order import Order


def undo_growth(order: Order, original: Graph, annotated: Collection[str], graph: Graph, report: BuildReport) -> bool:
    """Make `graph` the `original` again where its file would be larger and nothing but `clean` and what fits it to the
    target changed it: a lossy pass, or a function of the user, is wanted for its own sake.

    Of both, only the types of `annotated` values are written. Says so in `report`, whose passes then did nothing, and
    returns whether it is so.
    """
    wanted = {one.name for one in order.pipeline if one.name != "clean"}
    read = original.clone()
    forget_types(read, annotated)
    before, after = size(read), size(graph)
    changed = [i for i, step in enumerate(report.steps) if step.report.changed]
    if (
        after <= before
        or order.target.suffix != OnnxTarget.suffix
        or any(report.steps[i].name in wanted for i in changed)
    ):
        return False
    graph.become(read)
    for i in changed:
        report.steps[i] = replace(report.steps[i], after=report.before)
        report.steps[i].report.rewrites.clear()
        report.steps[i].report.notes.append(f"undone: the file would grow from {before:,} to {after:,} bytes")
    return True


def growth(order: Order, report: BuildReport) -> list[str]:
    """What to say of a file that is larger than the model was; nothing of targets that write no ONNX."""
    before, after = report.before.bytes, report.after.bytes
    if after <= before or order.target.suffix != OnnxTarget.suffix:
        return []
    return [f"the file is larger than the model was: {after:,} bytes, of {before:,}"]
