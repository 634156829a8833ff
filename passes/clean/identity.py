"""Nodes that return their input as it is.

    Identity(x); Dropout(x) in inference; Sum, Max, Min, Mean, Concat of one input; Split into one part;
    Cast to the type the input has; Tile once; Clip without bounds; Transpose in the given order   ->   x

Exact by definition. Does not fire for Dropout in training mode or whose mask is read, for a Cast of a value of unknown
type, or where the repeats of a Tile are not constant. The name of a graph output survives: it belongs to the output.
"""

from __future__ import annotations

from ...ir.node import Node, Value
from ...ir.types import DType
from .rewriter import Rewriter, Rule


def _rewrite(node: Node, rewriter: Rewriter) -> bool:
    source = node.input(0)
    if source is None or any(v.uses for v in node.outputs[1:]) or not _returns_input(node, source, rewriter):
        return False
    return rewriter.bypass(node, source)


def _returns_input(node: Node, source: Value, rewriter: Rewriter) -> bool:
    match node.op:
        case "Identity":
            return True
        case "Dropout":
            training = rewriter.array(node.input(2))
            return node.input(2) is None or (training is not None and not training.any())
        case "Cast":
            return source.dtype is not None and source.dtype is DType(node.get_int("to"))
        case "CastLike":
            like = node.input(1)
            return like is not None and like.dtype is not None and source.dtype is like.dtype
        case "Split":
            return len(node.outputs) == 1
        case "Tile":
            repeats = rewriter.ints(node.input(1))
            return repeats is not None and all(r == 1 for r in repeats)
        case "Clip":
            return len([v for v in node.inputs if v is not None]) == 1 and not {"min", "max"} & node.attributes.keys()
        case "Transpose":
            perm = node.get_ints("perm")
            if not perm:
                return source.shape is not None and len(source.shape) < 2
            return perm == tuple(range(len(perm)))
        case _:
            return len(node.inputs) == 1


RULE = Rule(
    "identity",
    (
        "Identity",
        "Dropout",
        "Cast",
        "CastLike",
        "Sum",
        "Max",
        "Min",
        "Mean",
        "Concat",
        "Split",
        "Tile",
        "Clip",
        "Transpose",
    ),
    _rewrite,
)
