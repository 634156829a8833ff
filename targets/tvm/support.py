"""Which of ONNX's operators the targets of TVM take: the table that builds refuse from and that the docs show.

Each is taken in one way: by `kernel`, rules of ours; by `definition`, the operators that ONNX defines it by; `written
out`, round by round; or through TVM's `converter`. What is in none of these is refused, before any work.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import TargetError
from ...ir.ops import RANDOM
from .blame import where
from .legal.primitive import BODIES, WRITTEN_OUT
from .relax.converter import CONVERTED
from .relax.lowering import LOWERINGS
from .relax.rules.table import RULES

if TYPE_CHECKING:
    from ...ir.graph import Graph
    from ...ir.node import Node

_CODES = frozenset({"QLinearConv", "QLinearMatMul", "ConvInteger"})
"""What is parted into codes and layers before import (see `Spread`)."""
_SIZES = "sizes that are operands: those that the model declares, made sure of when it runs"
CONDITIONS = {
    **dict.fromkeys(("Compress", "NonZero"), "as many results as the model declares, made sure of when it runs"),
    **dict.fromkeys(("CenterCropPad", "Expand", "OneHot", "Pad", "Range", "Reshape", "Slice", "Split", "Tile"), _SIZES),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), "a known number of steps, at most 512, and a known batch"),
    **dict.fromkeys(("QLinearConv", "QLinearMatMul"), "scales and zero points that are constants"),
    "Cast": "to and from all numbers of eight bits or more; between numbers of eight bits: refused",
    "Dropout": "not in training mode",
    "If": "branches whose results have the same known sizes, or a constant condition",
    "Loop": "a constant number of rounds",
    "RoiAlign": "means, not maxima",
    "Scan": "a known number of rounds, from opset 9 on",
    "TopK": "rows of at most 32,768 elements, sorted",
}
_REASONS = {
    **dict.fromkeys(RANDOM, "it is random"),
    **dict.fromkeys(
        ("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer"), "it works on text"
    ),
    **dict.fromkeys(
        (
            "ConcatFromSequence", "Optional", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase",
            "SequenceInsert", "SequenceLength", "SequenceMap", "SplitToSequence",
        ),
        "it works on sequences of tensors",
    ),
    "ImageDecoder": "it decodes files",
    **dict.fromkeys(("NonMaxSuppression", "Unique"), "how much it gives depends on data"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Support:
    """How an operator is taken, empty where it is not; and on what condition, or why not."""

    operator: str
    way: str
    note: str


def support(operator: str) -> Support:
    """What the table says of an operator of ONNX's default domain."""
    note = CONDITIONS.get(operator, "")
    if operator in WRITTEN_OUT:
        return Support(operator, "written out", note)
    if operator in RULES or operator in LOWERINGS or operator in _CODES:
        return Support(operator, "kernel", note)
    if operator in BODIES:
        return Support(operator, "definition", note)
    if operator in CONVERTED or operator == "Upsample":
        return Support(operator, "kernel" if operator == "Upsample" else "converter", note)
    return Support(operator, "", _REASONS.get(operator, "it has no kernel"))


def table() -> list[Support]:
    """Every operator of ONNX's default domain."""
    import onnx

    return [support(name) for name in sorted({s.name for s in onnx.defs.get_all_schemas() if s.domain == ""})]


def check(graph: Graph) -> None:
    """Raises `TargetError` naming the first node of an operator that is never taken: one that reads what is known only
    when the model runs, or is random. What is computed from constants alone folds away before a target sees it."""
    live = set(graph.inputs)
    for node in graph:
        fed = any(value in live for value in (*node.inputs, *node.captures) if value is not None)
        if not fed and node.op not in RANDOM:
            continue
        live.update(node.outputs)
        if node.domain == "" and any(value.uses for value in node.outputs):
            _check(node)


def _check(node: Node) -> None:
    row = support(node.op)
    if not row.way:
        raise TargetError(
            f"targets of TVM do not take {where(node)}: {row.note}; replace it by other operators, or build for onnx"
        )


def markdown(entries: Iterable[Support]) -> str:
    """The table as `docs/targets/operators.md` shows it."""
    lines = ["| operator | taken by | on condition that, or why not |", "|---|---|---|"]
    lines += [f"| `{one.operator}` | {one.way or 'refused'} | {one.note} |" for one in entries]
    return "\n".join(lines) + "\n"
