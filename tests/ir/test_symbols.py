"""The algebra of sizes: it must agree with numbers, and its text must read back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optc.ir.shapes.symbols import Size, Sym, atom, divide, floor_divide, maximum, minimum, product, symbol

NAMES = ("H", "N", "T")
N, T = atom("N"), atom("T")

OPERATIONS: list[Callable[[Size, Size], Size]] = [
    lambda a, b: a + b,
    lambda a, b: a - b,
    lambda a, b: a * b,
    minimum,
    maximum,
]
numbers = st.integers(-6, 6)
bindings = st.fixed_dictionaries({name: st.integers(1, 9) for name in NAMES})


def grown(children: st.SearchStrategy[Size]) -> st.SearchStrategy[Size]:
    binary = st.tuples(st.sampled_from(OPERATIONS), children, children).map(lambda parts: parts[0](parts[1], parts[2]))
    halves = st.tuples(children, st.integers(1, 4)).map(lambda parts: floor_divide(*parts))
    return binary | halves


sizes = st.recursive(st.sampled_from([atom(name) for name in NAMES]) | numbers, grown, max_leaves=6)


def value(size: Size, bound: dict[str, int]) -> int:
    number = symbol(str(size), bound) if isinstance(size, Sym) else size
    assert isinstance(number, int)
    return number


@given(sizes, sizes, bindings)
def test_arithmetic_agrees_with_numbers(a: Size, b: Size, bound: dict[str, int]) -> None:
    x, y = value(a, bound), value(b, bound)
    assert value(a + b, bound) == x + y
    assert value(a - b, bound) == x - y
    assert value(a * b, bound) == x * y
    assert value(minimum(a, b), bound) == min(x, y)
    assert value(maximum(a, b), bound) == max(x, y)
    if y > 0:
        assert value(floor_divide(a, b), bound) == x // y
    quotient = divide(a, b)
    if quotient is not None:
        assert value(quotient, bound) * y == x


@pytest.mark.parametrize("text", ["16", "0", "-1", "2*8", "0x10"])
def test_a_name_that_spells_a_number_is_not_that_number(text: str) -> None:
    size = symbol(text)
    assert isinstance(size, Sym)
    assert not size.named
    assert size == symbol(text)
    assert symbol(text, {text: 3}) == 3
    (name,) = size.atoms
    assert symbol(text, {name: 3}) == 3


@given(sizes)
def test_the_text_reads_back(size: Size) -> None:
    if isinstance(size, Sym):
        assert symbol(str(size)) == size


@given(sizes, sizes)
def test_what_was_multiplied_divides(a: Size, b: Size) -> None:
    if b != 0:
        assert divide(a * b, b) == a


@given(sizes, st.integers(0, 4), bindings)
def test_a_lower_bound_holds(size: Size, bound: int, names: dict[str, int]) -> None:
    if isinstance(size, Sym) and size.at_least(bound):
        assert value(size, names) >= bound


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (2 * N + 1, "2*N + 1"),
        (N * T - 3, "N*T - 3"),
        (-N, "-N"),
        (3 - N * N, "-N*N + 3"),
        (floor_divide(N - 1, 2) + 1, "floor((N + 1)/2)"),
        (floor_divide(4 * N + 5, 2), "2*N + 2"),
        (minimum(N, 5), "min(5, N)"),
        (maximum(N, 1), "N"),
        (maximum(minimum(T, 512), T), "T"),
        (minimum(N, maximum(N, T) - 1), "min(N, max(N, T) - 1)"),
        (maximum(N, minimum(N, T) + 1), "max(N, min(N, T) + 1)"),
        (N - N, "0"),
        (product([N, 2, T]), "2*N*T"),
    ],
)
def test_the_text(size: Size, text: str) -> None:
    assert str(size) == text


def test_equal_expressions_are_equal() -> None:
    assert (N + 1) * (T + 2) == N * T + 2 * N + T + 2
    assert hash(N + T) == hash(T + N)
    assert N != T


@pytest.mark.parametrize("text", ["batch size", "a.b", "N+", "f(N)", "N/2", "?0 + 1", "", "N if T else 2", "True"])
def test_other_text_is_an_opaque_name(text: str) -> None:
    assert symbol(text) == atom(text)


def test_a_name_may_be_bound_whatever_it_looks_like() -> None:
    assert symbol("batch size", {"batch size": 3}) == 3
    assert symbol("2*N + T", {"N": 4}) == T + 8
