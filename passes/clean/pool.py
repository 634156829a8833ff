"""Pooling and resizing that change nothing.

    AveragePool, MaxPool with a window of one element and step 1;
    GlobalAveragePool, GlobalMaxPool of a single element;
    Resize, Upsample by 1                                          ->  x

Exact: the mean and the maximum of one number are that number, and resizing by 1 samples each element at its own
place. Does not fire where indices are read, with padding, for a spatial size that is not known to be 1, for scales
or sizes that are not constant, or for Resize that crops (`tf_crop_and_resize`).
"""

from __future__ import annotations

from ...ir.node import Node
from .rewriter import Rewriter, Rule


def _rewrite(node: Node, rewriter: Rewriter) -> bool:
    source = node.inputs[0]
    if source is None or any(v.uses for v in node.outputs[1:]):
        return False
    if node.op in ("AveragePool", "MaxPool"):
        same = (
            all(k == 1 for k in node.get_ints("kernel_shape"))
            and all(s == 1 for s in node.get_ints("strides"))
            and not any(node.get_ints("pads"))
        )
    elif node.op in ("GlobalAveragePool", "GlobalMaxPool"):
        same = source.shape is not None and len(source.shape) > 2 and all(d == 1 for d in source.shape[2:])
    else:
        same = _keeps_size(node, rewriter)
    return same and rewriter.bypass(node, source)


def _keeps_size(node: Node, rewriter: Rewriter) -> bool:
    if node.get_string("coordinate_transformation_mode") == "tf_crop_and_resize" or "axes" in node.attributes:
        return False
    if node.op == "Upsample" or rewriter.opset < 11:
        scales = rewriter.array(node.input(1))
    else:
        scales = rewriter.array(node.input(2))
        sizes = rewriter.ints(node.input(3))
        source = node.inputs[0]
        if sizes is not None and source is not None:
            return source.shape == sizes
    return scales is not None and scales.size > 0 and bool((scales == 1).all())


RULE = Rule(
    "pool-no-op",
    ("AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool", "Resize", "Upsample"),
    _rewrite,
)
