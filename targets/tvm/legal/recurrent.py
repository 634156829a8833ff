"""Recurrent cells as the operators that they are defined by, one step after the other.

    all steps    G = X W^T + b                                          one product
    RNN          H_t = f(G_t + H_{t-1} R^T)
    GRU          z, r as above;  h = g(G_t + (r H_{t-1}) R^T), or g(G_t + r (H_{t-1} R^T + b)) where
                 `linear_before_reset`;  H_t = (1 - z) h + z H_{t-1}
    LSTM         i, o, f, c as above, with peepholes of C;  C_t = f C_{t-1} + i c;  H_t = o h(C_t)

(onnx's documentation of RNN, GRU and LSTM.) Sequences shorter than the longest keep their states behind their end,
where their answers are 0; walked from behind, they begin where they end. Written in forms that operator sets from 11 on
have in common.

Does not fire where the number of steps is open, where there are more than `MOST` of them, nor on activations whose
constants onnx gives no default for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ....ir.node import Node, Value
from .writer import Writer

MOST = 512
"""Steps of a cell: each has kernels of its own in the plan."""
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_ACTIVATIONS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
_PLAIN = frozenset({"relu", "sigmoid", "tanh", "softsign", "softplus"})
_DEFAULTS: dict[str, tuple[float | None, float | None]] = {
    "leakyrelu": (0.01, None),
    "thresholdedrelu": (1.0, None),
    "hardsigmoid": (0.2, 0.5),
    "elu": (1.0, None),
}
_OPS = {
    "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "softsign": "Softsign", "softplus": "Softplus",
    "leakyrelu": "LeakyRelu", "thresholdedrelu": "ThresholdedRelu", "hardsigmoid": "HardSigmoid", "elu": "Elu",
}  # fmt: skip

Activation = Callable[[Value], Value]
_Function = tuple[str, float | None, float | None]
"""The name of an activation, and its constants."""


class _Writer(Writer):
    """Adds nodes in front of a cell."""

    def chosen(self, compare: str, value: Value, bound: float) -> Value:
        """The value where it compares so with a bound, else the bound; NaN compares with none."""
        other = self.floats(bound)
        return self.add("Where", self.add(compare, value, other), value, other)

    def direction(self, value: Value, index: int, *sizes: int) -> Value:
        """The part of a direction, which the first axis counts; `sizes` are those of the other axes."""
        if value.constant is not None:
            return self.graph.constant(np.ascontiguousarray(value.constant.numpy()[index]))
        part = self.add("Slice", value, self.ints(index), self.ints(index + 1), self.ints(0))
        return self.reshape(part, *sizes)

    def pieces(self, value: Value, axis: int, *sizes: int) -> tuple[Value, ...]:
        """The value cut along an axis into parts of these sizes."""
        if len(sizes) == 1:
            return (value,)
        ends = np.cumsum(sizes).tolist()
        return tuple(
            self.add("Slice", value, self.ints(end - size), self.ints(end), self.ints(axis))
            for size, end in zip(sizes, ends, strict=True)
        )


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Those of a cell; `batch` is -1, as a Reshape has it, where the number of sequences is open."""

    steps: int
    batch: int
    inputs: int
    hidden: int
    directions: int


def fits(node: Node) -> bool:
    """Whether a cell, whose types are known, can be written out."""
    return _plan(node) is not None


def _plan(node: Node) -> tuple[_Sizes, list[list[_Function]]] | None:
    """The sizes of a cell, and the functions of each direction; none where they are unknown, or the steps too many."""
    x, r = node.inputs[0], node.inputs[2]
    shape = None if x is None else x.shape
    weights = None if r is None else r.static_shape
    if x is None or x.dtype is None or shape is None or len(shape) != 3 or 0 in shape or weights is None:
        return None
    hidden = node.get_int("hidden_size", weights[-1])
    many, steps, inputs = (
        (shape[0], shape[1], shape[2]) if node.get_int("layout") == 1 else (shape[1], shape[0], shape[2])
    )
    if not isinstance(steps, int) or not isinstance(inputs, int):
        return None
    batch = many if isinstance(many, int) else -1
    directions = 2 if node.get_string("direction", "forward") == "bidirectional" else 1
    activations = _activations(node, directions)
    if steps > MOST or activations is None:
        return None
    return _Sizes(steps, batch, inputs, hidden, directions), activations


