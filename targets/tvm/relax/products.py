"""Matrix products, by weights that are packed when the model is compiled, and of two computed matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax, sym

from ....ir.node import Node
from ..compute import dense as products
from .expressions import FUSABLE, Blocked, constant, number
from .importer import Importer
from .integer_layers import lower_coded

_FLOATS = ("float32", "float16")


def lower_matmul(importer: Importer, node: Node) -> relax.Expr | Blocked | None:
    if (coded := lower_coded(importer, node)) is not None:
        return coded
    x, y = node.inputs[0], node.inputs[1]
    if x is None or y is None:
        return None
    if y.constant is not None:
        return _dense(importer, importer.plain(x), y.constant.numpy(), None)
    a, b = importer.plain(x), importer.plain(y)
    if len(a.ty.shape) != len(b.ty.shape) or len(a.ty.shape) < 2 or a.ty.dtype.dtype not in _FLOATS:
        return None
    if any(not _equal(p, q) for p, q in zip(list(a.ty.shape)[:-2], list(b.ty.shape)[:-2], strict=True)):
        return None
    tile = importer.tile("matmul", a, [number(size) for size in b.ty.shape])
    return importer.te(products.matmul, a, b, pattern=FUSABLE, tile=tile, block=importer.machine.block)


def lower_gemm(importer: Importer, node: Node) -> relax.Expr | Blocked | None:
    if (coded := lower_coded(importer, node)) is not None:
        return coded
    x, y, bias = node.inputs[0], node.inputs[1], node.input(2)
    if x is None or y is None:
        return None
    if y.constant is None or node.get_int("transA") or (bias is not None and bias.constant is None):
        return _product(importer, node, importer.plain(x), importer.plain(y))
    w = y.constant.numpy()
    w = w.T if node.get_int("transB") else w
    offset = None if bias is None or bias.constant is None else bias.constant.numpy()
    alpha, beta = node.get_float("alpha", 1.0), node.get_float("beta", 1.0)
    if offset is not None and beta != 1:
        offset = (offset * np.asarray(beta, offset.dtype)).astype(offset.dtype)
    return _dense(importer, importer.plain(x), w if alpha == 1 else (w * np.asarray(alpha, w.dtype)), offset)


def _product(importer: Importer, node: Node, x: relax.Expr, y: relax.Expr) -> relax.Expr | None:
    """The Gemm of two matrices that are both computed, or lie otherwise than `dense` takes them."""
    if not isinstance(x.ty, relax.TensorType) or x.ty.dtype.dtype not in _FLOATS:
        return None
    x, y = (
        importer.emit(relax.op.permute_dims(one, [1, 0])) if node.get_int(f"trans{name}") else one
        for one, name in ((x, "A"), (y, "B"))
    )
    tile = importer.tile("matmul", x, [number(size) for size in y.ty.shape])
    total = importer.te(products.matmul, x, y, pattern=FUSABLE, tile=tile, block=importer.machine.block)
    terms = [(total, node.get_float("alpha", 1.0))]
    if (bias := node.input(2)) is not None:
        terms.append((importer.plain(bias), node.get_float("beta", 1.0)))
    scaled = [
        one if by == 1 else importer.emit(relax.op.multiply(one, relax.const(by, x.ty.dtype.dtype)))
        for one, by in terms
    ]
    return scaled[0] if len(scaled) == 1 else importer.emit(relax.op.add(*scaled))


def _dense(
    importer: Importer, x: relax.Expr, w: npt.NDArray[np.generic], bias: npt.NDArray[np.generic] | None
) -> relax.Expr | Blocked | None:
    shape = x.ty.shape
    if w.ndim != 2 or w.dtype not in _FLOATS or len(shape) < 2:
        return None
    tile = importer.tile("dense", x, w.shape)
    packed = constant(products.pack(w, tile, importer.machine.block))
    product = importer.te(products.dense, x, packed, pattern=FUSABLE, columns=w.shape[1], tile=tile)
    return product if bias is None else importer.emit(relax.op.add(product, constant(bias)))


def _equal(a: Any, b: Any) -> bool:
    return bool(sym.Analyzer().can_prove_equal(a, b))
