"""Sizes that are not numbers: polynomials with integer coefficients over named sizes.

A `Size` is an `int` or a `Sym`. A `Sym` is a sum of products of atoms: names of the model (`N`, `T`), derived atoms
whose name is the expression itself (`floor((H - 1)/2)`), and unknowns, which start with `?` and stand for one unknown
each, so that "unknown, but the same" is still known. Equal expressions are equal by value, because the terms are kept
in a canonical order. This is all the algebra that shape arithmetic needs: sums, products, exact and floor division,
smaller and larger.

Every named size is taken to be at least 1: an exporter that writes `N` does not mean an empty tensor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import ast

Size: TypeAlias = "int | Sym"
Monomial: TypeAlias = tuple[str, ...]
"""Atoms in order, repeated for powers; empty for the constant term."""

_MOST_TERMS = 256
"""Products of terms that are written out."""
_LONGEST = 256
"""Characters of a name that is read as an expression."""


class Sym:
    """A polynomial that is not a number. Made by `symbol` and by arithmetic, which returns an `int` where it can."""

    __slots__ = ("_text", "terms")

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        self.terms = terms
        self._text = ""

    @property
    def atoms(self) -> frozenset[str]:
        return frozenset(atom for monomial, _ in self.terms for atom in monomial)

    @property
    def named(self) -> bool:
        """Whether every atom is a name of the model or derived from such names."""
        return not any("?" in atom for monomial, _ in self.terms for atom in monomial)

    @property
    def is_size(self) -> bool:
        """Whether it comes from sizes alone, hence cannot be negative; an unknown *element* (`?x…`) can be."""
        return not any("?x" in atom for monomial, _ in self.terms for atom in monomial)

    @property
    def large(self) -> bool:
        """Whether it is longer than shape arithmetic makes them: better forgotten than squared once more."""
        return len(self.terms) > 32 or sum(len(atom) for monomial, _ in self.terms for atom in monomial) > 1000

    def at_least(self, bound: int) -> bool:
        """Whether it is surely at least `bound`: named sizes are at least 1, others at least 0, none is taken away."""
        lowest = 0
        for monomial, coefficient in self.terms:
            if monomial and (coefficient < 0 or any("-" in atom or "?x" in atom for atom in monomial)):
                return False
            if not any("(" in atom or "?" in atom for atom in monomial):
                lowest += coefficient
        return lowest >= bound

    def at_ones(self) -> int:
        """The number it becomes when every atom is 1."""
        return sum(coefficient for _, coefficient in self.terms)

    def __add__(self, other: Size) -> Size:
        terms = dict(self.terms)
        for monomial, coefficient in _terms(other):
            terms[monomial] = terms.get(monomial, 0) + coefficient
        return _make(terms)

    def __mul__(self, other: Size) -> Size:
        if isinstance(other, Sym) and len(self.terms) * len(other.terms) > _MOST_TERMS:
            # A name that says the same for the same factors: products of sums grow without bound.
            factors = "".join(sorted((str(self), str(other))))
            return atom(f"?{hashlib.blake2b(factors.encode(errors='surrogatepass'), digest_size=8).hexdigest()}")
        terms: dict[Monomial, int] = {}
        for left, a in self.terms:
            for right, b in _terms(other):
                monomial = tuple(sorted(left + right))
                terms[monomial] = terms.get(monomial, 0) + a * b
        return _make(terms)

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> Size:
        return self * -1

    def __sub__(self, other: Size) -> Size:
        return self + -other

    def __rsub__(self, other: int) -> Size:
        return -self + other

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sym) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(self.terms)

    def __str__(self) -> str:
        if not self._text:
            text = ""
            for monomial, coefficient in self.terms:
                factors = [str(abs(coefficient))] * (abs(coefficient) != 1 or not monomial) + list(monomial)
                text += (" - " if coefficient < 0 else " + ") + "*".join(factors)
            self._text = text[3:] if text.startswith(" + ") else "-" + text[3:]
        return self._text

    def __repr__(self) -> str:
        return f"Sym({self})"


def _terms(size: Size) -> Iterable[tuple[Monomial, int]]:
    return size.terms if isinstance(size, Sym) else (((), size),)


def _make(terms: Mapping[Monomial, int]) -> Size:
    kept = {m: c for m, c in terms.items() if c}
    if not kept:
        return 0
    if len(kept) == 1 and () in kept:
        return kept[()]
    return Sym(tuple(sorted(kept.items(), key=lambda term: (-len(term[0]), term[0]))))


def atom(name: str) -> Sym:
    """The size called `name`, whatever the name looks like."""
    return Sym((((name,), 1),))


def product(sizes: Iterable[Size]) -> Size:
    result: Size = 1
    for size in sizes:
        result = result * size
    return result


def divide(a: Size, b: Size) -> Size | None:
    """`a / b` where the division is exact for all values, else `None`: long division by leading terms."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b if b and a % b == 0 else None
    if b == 0:
        return None
    lead, scale = next(iter(_terms(b)))
    rest, quotient = a, 0  # type: Size, Size
    while rest != 0:
        monomial, coefficient = next(iter(_terms(rest)))
        left = list(monomial)
        for factor in lead:
            if factor not in left:
                return None
            left.remove(factor)
        if coefficient % scale:
            return None
        step = _make({tuple(left): coefficient // scale})
        quotient, rest = quotient + step, rest - step * b
    return quotient


def floor_divide(a: Size, b: Size) -> Size:
    """The largest whole number at most `a / b`, for positive `b`."""
    exact = divide(a, b)
    if exact is not None:
        return exact
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if isinstance(b, int) and isinstance(a, Sym):
        whole = _make({m: c // b for m, c in a.terms})
        rest = a - whole * b
        if isinstance(rest, int):
            return whole
        return whole + atom(f"floor({_group(rest)}/{b})")
    return atom(f"floor({_group(a)}/{_group(b)})")


def minimum(a: Size, b: Size) -> Size:
    return _extreme("min", a, b)


def maximum(a: Size, b: Size) -> Size:
    return _extreme("max", a, b)


def _extreme(which: str, a: Size, b: Size) -> Size:
    difference = a - b
    if isinstance(difference, int):
        return a if (difference <= 0) == (which == "min") else b
    if difference.at_least(0):
        return b if which == "min" else a
    opposite = b - a
    if isinstance(opposite, Sym) and opposite.at_least(0):
        return a if which == "min" else b
    for one, two in ((a, b), (b, a)):
        if _holds(one, "min" if which == "max" else "max", two):
            return two
    first, second = sorted((str(a), str(b)))
    return atom(f"{which}({first}, {second})")


def _holds(size: Size, which: str, part: Size) -> bool:
    """Whether `size` is `which(part, …)`: then max(x, min(x, c)) is x, and min(x, max(x, c)) too."""
    text = str(size)
    if not text.startswith(f"{which}(") or not _closes_last(text):
        return False  # max(x, c) - 1 begins so, too
    return text.startswith(f"{which}({part}, ") or text.endswith(f", {part})")


def _closes_last(text: str) -> bool:
    """Whether the first parenthesis of a text is closed by its last character."""
    depth = 0
    for at, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == ")" and not depth:
            return at == len(text) - 1
    return False


def _group(size: Size) -> str:
    single = isinstance(size, int) or (len(size.terms) == 1 and size.terms[0][1] == 1 and len(size.terms[0][0]) == 1)
    return str(size) if single else f"({size})"


def symbol(text: str, sizes: Mapping[str, int] | None = None) -> Size:
    """The size that `text` spells, with the names in `sizes` replaced by numbers.

    Text that is no expression over names (exporters write anything) is one opaque name. So is a number: a size that is
    known is no text, and an exporter that names one "16" does not mean that it is always 16.
    """
    sizes = sizes or {}
    if text in sizes:
        return sizes[text]
    if text.isidentifier() or len(text) > _LONGEST:
        return atom(text)
    import ast

    try:
        tree = ast.parse(text.strip(), mode="eval").body
        size = _evaluate(tree, sizes)
        if isinstance(size, int) and isinstance(_evaluate(tree, {}), int):
            opaque = f"?'{text}'"  # an unknown: its text must not be read as a part of an expression
            return sizes.get(opaque, atom(opaque))
    except (SyntaxError, RecursionError, ValueError, MemoryError):
        size = None
    return atom(text) if size is None else size


def _evaluate(tree: ast.expr, sizes: Mapping[str, int]) -> Size | None:
    import ast

    match tree:
        case ast.Name(id=name):
            return sizes.get(name, atom(name))
        case ast.Constant(value=int() as number):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _evaluate(operand, sizes)
            return None if inner is None else -inner
        case ast.Call(func=ast.Name(id="floor"), args=[ast.BinOp(left=left, op=ast.Div(), right=right)]):
            return _combine(ast.FloorDiv(), _evaluate(left, sizes), _evaluate(right, sizes))
        case ast.Call(func=ast.Name(id="min" | "max" as name), args=[left, right]):
            a, b = _evaluate(left, sizes), _evaluate(right, sizes)
            return None if a is None or b is None else _extreme(name, a, b)
        case ast.BinOp(left=left, op=op, right=right):
            return _combine(op, _evaluate(left, sizes), _evaluate(right, sizes))
    return None


def _combine(op: ast.operator, a: Size | None, b: Size | None) -> Size | None:
    import ast

    if a is None or b is None:
        return None
    match op:
        case ast.Add():
            return a + b
        case ast.Sub():
            return a - b
        case ast.Mult():
            return a * b
        case ast.FloorDiv() if b != 0:
            return floor_divide(a, b)
    return None
