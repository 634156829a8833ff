"""Products of matrices, of any rank, and of any axes (Einsum)."""

from __future__ import annotations

from collections.abc import Sequence

from ...graph import Value
from ..builder import Builder, CannotDifferentiate
from .call import GradientCall, Rule


def _turned(build: Builder, value: Value, rank: int) -> Value:
    """The last two axes exchanged."""
    return build.transpose(value, *range(rank - 2), rank - 1, rank - 2)


def matmul(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    """A' = G B^T and B' = A^T G, batches that were broadcast summed; vectors are matrices of one row or column."""
    g, a, b = call.gradient, call.input(0), call.input(1)
    ranks = build.rank(a), build.rank(b)
    if min(ranks) == 1:
        return _with_vector(call, build, ranks)
    first = second = None
    if call.wants(0):
        first = build.unbroadcast_batches(build("MatMul", g, _turned(build, b, ranks[1])), call.output, a)
    if call.wants(1):
        if ranks[1] == 2:
            # One product over all rows, not one a batch that are summed.
            rows = (build.rows(a, a), build.rows(g, call.output)) if ranks[0] > 2 else (a, g)
            second = build("Gemm", *rows, transA=1)
        else:
            second = build.unbroadcast_batches(build("MatMul", _turned(build, a, ranks[0]), g), call.output, b)
    return first, second


def _with_vector(call: GradientCall, build: Builder, ranks: tuple[int, int]) -> Sequence[Value | None]:
    g, a, b = call.gradient, call.input(0), call.input(1)
    if ranks == (1, 1):
        return build("Mul", g, b), build("Mul", g, a)
    if ranks[0] == 1:  # [k] x [..., k, n] -> [..., n]
        row = build.unsqueeze(g, [ranks[1] - 2])
        first = build.sum(build("Mul", b, row), [i for i in range(ranks[1]) if i != ranks[1] - 2])
        return first, build("Mul", build.unsqueeze(a, [1]), row)
    column = build.unsqueeze(g, [ranks[0] - 1])  # [..., m, k] x [k] -> [..., m]
    return build("Mul", column, b), build.sum(build("Mul", a, column), range(ranks[0] - 1))


def gemm(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    """alpha A' B' + beta C, where A' and B' may be transposed."""
    g, a, b, c = call.gradient, call.input(0), call.input(1), call.node.input(2)
    node = call.node
    alpha, beta = node.get_float("alpha", 1.0), node.get_float("beta", 1.0)
    turn_a, turn_b = node.get_int("transA"), node.get_int("transB")

    def product(x: Value, y: Value, turn_x: int, turn_y: int) -> Value:
        return build("Gemm", x, y, alpha=alpha, transA=turn_x, transB=turn_y)

    first = second = third = None
    if call.wants(0):
        first = product(b, g, turn_b, 1) if turn_a else product(g, b, 0, 1 - turn_b)
    if call.wants(1):
        second = product(g, a, 1, turn_a) if turn_b else product(a, g, 1 - turn_a, 0)
    if c is not None and call.wants(2):
        third = build.unbroadcast(g, call.output, c)
        third = third if beta == 1.0 else build("Mul", third, build.scalar(beta, c))
    return first, second, third


def einsum(call: GradientCall, build: Builder) -> Sequence[Value | None]:
    """For each operand, the gradient times the other operands, summed over the axes that it lacks."""
    equation = call.node.get_string("equation").replace(" ", "")
    if "." in equation:
        raise CannotDifferentiate("leaves axes without a letter")
    left, arrow, out = equation.partition("->")
    terms = left.split(",")
    if not arrow:
        letters = left.replace(",", "")
        out = "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    gradients: list[Value | None] = []
    for index, term in enumerate(terms):
        if not call.wants(index):
            gradients.append(None)
            continue
        if len(set(term)) < len(term):
            raise CannotDifferentiate("reads a diagonal")
        others = [(other, call.input(i)) for i, other in enumerate(terms) if i != index]
        there = {*out, *(letter for other, _ in others for letter in other)}
        kept = "".join(letter for letter in term if letter in there)
        formula = ",".join([out, *(other for other, _ in others)]) + f"->{kept}"
        gradient = build("Einsum", call.gradient, *(value for _, value in others), equation=formula)
        if kept != term:  # an axis that is only summed: the same for each of its elements
            gradient = build.unsqueeze(gradient, [i for i, letter in enumerate(term) if letter not in there])
            gradient = build("Expand", gradient, build.shape_of(call.input(index)))
        gradients.append(gradient)
    return gradients


RULES: dict[str, Rule] = {"MatMul": matmul, "Gemm": gemm, "Einsum": einsum}
