"""Pruned weights stored as `sparse_initializer`: the weights that stay, and where they stand.

ONNX wants positions as 64-bit integers, so a float weight that stays takes 12 bytes instead of 4: the file shrinks
where more than two thirds of a weight are zero. The runtime makes the weight dense again when it loads the model, so
neither answers nor speed change. Nothing else than what the file holds is decided here; a later pass that reads the
weight sees the dense one, zeros included.

Left dense: what would not shrink.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...ir.tensor import ArrayTensor, SparseTensor, Tensor
from ..walk.linear import Linear


def sparse(tensor: Tensor) -> SparseTensor | None:
    """`tensor` as its elements that are not zero, by linear position; `None` where that takes no fewer bytes."""
    flat = tensor.numpy().reshape(-1)
    at = np.flatnonzero(flat).astype(np.int64)
    packed = SparseTensor(ArrayTensor(flat[at], tensor.dtype), ArrayTensor(at), tensor.shape)
    return packed if packed.nbytes < tensor.nbytes else None


def store_sparse(layers: Iterable[Linear]) -> tuple[int, int]:
    """Store the weights of `layers` sparse where that takes fewer bytes; returns how many are, and how many are not."""
    stored = left = 0
    for layer in layers:
        old, graph = layer.weight, layer.node.graph
        assert old.constant is not None
        assert graph is not None
        packed = sparse(old.constant)
        if packed is None:
            left += 1
            continue
        layer.put(graph.constant(packed, old.name))
        stored += 1
    return stored, left