def unroll(node: Node) -> bool:
    """Put the steps of a cell, whose types are known, in its place; whether that was possible."""
    plan = _plan(node) if node.op in _GATES and not node.domain else None
    x, first = node.inputs[0], node.get_int("layout") == 1
    if plan is None or x is None or x.dtype is None:
        return False
    sizes, activations = plan
    directions = sizes.directions
    write = _Writer(node, "recurrent", x.dtype.numpy)
    source = write.add("Transpose", x, perm=[1, 0, 2]) if first else x
    lengths = _lengths(node, sizes)
    answers, states = [], []
    for index in range(directions):
        back = index == 1 or node.get_string("direction", "forward") == "reverse"
        functions = [partial(_activated, write, *one) for one in activations[index]]
        walked = _Direction(write, sizes, index, back, functions, lengths)
        answer, state = walked.run(source)
        answers.append(answer)
        states.append(state)
    _hand_over(write, sizes, answers, states, first)
    return True


def _hand_over(
    write: _Writer, sizes: _Sizes, answers: Sequence[Value], states: Sequence[tuple[Value, ...]], first: bool
) -> None:
    """Let readers of the cell read what the directions gave: answers (steps, batch, hidden), states (batch, hidden)."""
    whole = [write.reshape(one, sizes.steps, 1, sizes.batch, sizes.hidden) for one in answers]
    results = [whole[0] if len(whole) == 1 else write.add("Concat", *whole, axis=1)]
    for kind in zip(*states):
        parts = [write.reshape(one, 1, sizes.batch, sizes.hidden) for one in kind]
        results.append(parts[0] if len(parts) == 1 else write.add("Concat", *parts, axis=0))
    if first:
        results = [
            write.add("Transpose", one, perm=[2, 0, 1, 3] if index == 0 else [1, 0, 2])
            for index, one in enumerate(results)
        ]
    write.put(*results)


def _lengths(node: Node, sizes: _Sizes) -> Value | None:
    """How long each sequence is; none where all are as long as the longest."""
    lengths = node.input(4)
    if lengths is None or (lengths.constant is not None and (lengths.constant.numpy() == sizes.steps).all()):
        return None
    return lengths


