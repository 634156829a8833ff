"""The attention operators of ONNX Runtime (`com.microsoft`)."""

from __future__ import annotations

from ..symbols import Size, floor_divide
from .call import Call, Fact, Rule


def projected(call: Call) -> list[Fact]:
    """Attention and QAttention: the input (batch, length, width) is projected first, by one matrix for Q, K and V. The
    result has the width of V; the present keys and values are (2, batch, heads, past + length, head size)."""
    x, weight = call.shape(0), call.shape(1)
    sizes = call.node.get_ints("qkv_hidden_sizes")
    width: Size = sizes[2] if len(sizes) == 3 else floor_divide(weight[1], 3)
    heads = max(call.node.get_int("num_heads", 1), 1)
    dtype = call.fact(3).dtype if call.node.op == "QAttention" else call.fact(0).dtype
    past = 8 if call.node.op == "QAttention" else 4
    total = x[1] + call.shape(past)[3] if call.has(past) else x[1]
    return [Fact(dtype, (*x[:2], width)), Fact(dtype, (2, x[0], heads, total, floor_divide(width, heads)))]


def packed(call: Call) -> list[Fact]:
    """PackedAttention: as `projected`, of the tokens of all samples in one row (tokens, width)."""
    x, weight = call.shape(0), call.shape(1)
    sizes = call.node.get_ints("qkv_hidden_sizes")
    return [Fact(call.fact(0).dtype, (x[0], sizes[2] if len(sizes) == 3 else floor_divide(weight[1], 3)))]


def multi_head(call: Call) -> list[Fact]:
    """MultiHeadAttention: queries (batch, length, width), or all of Q, K and V (batch, length, heads, 3, head size);
    keys and values (batch, keys, width) or (batch, heads, keys, head size)."""
    q = call.shape(0)
    heads = max(call.node.get_int("num_heads", 1), 1)
    dtype = call.fact(0).dtype
    width: Size
    if len(q) == 5:
        width, keys = q[2] * q[4], q[1]
    elif call.has(2):
        v = call.shape(2)
        width, keys = (v[2], v[1]) if len(v) == 3 else (v[1] * v[3], v[2])
    else:  # keys and values in one: (batch, keys, heads, 2, head size)
        k = call.shape(1)
        width, keys = k[2] * k[4], k[1]
    total = keys + call.shape(6)[2] if call.has(6) else keys
    present = Fact(dtype, (q[0], heads, total, floor_divide(width, heads)))
    return [Fact(dtype, (*q[:2], width)), present, present]


def grouped(call: Call) -> list[Fact]:
    """GroupQueryAttention: queries (batch, length, heads * head size), with keys and values behind them where those are
    no inputs. How long the present ones are follows from data."""
    q, dtype = call.shape(0), call.fact(0).dtype
    heads, few = max(call.node.get_int("num_heads", 1), 1), max(call.node.get_int("kv_num_heads", 1), 1)
    size = floor_divide(q[2], heads if call.has(1) else heads + 2 * few)
    present = Fact(dtype, (q[0], few, call.unknown(1)[0], size))
    return [Fact(dtype, (*q[:2], heads * size)), present, present]


RULES: dict[str, Rule] = {
    "Attention": projected,
    "GroupQueryAttention": grouped,
    "MultiHeadAttention": multi_head,
    "PackedAttention": packed,
    "QAttention": projected,
}
