"""Products in two factors, for everybody who reads the weight.

A weight stored as S = L R, of rank r, is read as it is, x S = (x L) R; the other way round, x S^T = (x R^T) L^T; from
the left, S x = L (R x), and S^T x = R^T (L^T x); and as a table, S[i] = L[i] R. Each factor is stored once: where it is
read the other way round a Transpose stands before it, which runtimes compute at load.
"""

from __future__ import annotations

from ...ir.graph import Node, Value
from ...ir.origin import Origin
from ..walk.linear import Linear, Other
from ..walk.target import Array


def replace_products(layer: Linear, factors: tuple[Array, ...], bias: Array | None) -> None:
    """MatMul and Gemm: a MatMul to the rank, then the old nodes on the second factor, with the `bias`; the same for all
    readers. `factors` are (r, d) and (n, r)."""
    first, second = factors
    narrow = layer.constant(first if layer.left else first.T, f"{layer.weight.name}.0")
    for reader in layer.readers:
        _narrow(reader.node, narrow, left=reader.left)
    layer.write(second[None], bias)
    if layer.others:
        one, two = ("R", "L") if layer.turned else ("L", "R")
        stored = _Factors({(one, layer.turned != layer.left): narrow, (two, False): layer.weight})
        for other in layer.others:
            _split(other, stored)


class _Factors:
    """The factors "L" and "R" as they are stored, and the other way round once somebody asks for that."""

    def __init__(self, stored: dict[tuple[str, bool], Value]) -> None:
        self._stored = stored

    def get(self, factor: str, turned: bool) -> Value:
        if (factor, turned) not in self._stored:
            plain = self._stored[factor, not turned]
            graph = plain.graph
            assert graph is not None
            first = next(iter(graph))
            node = graph.add("Transpose", [plain], {"perm": [1, 0]}, outputs=[f"{plain.name}.turned"], before=first)
            self._stored[factor, turned] = node.output
        return self._stored[factor, turned]


def _split(other: Other, stored: _Factors) -> None:
    node, layer = other.node, other.layer
    if layer is None:
        _look_up(node, stored)
        return
    (one, two), flipped = ("RL" if layer.turned else "LR"), layer.turned != layer.left
    _narrow(node, stored.get(one, flipped), left=layer.left)
    by_attribute = node.op == "Gemm" and bool(node.get_int("transB"))
    node.set_input(layer.operand, stored.get(two, flipped != by_attribute))


def _narrow(node: Node, weight: Value, *, left: bool) -> None:
    """Let `node` read its input times `weight`, from the left where it is `left`."""
    graph, place = node.graph, 1 if left else 0
    assert graph is not None
    source = node.inputs[place]
    thin = graph.add(
        "MatMul",
        [weight, source] if left else [source, weight],
        outputs=[f"{node.output.name}.0"],
        name=f"{node.name}.0" if node.name else "",
        origin=Origin.merge([node.origin], by="svd"),
        before=node,
    )
    node.set_input(place, thin.output)
    node.origin = thin.origin


def _look_up(node: Node, stored: _Factors) -> None:
    """A Gather of rows of the first factor, then a product with the second in its place."""
    graph, out = node.graph, node.output
    assert graph is not None
    origin = Origin.merge([node.origin], by="svd")
    rows = graph.add(
        "Gather",
        [stored.get("L", False), node.inputs[1]],
        dict(node.attributes),
        outputs=[f"{out.name}.0"],
        name=f"{node.name}.0" if node.name else "",
        origin=origin,
        before=node,
    )
    product = graph.add(
        "MatMul",
        [rows.output, stored.get("R", False)],
        outputs=[out.name],
        types=[out.type],
        name=node.name,
        origin=origin,
        before=node,
    )
    out.replace_uses(product.output)
    graph.remove(node)
