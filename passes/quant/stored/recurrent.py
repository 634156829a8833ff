"""Weights of operators without an integer kernel: recurrent cells (LSTM, GRU, RNN) and transposed convolutions.

They are stored in int8 with a scale a row (each unit of each gate; each output channel of each group), in an
expression over constants that the runtime folds when it loads the model (`storage.py`): a quarter of the file, computed
with in float.

With ranges found as the model runs (`activations=dynamic`) an LSTM becomes DynamicQuantizeLSTM where the target has the
operators of ONNX Runtime's own domain, which multiplies codes at every step of the sequence:

    W (D, 4H, I)  ->  codes (D, I, 4H) and scales (D, 4H);       R (D, 4H, H)  ->  codes (D, H, 4H) and scales

Not done, each with the reason: weights that are computed, not float32, or read by other operators too; cells in bodies
of control flow; the batch-first layout of LSTM, which stays stored; fewer than `LEAST` weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....ir.graph import Graph, Node, Value
from ....ir.origin import Origin
from ....ir.types import DType, TensorType
from ...base import Context, Report, Skip
from ..numbers.weights import quantize_rows, weight_error
from ..qdq.packing import dequantized
from ..scheme import FREE, Form, Schemes, float_reason

INPUTS = {"LSTM": (1, 2), "GRU": (1, 2), "RNN": (1, 2), "ConvTranspose": (1,)}
"""The inputs that are weights, by operator."""
LEAST = 512
DOMAIN = "com.microsoft"


@dataclass(frozen=True, slots=True)
class CodedCell:
    """`codes` and `scale` broadcast against each other, in the weight's own layout but for groups, which may be an axis
    of their own in front; `error` is a share of its power."""

    codes: NDArray[np.int8]
    scale: NDArray[np.float32]
    error: float


def store_kernelless(graph: Graph, schemes: Schemes, ctx: Context, report: Report) -> set[Node]:
    """Store the weights of all such operators of `graph` in int8, saying so in `report`; returns those it looked at."""
    looked: set[Node] = set()
    wider: set[str] = set()
    stored: dict[Value, tuple[Value, float]] = {}
    for node in tuple(graph):
        if node.op not in INPUTS or node.domain:
            continue
        looked.add(node)
        try:
            weights = _weights(node, schemes)
        except Skip as skip:
            report.skipped(node.label, node.op, skip.reason)
            continue
        scheme = schemes.get(node, FREE)
        if scheme.bits < 8:
            wider.add(node.op)
        if node.op == "LSTM" and scheme.form is Form.DYNAMIC and ctx.target.contrib_ops and _plain(node):
            error = _dynamic(graph, node, weights, ctx)
            report.done(node.label, node.op, bits=8, activations="dynamic", weight_error=round(error, 6))
            continue
        half = scheme.half
        try:
            for weight in weights.values():
                if weight not in stored:
                    stored[weight] = _stored(graph, node, weight, half)
        except Skip as skip:
            report.skipped(node.label, node.op, skip.reason)
            continue
        for index, weight in weights.items():
            node.set_input(index, stored[weight][0])
        bits, error = 8 if half is None else 16, max(stored[weight][1] for weight in weights.values())
        report.done(node.label, node.op, bits=bits, activations="stored", weight_error=round(error, 9))
    if wider:
        report.notes.append(
            f"weights of {', '.join(sorted(wider))} have eight bits: no form of fewer bits is known for them"
        )
    return looked


def _weights(node: Node, schemes: Schemes) -> dict[int, Value]:
    """The weights by input. Raises `Skip`."""
    if reason := float_reason(schemes, node):
        raise Skip(reason)
    weights: dict[int, Value] = {}
    for index in INPUTS[node.op]:
        weight = node.input(index)
        if weight is None or weight.constant is None:
            raise Skip(f"the weight is {'absent' if weight is None else weight.unknown}")
        if weight.constant.dtype is not DType.FLOAT:
            raise Skip(f"the weight is {weight.constant.dtype.text}, not float")
        for user, place in weight.uses:
            if not isinstance(user, Node) or user.op not in INPUTS or place not in INPUTS[user.op]:
                other = user.label if isinstance(user, Node) else "an output"
                raise Skip(f"{other} reads the same weight and needs it float")
        if not np.isfinite(np.asarray(weight.numpy())).all():
            raise Skip("the weight is not finite")
        weights[index] = weight
    if sum(weight.constant.size for weight in weights.values() if weight.constant is not None) < LEAST:
        raise Skip(f"{node.op} has no integer kernel, and fewer than {LEAST} weights to store smaller")
    return weights


def _encode(weight: Value, node: Node, *, saturating: bool = False) -> CodedCell:
    numbers = np.asarray(weight.numpy(), np.float32)
    if node.op == "ConvTranspose":  # (inputs, outputs of a group, kernel...)
        return _encode_transposed(numbers, node.get_int("group", 1))
    rows = numbers.reshape(-1, numbers.shape[-1])
    codes, scale, error = _encode_rows(rows, saturating)
    return CodedCell(codes.reshape(numbers.shape), scale.reshape(*numbers.shape[:-1], 1), error)


def _encode_transposed(numbers: NDArray[np.float32], groups: int) -> CodedCell:
    inputs, outputs, *kernel = numbers.shape
    parts = np.moveaxis(numbers.reshape(groups, inputs // groups, outputs, *kernel), 2, 1)
    codes, scale, error = _encode_rows(parts.reshape(groups * outputs, -1), False)
    codes = np.moveaxis(codes.reshape(parts.shape), 1, 2)
    scale = scale.reshape(groups, 1, outputs, *(1 for _ in kernel))
    if groups == 1 or inputs == groups:  # the groups need no axis of their own
        codes, scale = codes.reshape(numbers.shape), scale.reshape(groups, outputs, *(1 for _ in kernel))
    return CodedCell(np.ascontiguousarray(codes), scale, error)


def _encode_rows(rows: NDArray[np.float32], saturating: bool) -> tuple[NDArray[np.int8], NDArray[np.float32], float]:
    """Codes and scales of rows, and the share of their power that is off."""
    codes, scale = quantize_rows(np.ascontiguousarray(rows), DType.INT8, saturating=saturating)
    return codes, scale, weight_error(rows, codes * scale[:, None])


def _stored(graph: Graph, node: Node, weight: Value, half: DType | None) -> tuple[Value, float]:
    if half is not None:
        return _halved(graph, node, weight, half)
    coded = _encode(weight, node)
    origin = Origin.merge([node.origin], "quant")
    value = dequantized(graph, coded.codes, coded.scale, weight, origin, node, name=weight.name)
    if weight.constant is not None and coded.codes.shape != weight.constant.shape:
        shape = graph.constant(np.asarray(weight.constant.shape, np.int64), "shape")
        value = graph.add("Reshape", [value, shape], outputs=[weight.name], origin=origin, before=node).output
    value.type = weight.type
    return value, coded.error


def _halved(graph: Graph, node: Node, weight: Value, dtype: DType) -> tuple[Value, float]:
    numbers = np.asarray(weight.numpy(), np.float32)
    with np.errstate(over="ignore"):
        half = numbers.astype(dtype.numpy)
    decoded = half.astype(np.float32)
    if not np.isfinite(decoded - numbers).all():
        raise Skip(f"a weight is larger than {dtype.text} can hold")
    origin = Origin.merge([node.origin], "quant")
    wide = graph.add(
        "Cast", [graph.constant(half, weight.name)], {"to": int(DType.FLOAT)},
        outputs=[weight.name], types=[weight.type], origin=origin, before=node,
    )  # fmt: skip
    return wide.output, weight_error(numbers, decoded)


def _plain(node: Node) -> bool:
    """Whether the integer operator knows all that the node uses: not the batch first, no peepholes."""
    return not node.get_int("layout") and node.input(7) is None


def _dynamic(graph: Graph, node: Node, weights: dict[int, Value], ctx: Context) -> float:
    """Let DynamicQuantizeLSTM take the place of the LSTM; returns the larger error of its two weights."""
    inputs = [*node.inputs, *[None] * (8 - len(node.inputs))]
    errors = []
    for index, weight in weights.items():
        coded = _encode(weight, node, saturating=ctx.target.saturating_int8)
        inputs[index] = graph.constant(np.ascontiguousarray(np.swapaxes(coded.codes, 1, 2)), weight.name)
        scale = graph.constant(np.ascontiguousarray(coded.scale[..., 0]), "scale")
        inputs += [scale, graph.constant(np.zeros(coded.scale.shape[:2], np.int8), "zero")]
        errors.append(coded.error)
    graph.opsets.setdefault(DOMAIN, 1)
    attributes = {name: value for name, value in node.attributes.items() if name != "layout"}
    cell = graph.add(
        "DynamicQuantizeLSTM", inputs, attributes, domain=DOMAIN,
        outputs=[value.name for value in node.outputs],
        types=[TensorType(DType.FLOAT, value.shape) for value in node.outputs],
        name=node.name, origin=Origin.merge([node.origin], "quant"), before=node,
    )  # fmt: skip
    for old, new in zip(node.outputs, cell.outputs, strict=True):
        old.replace_uses(new)
    graph.remove(node)
    return max(errors)
