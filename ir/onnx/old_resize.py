"""Upsample, and Resize as it was before version 11, as Resize as it is now.

onnx's own adapter keeps neither how coordinates were taken then nor how they were rounded: those of a result divided by
the scale, and down to a whole number, or up where an axis shrinks (as ONNX Runtime runs them).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import ModelError
from ..node import Node, Value

_MODES = {"bilinear": "linear", "trilinear": "linear"}


def lift_resize(node: Node, opset: int, domain: str) -> None:
    """Replace the node, of version `opset` below 11, by Resize nodes of version 11 that are in `domain`.

    Raises `ModelError` where it shrinks or enlarges to the nearest pixel by scales that are computed as the model runs.
    """
    scales = _scales(node, opset)
    mode = node.get_string("mode", "nearest")
    mode = _MODES.get(mode, mode)
    if scales is not None:
        ways = [("floor", np.maximum(scales, 1)), ("ceil", np.minimum(scales, 1))]
        ways = ways if mode == "nearest" else [("", scales)]
        ways = [(way, part) for way, part in ways if (part != 1).any()] or ways[:1]
        graph = node.graph
        assert graph is not None
        parts: Sequence[tuple[str, Value | None]] = [(way, graph.constant(part)) for way, part in ways]
    elif mode != "nearest" or node.op == "Upsample":  # which only enlarges
        parts = [("floor" if mode == "nearest" else "", node.input(1))]
    else:
        raise ModelError(
            f"Resize node '{node.label}' takes the nearest pixel by scales that are computed as the model runs, which "
            "later opsets round in another way; export the model at opset 11 or later"
        )
    _replace(node, mode, parts, domain)


def _scales(node: Node, opset: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None:
    operand = node.input(1)
    if "scales" in node.attributes:
        return np.array(node.attributes["scales"].value, np.float32)
    if opset < 7 and "width_scale" in node.attributes:
        return np.array((1.0, 1.0, node.get_float("height_scale"), node.get_float("width_scale")), np.float32)
    if operand is not None and operand.constant is not None:
        return np.array(operand.constant.numpy(), np.float32)
    return None


def _replace(node: Node, mode: str, parts: Sequence[tuple[str, Value | None]], domain: str) -> None:
    graph, value = node.graph, node.inputs[0]
    assert graph is not None
    for index, (way, scales) in enumerate(parts):
        attributes: dict[str, str] = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
        if way:
            attributes["nearest_mode"] = way
        last = index == len(parts) - 1
        value = graph.add(
            "Resize",
            # Version 11 asks for the regions of crops, also where nothing is cropped.
            [value, graph.constant(np.zeros(0, np.float32)), scales],
            attributes,
            types=[node.output.type if last else None],
            name=node.name if last else "",
            domain=domain,
            origin=node.origin,
            before=node,
        ).output
    assert value is not None
    node.output.replace_uses(value)
    graph.remove(node)
