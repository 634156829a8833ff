"""Sizes that the model leaves open, as TVM's expressions of those of its inputs, each written in one way alone.

TVM writes one size in several ways (`min(2147483647, N)` behind a slice, `floordiv(4*N, 4)` behind a reshape) and then
takes them for different ones. Our shape inference has a canonical form of each, and knows the elements of the small
tensors that are computed from sizes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from tvm import tirx

from ....ir.graph import Graph, Value
from ....ir.shapes.infer import Inference, Size, Sym, analyse

_BOUND = re.compile(r"min\((\d+), (.*)\)")


class OpenSizes:
    """Those of the values of a graph. `inputs` holds, for each of its inputs, the sizes of the parameter it becomes."""

    def __init__(self, graph: Graph, inputs: Mapping[Value, tuple[Any, ...]]) -> None:
        self._inference: Inference | None = None
        self._elements: dict[Value, tuple[Size, ...]] = {}
        self._names: dict[str, Any] = {}
        self.derived = False
        """Whether a size was asked for that is no input's own: these hold for inputs that are not empty."""
        if all(isinstance(size, int) for shape in inputs.values() for size in shape):
            return
        self._inference = analyse(graph, declared=False)
        self._elements = self._inference.elements
        for value, shape in inputs.items():
            for size, variable in zip(self._inference.shape(value) or (), shape, strict=False):
                if isinstance(size, Sym) and len(size.terms) == 1 and len(size.terms[0][0]) == 1 == size.terms[0][1]:
                    self._names.setdefault(size.terms[0][0][0], variable)

    def shape(self, value: Value) -> tuple[Any, ...] | None:
        """The sizes of a value; none where one does not follow from those of the inputs."""
        return self._all(None if self._inference is None else self._inference.shape(value))

    def elements(self, value: Value) -> tuple[Any, ...] | None:
        """The elements of a small tensor of whole numbers that follow from the sizes of the inputs; else none."""
        return self._all(self._elements.get(value))

    def unlike(self, value: Value, result: Value) -> list[tuple[int, Any, Any]]:
        """Where `value`, which is spread out over `result`, has a size that is the smaller of the result's and a
        number, or the other way round: the axis of the result, and both sizes. Either is 1 only where both are."""
        if self._inference is None:
            return []
        own, other = self._inference.shape(value), self._inference.shape(result)
        sizes, wanted = self.shape(value), self.shape(result)
        if own is None or other is None or sizes is None or wanted is None:
            return []
        first = len(other) - len(own)
        axes = [axis for axis, size in enumerate(own) if _bounds(size, other[first + axis])]
        return [(first + axis, sizes[axis], wanted[first + axis]) for axis in axes]

    def _all(self, sizes: tuple[Size, ...] | None) -> tuple[Any, ...] | None:
        if sizes is None:
            return None
        expressions = [size if isinstance(size, int) else self._expression(size) for size in sizes]
        return None if None in expressions else tuple(expressions)

    def _expression(self, size: Sym) -> Any:
        self.derived |= str(size) not in self._names
        total: Any = None
        for monomial, coefficient in size.terms:
            factors = [self._atom(atom) for atom in monomial]
            if None in factors:
                return None
            term: Any = coefficient
            for factor in factors:
                term = factor if isinstance(term, int) and term == 1 else term * factor
            total = term if total is None else total + term
        return total

    def _atom(self, text: str) -> Any:
        """A name, or the smaller, the larger or the quotient of two expressions, whose text the atom is."""
        if text in self._names:
            return self._names[text]
        if not text.startswith(("floor(", "min(", "max(")):
            return None
        try:
            return self._parsed(ast.parse(text, mode="eval").body)
        except (SyntaxError, KeyError, RecursionError):
            return None

    def _parsed(self, tree: ast.expr) -> Any:
        match tree:
            case ast.Name(id=name):
                return self._names[name]
            case ast.Constant(value=int() as number):
                return tirx.const(number, "int64")
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return 0 - self._parsed(operand)
            case ast.Call(func=ast.Name(id="floor"), args=[ast.BinOp(left=left, op=ast.Div(), right=right)]):
                return tirx.floordiv(self._parsed(left), self._parsed(right))
            case ast.Call(func=ast.Name(id="min"), args=[left, right]):
                return tirx.min(self._parsed(left), self._parsed(right))
            case ast.Call(func=ast.Name(id="max"), args=[left, right]):
                return tirx.max(self._parsed(left), self._parsed(right))
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._parsed(left) + self._parsed(right)
            case ast.BinOp(left=left, op=ast.Sub(), right=right):
                return self._parsed(left) - self._parsed(right)
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                return self._parsed(left) * self._parsed(right)
        raise KeyError(ast.dump(tree))


def _bounds(one: Size, other: Size) -> bool:
    """Whether one of two sizes is the smaller of the other and a number above 1."""
    for small, large in ((str(one), str(other)), (str(other), str(one))):
        bound = _BOUND.fullmatch(small)
        if bound is not None and bound[2] == large and int(bound[1]) > 1:
            return True
    return False
