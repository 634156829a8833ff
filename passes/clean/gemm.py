"""MatMul and Add into Gemm, Transpose into Gemm, and the factors of Gemm into its constants.

    1. MatMul(A, B) + c                      ->  Gemm(A, B, c)            for A and B of rank 2, c one constant row
    2. Gemm(Transpose(A), B)                 ->  Gemm<transA>(A, B), and the same for B
    3. MatMul(A, B) with A = Transpose(A'), constant B, then + c: by 1 and then 2
    4. Gemm<alpha>(A, B, c)                  ->  Gemm(A, alpha * B, c)    for constant B, and the same for beta and c

Exact up to the rounding of one addition, or of each product with a factor. Does not fire where a rank is not known to
be 2, where c is computed or differs between rows, as in residual sums (passes take c for a bias, and integer kernels
do), where c does not broadcast into the result (rank above 2, or a size that is neither 1 nor provably the result's),
for types other than floats, or where the product is read by others; 4 not where the new constant would overflow or
underflow, or where others read the old one, unless it is small.
"""

from __future__ import annotations

import numpy as np

from ...ir.node import Node
from .broadcast import fits_into
from .fill import Array
from .layer import FLOATS, multiply, sound
from .rewriter import Rewriter, Rule
from .transpose import permutation


def _add(node: Node, rewriter: Rewriter) -> bool:
    for index in (0, 1):
        product, added = rewriter.made_only_for(node, index, "MatMul"), node.input(1 - index)
        if product is None or added is None or added.shape is None or not _is_row(rewriter.array(added)):
            continue
        a, b = product.inputs[0], product.inputs[1]
        if a is None or b is None or a.shape is None or b.shape is None or len(a.shape) != 2 or len(b.shape) != 2:
            continue
        if node.output.dtype not in FLOATS or not fits_into(added.shape, (a.shape[0], b.shape[1])):
            continue
        rewriter.replace(node, rewriter.make(node, "Gemm", [a, b, added], merged=[product]))
        return True
    return False


def _is_row(array: Array | None) -> bool:
    """Whether what is added is a constant, and the same for every row."""
    return array is not None and (array.ndim < 2 or array.shape[0] == 1)


def _transposed(node: Node, rewriter: Rewriter) -> bool:
    for index, name in ((0, "transA"), (1, "transB")):
        transpose = rewriter.made_only_for(node, index, "Transpose")
        if transpose is not None and permutation(transpose) == (1, 0):
            node.set_attribute(name, 1 - node.get_int(name))
            rewriter.set_input(node, index, transpose.inputs[0])
            rewriter.touch(node, transpose)
            return True
    return False


def _scaled(node: Node, rewriter: Rewriter) -> bool:
    fired = False
    for name, index in (("alpha", 1), ("beta", 2)):
        factor, old = node.get_float(name, 1.0), node.input(index)
        array = rewriter.array(old)
        if factor == 1.0 or old is None or array is None or old.dtype not in FLOATS:
            continue
        with np.errstate(over="ignore"):
            product = multiply(array, np.asarray(factor))
        if sound(product) and rewriter.pays([product], node):
            rewriter.set_input(node, index, rewriter.constant(node, product, old.name))
            del node.attributes[name]
            fired = True
    return fired


RULES = (
    Rule("matmul-add", ("Add",), _add),
    Rule("gemm-transpose", ("Gemm",), _transposed),
    Rule("gemm-scale", ("Gemm",), _scaled),
)
