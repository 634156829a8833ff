"""Codes in the file as small as they are, and eight bits wide in the kernel.

What a file stores need not be what a kernel reads: an expression over constants is folded when the model is loaded.

    8 bits       codes (int8)
    4 bits       codes (int4) -> Cast -> int8
    a book       indices (uint4) -> Cast -> Gather of the 16 levels (int8)
    blocks       codes (int4) * multipliers (uint4) -> int8, see `multipliers.py`
    2, 3 bits    bytes (uint8) -> words -> codes -> int8

For the last, eight codes of b bits, made positive, are one word of 8 b bits, stored as b bytes, least first:

    word = sum_i 256^i byte_i,        code_k = (word div 2^(b k)) mod 2^b - 2^(b-1),        k = 0..7

in seven operators that every runtime has (int32 is wide enough: 24 bits at most). They take some hundred bytes
themselves, so weights of less than `LEAST` elements are stored in four bits instead.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ....ir.graph import Graph, Node, Value
from ....ir.origin import Origin
from ....ir.tensor import ArrayTensor
from ....ir.types import DType, TensorType, Type

LEAST = 8192
"""Elements from which on the bits saved on them are worth the operators."""
WORD = 8
"""Codes a word."""


def store_codes(
    graph: Graph,
    codes: NDArray[np.generic],
    name: str,
    *,
    bits: int,
    before: Node,
    book: NDArray[np.float64] | None = None,
    multipliers: NDArray[np.generic] | None = None,
) -> Value:
    """Signed `codes` of so many bits, of the 16 levels of `book`, or to be multiplied by `multipliers` block by block,
    as a value of type int8 (or their own type, for 8 bits), made before `before`."""
    if multipliers is not None:
        return _multiplied(graph, codes, multipliers, name, before)
    if book is not None:
        return _looked_up(graph, codes, name, before, book)
    if bits == 8:
        return graph.constant(codes, name)
    origin = Origin.merge([before.origin], "quant")
    wide = TensorType(DType.INT8, codes.shape)
    if bits in (2, 3) and codes.size >= LEAST:
        flat = _unpacked(graph, codes, name, bits, before, origin)
        shape = graph.constant(np.asarray(codes.shape, np.int64), "shape")
        return graph.add("Reshape", [flat, shape], outputs=["wide"], types=[wide], origin=origin, before=before).output
    packed = graph.constant(ArrayTensor(codes, DType.INT4), name)
    return graph.add(
        "Cast", [packed], {"to": int(DType.INT8)}, outputs=["wide"], types=[wide], origin=origin, before=before
    ).output


def dequantized(
    graph: Graph,
    values: NDArray[np.generic],
    scale: NDArray[np.float32] | Value,
    weight: Value,
    origin: Origin,
    before: Node | None,
    *,
    name: str = "",
    type: Type | None = None,
) -> Value:
    """Cast(values) * scale in the place of `weight`, in its type: an expression over constants, which runtimes fold
    when they load the model, so that everybody computes as before."""
    stored = graph.constant(values, weight.name)
    dtype = DType.DOUBLE if weight.dtype is DType.DOUBLE else DType.FLOAT
    wide = graph.add("Cast", [stored], {"to": int(dtype)}, origin=origin, before=before).output
    factors = scale if isinstance(scale, Value) else graph.constant(np.ascontiguousarray(scale, dtype.numpy), "scale")
    return graph.add("Mul", [wide, factors], outputs=[name], types=[type], origin=origin, before=before).output


def _looked_up(graph: Graph, codes: NDArray[np.generic], name: str, before: Node, book: NDArray[np.float64]) -> Value:
    origin = Origin.merge([before.origin], "quant")
    places = ArrayTensor(np.searchsorted(book, codes).astype(DType.UINT4.numpy), DType.UINT4)
    indices = graph.add("Cast", [graph.constant(places, name)], {"to": int(DType.INT32)}, origin=origin, before=before)
    table = graph.constant(book.astype(np.int8), "book")
    return graph.add(
        "Gather", [table, indices.output], {"axis": 0}, outputs=["wide"],
        types=[TensorType(DType.INT8, codes.shape)], origin=origin, before=before,
    ).output  # fmt: skip


def _multiplied(
    graph: Graph, codes: NDArray[np.generic], multipliers: NDArray[np.generic], name: str, before: Node
) -> Value:
    axis = next(i for i, (n, few) in enumerate(zip(codes.shape, multipliers.shape, strict=True)) if n != few)
    blocks = multipliers.shape[axis]
    parted = (*codes.shape[:axis], blocks, codes.shape[axis] // blocks, *codes.shape[axis + 1 :])

    def wide(array: NDArray[np.generic], dtype: DType, hint: str) -> Value:
        stored = graph.constant(ArrayTensor(array.astype(dtype.numpy), dtype), hint)
        return graph.add("Cast", [stored], {"to": int(DType.INT32)}, before=before).output

    product = graph.add(
        "Mul",
        [
            wide(codes.reshape(parted), DType.INT4, name),
            wide(np.expand_dims(multipliers, axis + 1), DType.UINT4, "multiples"),
        ],
        before=before,
    ).output
    narrow = graph.add("Cast", [product], {"to": int(DType.INT8)}, before=before).output
    return graph.add(
        "Reshape", [narrow, graph.constant(np.asarray(codes.shape, np.int64), "shape")],
        outputs=["wide"], types=[TensorType(DType.INT8, codes.shape)],
        origin=Origin.merge([before.origin], "quant"), before=before,
    ).output  # fmt: skip


def pack_words(codes: NDArray[np.generic], bits: int) -> NDArray[np.uint8]:
    """The bytes (words, bits) of signed `codes`, in order; what is missing in the last word is the least code."""
    positive = np.asarray(codes, np.int64).reshape(-1) + (1 << (bits - 1))
    words = np.pad(positive, (0, -positive.size % WORD)).reshape(-1, WORD) << (bits * np.arange(WORD))
    return np.asarray((words.sum(axis=1)[:, None] >> (8 * np.arange(bits))) & 255, np.uint8)


def _unpacked(graph: Graph, codes: NDArray[np.generic], name: str, bits: int, before: Node, origin: Origin) -> Value:
    """The int8 codes again, flat."""

    def add(op: str, *inputs: Value, to: DType | None = None) -> Value:
        attributes = {} if to is None else {"to": int(to)}
        return graph.add(op, inputs, attributes, origin=origin, before=before).output

    def number(array: object, hint: str) -> Value:
        return graph.constant(np.asarray(array, np.int32), hint)

    stored = add("Cast", graph.constant(pack_words(codes, bits), name), to=DType.INT32)
    word = add("MatMul", stored, number([[256**i] for i in range(bits)], "places"))
    digit = add("Div", word, number([1 << bits * k for k in range(WORD)], "powers"))
    positive = add("Mod", digit, number(1 << bits, "modulus"))
    signed = add("Cast", add("Sub", positive, number(1 << (bits - 1), "half")), to=DType.INT8)
    if codes.size % WORD == 0:
        return signed
    flat = add("Reshape", signed, graph.constant(np.asarray([-1], np.int64), "flat"))
    ends = [graph.constant(np.asarray([end], np.int64), "end") for end in (0, codes.size)]
    return add("Slice", flat, *ends)
