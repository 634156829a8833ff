"""Operators that ONNX Runtime fuses, of its domain `com.microsoft`, written out in those that they stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..attributes import AttributeKind
from ..graph import Node, Value
from .builder import Builder, CannotDifferentiate

Expansion = Callable[[Node, Builder], "Sequence[Value | None]"]
"""Appends what a node computes; returns what stands for its outputs, `None` for those that nothing reads. Raises
`CannotDifferentiate`."""

_MICROSOFT = "com.microsoft"


def _input(node: Node, index: int) -> Value:
    value = node.input(index)
    if value is None:
        raise CannotDifferentiate(f"lacks input {index}")
    return value


def _used(node: Node, *indices: int) -> bool:
    return any(index < len(node.outputs) and node.outputs[index].uses for index in indices)


def skip_normalization(node: Node, build: Builder) -> Sequence[Value | None]:
    """(input, skip, gamma, beta, bias): the sum, normalised; output 3 is the sum itself."""
    if _used(node, 1, 2):
        raise CannotDifferentiate("returns statistics that are read")
    simple = node.op == "SkipSimplifiedLayerNormalization"
    total = build("Add", _input(node, 0), _input(node, 1))
    gamma, beta = _input(node, 2), None if simple else node.input(3)
    bias = node.input(3 if simple else 4)
    if bias is not None:
        total = build("Add", total, bias)
    epsilon = node.get_float("epsilon", 1e-12)
    op = "SimplifiedLayerNormalization" if simple else "LayerNormalization"
    if not simple:
        normal = build(op, total, gamma, *([] if beta is None else [beta]), axis=-1, epsilon=epsilon)
    else:
        normal = build(op, total, gamma, axis=-1, epsilon=epsilon)
    return normal, None, None, total


def fused_matmul(node: Node, build: Builder) -> Sequence[Value | None]:
    """alpha A' B', each side transposed or not."""
    a, b = _input(node, 0), _input(node, 1)
    if node.get_int("transBatchA") or node.get_int("transBatchB"):
        raise CannotDifferentiate("moves batch axes")
    sides = []
    for value, turned in ((a, node.get_int("transA")), (b, node.get_int("transB"))):
        rank = build.rank(value)
        axes = (*range(rank - 2), rank - 1, rank - 2)
        sides.append(build.transpose(value, *axes) if turned and rank > 1 else value)
    product = build("MatMul", *sides)
    alpha = node.get_float("alpha", 1.0)
    return (product if alpha == 1.0 else build("Mul", product, build.scalar(alpha, a)),)


def _activated(node: Node, build: Builder, value: Value, like: Value) -> Value:
    """The activation that a fused layer ends in."""
    name = node.get_string("activation", "")
    attribute = node.attributes.get("activation_params")
    numbers: tuple[float, ...] = ()
    if attribute is not None and attribute.kind is AttributeKind.FLOATS and isinstance(attribute.value, tuple):
        numbers = tuple(float(number) for number in attribute.value if isinstance(number, int | float))
    match name:
        case "":
            return value
        case "Relu" | "Sigmoid" | "Tanh":
            return build(name, value)
        case "LeakyRelu":
            return build(name, value, alpha=numbers[0] if numbers else 0.01)
        case "HardSigmoid" if len(numbers) == 2:
            return build(name, value, alpha=numbers[0], beta=numbers[1])
        case "Clip" if len(numbers) == 2:
            return build(name, value, build.scalar(numbers[0], like), build.scalar(numbers[1], like))
    raise CannotDifferentiate(f"ends in the activation {name}")


def fused_conv(node: Node, build: Builder) -> Sequence[Value | None]:
    """(x, w, b, z): a convolution, a sum with z, an activation."""
    kept = {name: one for name, one in node.attributes.items() if not name.startswith("activation")}
    inputs = [node.input(i) for i in range(3)]
    value = build("Conv", *(inputs if inputs[2] is not None else inputs[:2]), **kept)
    if node.input(3) is not None:
        value = build("Add", value, node.input(3))
    return (_activated(node, build, value, _input(node, 0)),)


def fused_gemm(node: Node, build: Builder) -> Sequence[Value | None]:
    kept = {name: one for name, one in node.attributes.items() if not name.startswith("activation")}
    numbers = {name[len("activation_") :]: node.get_float(name) for name in node.attributes if name[11:] in _SHARES}
    value = build("Gemm", *node.inputs, **kept)
    name = node.get_string("activation", "")
    if name in ("", "Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid"):
        return (build(name, value, **numbers) if name else value,)
    raise CannotDifferentiate(f"ends in the activation {name}")


_SHARES = ("alpha", "beta", "gamma")


def bias_softmax(node: Node, build: Builder) -> Sequence[Value | None]:
    return (build("Softmax", build("Add", _input(node, 0), _input(node, 1)), axis=node.get_int("axis", 1)),)


def attention(node: Node, build: Builder) -> Sequence[Value | None]:
    """(x [B, S, I], weights [I, 3 H], bias [3 H], mask [B, T]): heads attend to one another, without a past."""
    x, weights, bias = _input(node, 0), _input(node, 1), node.input(2)
    if any(node.input(i) is not None for i in (4, 6)) or _used(node, 1) or node.get_int("do_rotary"):
        raise CannotDifferentiate("keeps keys of the past, or turns positions")
    width = build.shape(weights)[1]
    if not isinstance(width, int) or width % 3 or "qkv_hidden_sizes" in node.attributes:
        raise CannotDifferentiate("has heads of different sizes")
    product = build("MatMul", x, weights)
    if bias is not None:
        product = build("Add", product, bias)
    hidden = width // 3
    parts = [build.slice(product, [2], [i * hidden], [(i + 1) * hidden]) for i in range(3)]
    return _attend(node, build, (parts[0], parts[1], parts[2]), hidden, node.input(3), node.input(5))


def multi_head(node: Node, build: Builder) -> Sequence[Value | None]:
    """(query [B, S, H], key [B, T, H], value [B, T, H], bias [3 H], mask [B, T], bias of the scores)."""
    if any(node.input(i) is not None for i in range(6, len(node.inputs))) or _used(node, 1, 2, 3):
        raise CannotDifferentiate("keeps keys of the past")
    sources = [_input(node, i) for i in range(3)]
    if any(build.rank(value) != 3 for value in sources):
        raise CannotDifferentiate("takes packed keys and values")
    hidden = build.shape(sources[0])[2]
    if not isinstance(hidden, int) or any(build.shape(value)[2] != hidden for value in sources):
        raise CannotDifferentiate("has heads of different sizes")
    bias = node.input(3)
    if bias is not None:
        cut = [build.slice(bias, [0], [i * hidden], [(i + 1) * hidden]) for i in range(3)]
        sources = [build("Add", value, part) for value, part in zip(sources, cut)]
    return _attend(node, build, (sources[0], sources[1], sources[2]), hidden, node.input(4), node.input(5))


def _attend(
    node: Node, build: Builder, parts: tuple[Value, Value, Value], hidden: int, mask: Value | None, bias: Value | None
) -> Sequence[Value | None]:
    heads, like = node.get_int("num_heads"), _input(node, 0)
    if not heads or hidden % heads:
        raise CannotDifferentiate("has a number of heads that does not divide its width")
    q, k, v = (build.transpose(build.reshape(one, [0, 0, heads, hidden // heads]), 0, 2, 1, 3) for one in parts)
    scale = node.get_float("scale") or (hidden // heads) ** -0.5
    scores = build("Mul", build("MatMul", q, build.transpose(k, 0, 1, 3, 2)), build.scalar(scale, like))
    if bias is not None:
        scores = build("Add", scores, bias)
    if mask is not None:
        if build.rank(mask) != 2:
            raise CannotDifferentiate("has a mask of another form than one number a position")
        kept = build.unsqueeze(build.cast(mask, build.dtype(like)), [1, 2])
        hole = build.scalar(node.get_float("mask_filter_value", -10000.0), like)
        scores = build("Add", scores, build("Mul", build("Sub", build.scalar(1.0, like), kept), hole))
    if node.get_int("unidirectional"):
        scores = _causal(build, scores, node, like)
    mixed = build("MatMul", build("Softmax", scores, axis=-1), v)
    return (build.reshape(build.transpose(mixed, 0, 2, 1, 3), [0, 0, hidden]),)


def _causal(build: Builder, scores: Value, node: Node, like: Value) -> Value:
    sizes = build.slice(build("Shape", scores), [0], [2], [4])
    ones = build("Expand", build.scalar(1.0, like), sizes)
    later = build("Trilu", ones, build.reshape(build.ints([1]), []), upper=1)
    hole = build.scalar(node.get_float("mask_filter_value", -10000.0), like)
    return build("Add", scores, build("Mul", later, hole))


FUSED: Mapping[tuple[str, str], Expansion] = {
    (_MICROSOFT, "SkipLayerNormalization"): skip_normalization,
    (_MICROSOFT, "SkipSimplifiedLayerNormalization"): skip_normalization,
    (_MICROSOFT, "FusedMatMul"): fused_matmul,
    (_MICROSOFT, "FusedConv"): fused_conv,
    (_MICROSOFT, "FusedGemm"): fused_gemm,
    (_MICROSOFT, "BiasSoftmax"): bias_softmax,
    (_MICROSOFT, "Attention"): attention,
    (_MICROSOFT, "MultiHeadAttention"): multi_head,
}
