"""Which of ONNX's operators the targets of TVM take: the table that builds refuse from and that the docs show.

Each is taken in one way: by `kernel`, rules of ours; by `definition`, the operators that ONNX defines it by; `written
out`, round by round; or through TVM's `converter`. What is in none of these is refused, before any work.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ...errors import TargetError
from ...ir.graph import Graph
from ...ir.node import Node
from ...ir.ops import RANDOM
from ...ir.shapes.infer import infer
from ...passes.base import Context, TargetFacts
from .blame import where
from .legal.primitive import BODIES, WRITTEN_OUT, Primitive
from .relax import conditions
from .relax.table import CONVERTED, LOWERINGS, RULES

_CODES = frozenset({"QLinearConv", "QLinearMatMul"})
"""What is parted into codes and layers before import (see `Spread`)."""
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
    **dict.fromkeys(
        ("NonMaxSuppression", "Unique"), "how much it gives depends on data: end the model before it, and select there"
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Support:
    """How an operator is taken on CPUs and on GPUs, empty where it is not; and on what condition, or why not."""

    operator: str
    way: str
    gpu: str
    note: str


def support(operator: str) -> Support:
    """What the table says of an operator of ONNX's default domain."""
    way = _way(operator, (*RULES, *LOWERINGS))
    if not way:
        return Support(operator, "", "", _REASONS.get(operator, "it has no kernel"))
    # Where no kernel adds up codes, layers on them are computed with the floats that they stand for.
    gpu = "floats" if operator in _CODES else way
    return Support(
        operator, way, gpu, conditions.CONDITIONS[operator].text if operator in conditions.CONDITIONS else ""
    )


def _way(operator: str, kernels: Collection[str]) -> str:
    if operator in WRITTEN_OUT:
        return "written out"
    if operator in kernels or operator in _CODES or operator == "Upsample":
        return "kernel"
    if operator in BODIES:
        return "definition"
    return "converter" if operator in CONVERTED else ""


def table() -> list[Support]:
    """Every operator of ONNX's default domain."""
    import onnx

    return [support(name) for name in sorted({s.name for s in onnx.defs.get_all_schemas() if s.domain == ""})]


def check(graph: Graph) -> None:
    """Raises `TargetError` naming the first node of an operator that is never taken, or not in its form: one that reads
    what is known only when the model runs, or is random. What is computed from constants alone folds away before a
    target sees it."""
    for node in _live(graph):
        _check(node)
    if not any(node.op in conditions.CONDITIONS for node in _live(graph)):
        return
    trial = graph.clone()
    infer(trial)
    if all(map(conditions.met, _live(trial))):
        return
    # Cleaned and written out, more is known of sizes, and what could be written out is gone.
    _legalise(trial)
    for node in _live(trial):
        _check(node)
        conditions.check(node)


def _live(graph: Graph) -> Iterator[Node]:
    """The nodes of ONNX's own operators that are left where what constants decide is gone."""
    live = set(graph.inputs)
    for node in graph:
        fed = any(value in live for value in (*node.inputs, *node.captures) if value is not None)
        if not fed and node.op not in RANDOM:
            continue
        live.update(node.outputs)
        if node.domain == "" and any(value.uses for value in node.outputs):
            yield node


def _check(node: Node) -> None:
    row = support(node.op)
    if not row.way:
        raise TargetError(
            f"targets of TVM do not take {where(node)}: {row.note}; replace it by other operators, or build for onnx"
        )


def _legalise(graph: Graph) -> None:
    from ...passes.clean.clean import Clean

    ctx = Context(TargetFacts("trial"))
    Clean().run(graph, ctx)
    Primitive().run(graph, ctx)
    infer(graph)