class _Direction:
    """One direction of a cell."""

    def __init__(
        self,
        write: _Writer,
        sizes: _Sizes,
        index: int,
        back: bool,
        activations: Sequence[Activation],
        lengths: Value | None,
    ) -> None:
        self.write, self.sizes, self.index, self.back = write, sizes, index, back
        self.act, self.lengths = activations, lengths
        node = write.node
        self.op = node.op
        self.clip = node.get_float("clip") if "clip" in node.attributes else None
        self.linear_first = node.get_int("linear_before_reset") == 1
        self.biased = node.input(3) is not None
        w, r = node.inputs[1], node.inputs[2]
        assert w is not None
        assert r is not None
        gates = _GATES[node.op] * sizes.hidden
        self.w = write.direction(w, index, gates, sizes.inputs)
        self.r = write.direction(r, index, gates, sizes.hidden)

    def run(self, source: Value) -> tuple[Value, tuple[Value, ...]]:
        """The answers of all steps (steps, batch, hidden), and the last states (batch, hidden)."""
        write, sizes = self.write, self.sizes
        rows = write.reshape(source, -1 if sizes.batch < 0 else sizes.steps * sizes.batch, sizes.inputs)
        before, behind = self._biases()
        products = write.add("Gemm", rows, self.w, before, transB=1)
        each = self._each(products)
        states = [self._initial(5)] + ([self._initial(6)] if self.op == "LSTM" else [])
        answers: dict[int, Value] = {}
        for t in self._order():
            fresh = self._step(each[t], states, behind)
            answers[t] = fresh[0]
            if self.lengths is not None:
                runs = self._runs(t)
                zero = write.floats(0.0)
                answers[t] = write.add("Where", runs, fresh[0], zero)
                fresh = [write.add("Where", runs, new, old) for new, old in zip(fresh, states, strict=True)]
            states = fresh
        stacked = [write.reshape(answers[t], 1, sizes.batch, sizes.hidden) for t in range(sizes.steps)]
        whole = stacked[0] if len(stacked) == 1 else write.add("Concat", *stacked, axis=0)
        return whole, tuple(states)

    def _each(self, products: Value) -> Sequence[Value]:
        """The rows of each step."""
        write, sizes = self.write, self.sizes
        if sizes.batch >= 0:
            return write.pieces(products, 0, *[sizes.batch] * sizes.steps)
        columns = _GATES[self.op] * sizes.hidden
        whole = write.reshape(products, sizes.steps, -1, columns)
        return [write.reshape(one, -1, columns) for one in write.pieces(whole, 0, *[1] * sizes.steps)]

    def _order(self) -> Iterator[int]:
        return iter(reversed(range(self.sizes.steps)) if self.back else range(self.sizes.steps))

    def _runs(self, t: int) -> Value:
        """Which sequences have a step `t`, (batch, 1)."""
        assert self.lengths is not None
        limit = self.write.add("Cast", self.lengths, to=7)
        return self.write.reshape(self.write.add("Less", self.write.ints(t), limit), self.sizes.batch, 1)

    def _initial(self, place: int) -> Value:
        value = self.write.node.input(place)
        sizes = self.sizes
        if value is None:
            return self.write.floats(np.zeros((max(1, sizes.batch), sizes.hidden)))  # one row is that of all
        if self.write.node.get_int("layout") == 1:
            value = self.write.add("Transpose", value, perm=[1, 0, 2])
        return self.write.direction(value, self.index, sizes.batch, sizes.hidden)

    def _biases(self) -> tuple[Value | None, Value | None]:
        """What is added to the products of all steps, and to a GRU's product of the last gate before it is reset."""
        both = self.write.node.input(3)
        if both is None:
            return None, None
        hidden, gates = self.sizes.hidden, _GATES[self.op]
        ours = self.write.direction(both, self.index, 2 * gates * hidden)
        of_w, of_r = self.write.pieces(ours, 0, gates * hidden, gates * hidden)
        if self.op != "GRU" or not self.linear_first:
            return self.write.add("Add", of_w, of_r), None
        front, last = self.write.pieces(of_r, 0, 2 * hidden, hidden)
        padded = self.write.add("Concat", front, self.write.floats(np.zeros(hidden)), axis=0)
        return self.write.add("Add", of_w, padded), last

    def _clipped(self, value: Value) -> Value:
        """What a function of a gate is fed. As with ONNX Runtime, a GRU or LSTM is always clipped, to what its type
        holds where the model names no bound, and with a bias NaN is as large as can be; an RNN's stays NaN."""
        usual = "activations" not in self.write.node.attributes  # which are the same at an infinity and before it
        bounded = self.op != "RNN"
        if self.clip is None and not (bounded and (self.biased or not usual)):
            return value
        most = float(np.finfo(self.write.dtype.name).max) if self.clip is None else self.clip
        if not (bounded and self.biased):
            return self.write.add("Clip", value, self.write.floats(-most), self.write.floats(most))
        value = self.write.chosen("Less", value, most)
        return value if usual and self.clip is None else self.write.chosen("Greater", value, -most)

    def _product(self, state: Value, weight: Value, bias: Value | None = None) -> Value:
        return self.write.add("Gemm", state, weight, bias, transB=1)

    def _step(self, products: Value, states: Sequence[Value], behind: Value | None) -> list[Value]:
        match self.op:
            case "RNN":
                total = self.write.add("Add", products, self._product(states[0], self.r))
                return [self.act[0](self._clipped(total))]
            case "GRU":
                return [self._gru(products, states[0], behind)]
            case _:
                return self._lstm(products, states[0], states[1])

    def _gru(self, products: Value, h: Value, behind: Value | None) -> Value:
        write, hidden = self.write, self.sizes.hidden
        front, last = write.pieces(products, 1, 2 * hidden, hidden)
        r_front, r_last = write.pieces(self.r, 0, 2 * hidden, hidden)
        gates = write.add("Add", front, self._product(h, r_front))
        update, reset = write.pieces(self.act[0](self._clipped(gates)), 1, hidden, hidden)
        if self.linear_first:
            kept = write.add("Mul", reset, self._product(h, r_last, behind))
        else:
            kept = self._product(write.add("Mul", reset, h), r_last)
        fresh = self.act[1](self._clipped(write.add("Add", last, kept)))
        rest = write.add("Mul", write.add("Sub", write.floats(1.0), update), fresh)
        return write.add("Add", rest, write.add("Mul", update, h))

    def _lstm(self, products: Value, h: Value, c: Value) -> list[Value]:
        write, hidden = self.write, self.sizes.hidden
        gates = write.add("Add", products, self._product(h, self.r))
        i, o, f, cell = write.pieces(gates, 1, *[hidden] * 4)
        peepholes = write.node.input(7)
        holes: tuple[Value, ...] = ()
        if peepholes is not None:
            holes = write.pieces(write.direction(peepholes, self.index, 3 * hidden), 0, *[hidden] * 3)
            i = write.add("Add", i, write.add("Mul", holes[0], c))
            f = write.add("Add", f, write.add("Mul", holes[2], c))
        i = self.act[0](self._clipped(i))
        if write.node.get_int("input_forget"):
            f = write.add("Sub", write.floats(1.0), i)
        else:
            f = self.act[0](self._clipped(f))
        cell = self.act[1](self._clipped(cell))
        fresh = write.add("Add", write.add("Mul", f, c), write.add("Mul", i, cell))
        if holes:
            o = write.add("Add", o, write.add("Mul", holes[1], fresh))
        o = self.act[0](self._clipped(o))
        return [write.add("Mul", o, self.act[2](fresh)), fresh]


