"""Matrix products, einsum, attention and recurrent layers."""

from __future__ import annotations

from ...types import DType
from ..symbols import Size, floor_divide
from .call import Call, Fact, Rule, Sizes


def product_shape(call: Call, a: Sizes, b: Sizes) -> Sizes:
    """The shape of the product of `a` and `b`, as numpy.matmul has it."""
    if not a or not b:
        raise call.error("MatMul takes no scalars")
    left = (1, *a) if len(a) == 1 else a
    right = (*b, 1) if len(b) == 1 else b
    if isinstance(left[-1], int) and isinstance(right[-2], int) and left[-1] != right[-2]:
        raise call.error(f"the inner sizes {left[-1]} and {right[-2]} differ")
    batch = call.broadcast([left[:-2], right[:-2]])
    return batch + left[-2:-1] * (len(a) > 1) + right[-1:] * (len(b) > 1)


def matmul(call: Call) -> list[Fact]:
    return [Fact(call.fact(0).dtype, product_shape(call, call.shape(0), call.shape(1)))]


def matmul_integer(call: Call) -> list[Fact]:
    return [Fact(DType.INT32, product_shape(call, call.shape(0), call.shape(1)))]


def qlinear_matmul(call: Call) -> list[Fact]:
    return [Fact(call.fact(7).dtype, product_shape(call, call.shape(0), call.shape(3)))]


def gemm(call: Call) -> list[Fact]:
    a, b = call.shape(0), call.shape(1)
    if len(a) != 2 or len(b) != 2:
        raise call.error(f"Gemm takes matrices, not ranks {len(a)} and {len(b)}")
    rows, inner = (a[1], a[0]) if call.node.get_int("transA") else (a[0], a[1])
    other, columns = (b[1], b[0]) if call.node.get_int("transB") else (b[0], b[1])
    if isinstance(inner, int) and isinstance(other, int) and inner != other:
        raise call.error(f"the inner sizes {inner} and {other} differ")
    return [Fact(call.fact(0).dtype, (rows, columns))]


def einsum_sizes(equation: str, shapes: list[Sizes]) -> tuple[dict[str, Size], list[str]]:
    """The size of every label of `equation`, and the labels of its output.

    The axes under `...` are labelled "0", "1", … from the last. Raises `ValueError` where equation and shapes do not
    fit.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        raise ValueError(f"{equation!r} has {len(terms)} terms for {len(shapes)} inputs")
    sizes: dict[str, Size] = {}
    hidden = 0
    for term, shape in zip(terms, shapes):
        before, dots, after = term.partition("...")
        extra = len(shape) - len(before) - len(after)
        if extra < 0 or (extra and not dots):
            raise ValueError(f"{equation!r} does not fit a shape of rank {len(shape)}")
        hidden = max(hidden, extra)
        labels = [*before, *(str(extra - 1 - i) for i in range(extra)), *after]
        for label, size in zip(labels, shape):
            if sizes.get(label, 1) == 1 or (isinstance(size, int) and size != 1):
                sizes[label] = size
    ellipsis = [str(hidden - 1 - i) for i in range(hidden)]
    if not arrow:
        letters = [c for c in left if c.isalpha()]
        return sizes, ellipsis + sorted(c for c in set(letters) if letters.count(c) == 1)
    before, dots, after = right.partition("...")
    return sizes, [*before, *(ellipsis if dots else []), *after]


def einsum(call: Call) -> list[Fact]:
    shapes = [call.shape(i) for i in range(len(call.facts))]
    try:
        sizes, labels = einsum_sizes(call.node.get_string("equation"), shapes)
        return [Fact(call.fact(0).dtype, tuple(sizes[label] for label in labels))]
    except (ValueError, KeyError) as error:
        raise call.error(f"the equation does not fit the inputs: {error}") from None


def recurrent(call: Call) -> list[Fact]:
    """LSTM, GRU and RNN: Y (steps, directions, batch, hidden), then the last states (directions, batch, hidden)."""
    node, x, recurrence = call.node, call.shape(0), call.shape(2)
    directions = 2 if node.get_string("direction", "forward") == "bidirectional" else 1
    hidden: Size = node.get_int("hidden_size") or recurrence[2]
    dtype = call.fact(0).dtype
    if node.get_int("layout"):
        state = Fact(dtype, (x[0], directions, hidden))
        return [Fact(dtype, (x[0], x[1], directions, hidden)), state, state]
    state = Fact(dtype, (directions, x[1], hidden))
    return [Fact(dtype, (x[0], directions, x[1], hidden)), state, state]


def attention(call: Call) -> list[Fact]:
    """Y like Q with the head size of V; present key and value (batch, heads, past + keys, head size); scores.

    Q, K, V are (batch, heads, length, head size), or (batch, length, heads * head size) with the heads as attributes.
    """
    q, k, v = call.shape(0), call.shape(1), call.shape(2)
    if len(q) == 4:
        batch, heads, length, _ = q
        few, keys, size_k, size_v = k[1], k[2], k[3], v[3]
        sizes: Sizes = (batch, heads, length, size_v)
    else:
        batch, length, _ = q
        heads, few = call.node.get_int("q_num_heads", 1), call.node.get_int("kv_num_heads", 1)
        keys, size_k, size_v = k[1], floor_divide(k[2], few), floor_divide(v[2], few)
        sizes = (batch, length, heads * size_v)
    total = keys + call.shape(4)[2] if call.has(4) else keys
    return [
        Fact(call.fact(0).dtype, sizes),
        Fact(call.fact(1).dtype, (batch, few, total, size_k)),
        Fact(call.fact(2).dtype, (batch, few, total, size_v)),
        Fact(call.fact(0).dtype, (batch, heads, length, total)),
    ]


RULES: dict[str, Rule] = {
    "MatMul": matmul,
    "MatMulInteger": matmul_integer,
    "QLinearMatMul": qlinear_matmul,
    "Gemm": gemm,
    "Attention": attention,
    "Einsum": einsum,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), recurrent),
}
