"""The layers whose weights are quantized: Conv, Gemm and MatMul with constant float32 weights.

Each other node with weights of its own is a named skip; see `quantizable`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from ...ir.graph import Graph, Node, Value
from ...ir.types import DType
from ..base import Skip
from ..walk.linear import Linear, layer_view
from .scheme import FREE, Form, Schemes

OPS = frozenset({"Conv", "Gemm", "MatMul"})
WEIGHTED = OPS | {"ConvTranspose", "LSTM", "GRU", "RNN"}
REPEATED = 64
"""Weights of fewer numbers are codes also where these repeat."""
RECODING = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
QUANTIZED = RECODING | {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}
_INTEGER = (
    "QLinear",
    "QGemm",
    "QAttention",
    "QEmbed",
    "DynamicQuantize",
    "MatMulInteger",
    "MatMulNBits",
    "ConvInteger",
)


def is_quantized(node: Node) -> bool:
    """Whether a node computes on codes, or makes or reads them."""
    return node.op in QUANTIZED or node.op.startswith(_INTEGER)


def quantizable(node: Node, schemes: Schemes = MappingProxyType({}), form: Form | None = None) -> Linear:
    """The layer of a Conv, Gemm or MatMul node. Raises `Skip` with the reason why it cannot be quantized."""
    scheme = schemes.get(node, FREE)
    if scheme.reason:
        raise Skip(scheme.reason)
    if form is not None and scheme.form is not form:
        raise Skip(f"its own options make it {scheme.form.value}")
    if node.op not in OPS:
        raise Skip(f"{node.op} has no integer kernel")
    source, weight, bias = node.input(0), node.input(1), node.input(2)
    if source is None or weight is None:
        raise Skip("reads nothing")
    for value in (source, weight):
        if value.producer is not None and value.producer.op in QUANTIZED:
            raise Skip("already quantized")
    if weight.constant is None:
        maker = weight.producer
        if maker is not None and maker.op == "Transpose" and _is_constant(maker.input(0)):
            raise Skip("its weight is a constant that others read the other way round")
        both = node.op == "MatMul" and weight.default is None and not weight.of_constants
        raise Skip("both operands are computed" if both else f"the weight is {weight.unknown}")
    if weight.constant.dtype is not DType.FLOAT:
        raise Skip(f"the weight is {weight.constant.dtype.text}, not float")
    if source.constant is not None:
        raise Skip("the input is constant")
    if weight.constant.repeats and weight.constant.size >= REPEATED:
        raise Skip("its weight is few numbers that repeat, which take no bytes")
    rank = len(weight.constant.shape)
    if not weight.constant.size:
        raise Skip("the weight is empty")
    if node.op == "Conv" and rank < 3:
        raise Skip(f"the weight has rank {rank}")
    if node.op != "Conv" and rank != 2:
        raise Skip(f"the weight has rank {rank}, not 2")
    if bias is not None and bias.constant is None:
        raise Skip(f"the bias is {bias.unknown}")
    if bias is not None and bias.constant is not None and bias.constant.dtype is not DType.FLOAT:
        raise Skip(f"the bias is {bias.constant.dtype.text}, not float")
    if node.op == "Gemm":
        if node.get_int("transA"):
            raise Skip("the input is transposed")
        if node.get_float("alpha", 1.0) != 1.0 or (bias is not None and node.get_float("beta", 1.0) != 1.0):
            raise Skip("alpha or beta is not 1")
        if bias is not None and bias.constant is not None:
            shape = bias.constant.shape
            if len(shape) == 2 and shape[0] != 1:
                raise Skip("the bias differs between rows")
    return layer_view(node)


def _is_constant(value: Value | None) -> bool:
    return value is not None and value.constant is not None


def find_layers(
    graph: Graph, schemes: Schemes = MappingProxyType({}), form: Form | None = None
) -> tuple[dict[Node, Linear], dict[Node, str]]:
    """The layers of `graph` in order, those of one `form` if that is given, and every other node that multiplies, with
    the reason why it is none."""
    layers: dict[Node, Linear] = {}
    skipped: dict[Node, str] = {}
    for node in graph.walk():
        if is_quantized(node) and node.op not in ("QuantizeLinear", "DequantizeLinear"):
            skipped[node] = "already quantized"
            continue
        if node.op not in WEIGHTED or node.domain:
            continue
        if node.graph is not graph:
            skipped[node] = "inside the body of a control-flow node"
            continue
        try:
            layers[node] = quantizable(node, schemes, form)
        except Skip as skip:
            skipped[node] = skip.reason
    for node, other in _conflicts(layers).items():
        del layers[node]
        skipped[node] = f"{other.label} reads the same weight and needs it float"
    return layers, skipped


def sharing(nodes: Iterable[Node], layers: Mapping[Node, Linear]) -> list[Node]:
    """The `layers` that read the weight of one of `nodes`, in order: in two forms it would be stored twice."""
    weights = {layers[node].weight for node in nodes}
    return [node for node, layer in layers.items() if layer.weight in weights]


def _conflicts(layers: dict[Node, Linear]) -> dict[Node, Node]:
    """Layers whose weight somebody reads who will not read these codes: storing both would make the file larger."""
    conflicts: dict[Node, Node] = {}
    while True:
        size = len(conflicts)
        for node, layer in layers.items():
            for user, index in layer.weight.uses:
                twin = layers.get(user) if isinstance(user, Node) and user not in conflicts else None
                same = (
                    twin is not None
                    and index == 1
                    and (twin.op == "Conv", twin.axis) == (node.op == "Conv", layer.axis)
                )
                if not same and node not in conflicts and isinstance(user, Node):
                    conflicts[node] = user
        if len(conflicts) == size:
            return conflicts