def _activations(node: Node, directions: int) -> list[list[_Function]] | None:
    """For each direction its functions; none where one of them is unknown or lacks a constant."""
    usual = _ACTIVATIONS[node.op]
    attribute = node.attributes.get("activations")
    named = attribute.value if attribute is not None and isinstance(attribute.value, tuple) else usual * directions
    names = [str(one) for one in named]
    if len(names) != len(usual) * directions:
        return None
    alphas, betas = (_floats(node, f"activation_{part}") for part in ("alpha", "beta"))
    functions: list[_Function] = []
    for name in names:
        word = name.lower()
        alpha, beta = _DEFAULTS.get(word, (None, None))
        if word in _DEFAULTS or word in ("affine", "scaledtanh"):
            alpha = alphas.pop(0) if alphas else alpha
            if word in ("affine", "scaledtanh", "hardsigmoid"):
                beta = betas.pop(0) if betas else beta
                if beta is None:
                    return None
            if alpha is None:
                return None
        elif word not in _PLAIN:
            return None
        functions.append((word, alpha, beta))
    return [functions[index * len(usual) :][: len(usual)] for index in range(directions)]


def _floats(node: Node, name: str) -> list[float]:
    attribute = node.attributes.get(name)
    numbers = attribute.value if attribute is not None and isinstance(attribute.value, tuple) else ()
    return [float(one) for one in numbers if isinstance(one, int | float)]


def _activated(write: _Writer, word: str, alpha: float | None, beta: float | None, value: Value) -> Value:
    if word == "affine":
        return write.add("Add", write.add("Mul", value, write.floats(alpha or 0.0)), write.floats(beta or 0.0))
    if word == "scaledtanh":
        inner = write.add("Tanh", write.add("Mul", value, write.floats(beta or 0.0)))
        return write.add("Mul", inner, write.floats(alpha or 0.0))
    constants: dict[str, Any] = {key: one for key, one in (("alpha", alpha), ("beta", beta)) if one is not None}
    answer = write.add(_OPS[word], value, **constants)
    # These make nothing of NaN, as with ONNX Runtime.
    return write.chosen("Greater", answer, 0.0) if word in ("relu", "hardsigmoid") else answer
