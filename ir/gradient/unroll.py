"""Recurrent operators written out step by step, where the number of steps is known: products, sums and gates.

LSTM, GRU and RNN as ONNX defines them: both directions, initial states, peepholes, biases, activations with their
parameters, `linear_before_reset`, clipping, and lengths of sequences below which a state no longer changes. Gates
stand in the order i, o, f, c (LSTM) and z, r, h (GRU).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..attributes import AttributeKind
from ..graph import Node, Value
from .builder import Builder, CannotDifferentiate

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_DEFAULT = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_SHARES = {"LeakyRelu": {"alpha": 0.01}, "ThresholdedRelu": {"alpha": 1.0}, "Elu": {"alpha": 1.0},
           "HardSigmoid": {"alpha": 0.2, "beta": 0.5}}  # fmt: skip
"""Activations that ONNX has as operators with parameters, and the defaults of these."""
_PLAIN = ("Sigmoid", "Tanh", "Relu", "Softsign", "Softplus")

Activation = Callable[[Value], Value]


def unroll(node: Node, build: Builder) -> Sequence[Value | None]:
    """Append what `node` computes; returns what stands for its outputs. Raises `CannotDifferentiate`."""
    return _Unrolled(node, build).run()


class _Unrolled:
    def __init__(self, node: Node, build: Builder) -> None:
        self.node, self.build = node, build
        self.batch_first = bool(node.get_int("layout"))
        self.x = self._input(0)
        steps = build.shape(self.x)[1 if self.batch_first else 0]
        if not isinstance(steps, int):
            raise CannotDifferentiate("has an open number of steps")
        weight, again = build.static(self._input(1)), build.static(self._input(2))
        if weight is None or again is None:
            raise CannotDifferentiate("has weights of open size")
        self.steps, self.hidden, self.directions = steps, again[2], again[0]
        self.gates = _GATES[node.op]

    def _input(self, index: int) -> Value:
        value = self.node.input(index)
        if value is None:
            raise CannotDifferentiate(f"lacks input {index}")
        return value

    def run(self) -> list[Value]:
        build, node = self.build, self.node
        x = build.transpose(self.x, 1, 0, 2) if self.batch_first else self.x
        inputs = [build("Squeeze", build.slice(x, [0], [t], [t + 1]), build.ints([0])) for t in range(self.steps)]
        every: list[list[Value]] = []
        last: list[list[Value]] = []
        for direction in range(self.directions):
            back = node.get_string("direction", "forward") == "reverse" or direction == 1
            states, final = self._direction(direction, inputs, back)
            every.append(states)
            last.append(final)
        along = [self._stacked([states[t] for states in every], 0) for t in range(self.steps)]
        results = [self._stacked(along, 0)]
        results += [self._stacked([final[i] for final in last], 0) for i in range(len(last[0]))]
        if self.batch_first:
            results = [build.transpose(results[0], 2, 0, 1, 3), *(build.transpose(r, 1, 0, 2) for r in results[1:])]
        return results

    def _stacked(self, values: list[Value], axis: int) -> Value:
        lifted = [self.build.unsqueeze(value, [axis]) for value in values]
        return lifted[0] if len(lifted) == 1 else self.build("Concat", *lifted, axis=axis)

    def _of(self, index: int, direction: int) -> Value | None:
        """What an input with an axis of directions, the first, holds for one of them."""
        value = self.node.input(index)
        if value is None:
            return None
        axis = 1 if self.batch_first and index in (5, 6) else 0
        return self.build(
            "Squeeze", self.build.slice(value, [axis], [direction], [direction + 1]), self.build.ints([axis])
        )

    def _direction(self, direction: int, inputs: list[Value], back: bool) -> tuple[list[Value], list[Value]]:
        build, node = self.build, self.node
        weight, again = (self._of(i, direction) for i in (1, 2))
        assert weight is not None
        assert again is not None
        turned = build.transpose(weight, 1, 0), build.transpose(again, 1, 0)
        biases = self._of(3, direction)
        pair: tuple[Value | None, Value | None] = (None, None)
        if biases is not None:
            width = self.gates * self.hidden
            pair = build.slice(biases, [0], [0], [width]), build.slice(biases, [0], [width], [2 * width])
        state = self._of(5, direction) or self._nothing(inputs[0])
        cell = (self._of(6, direction) or self._nothing(inputs[0])) if node.op == "LSTM" else None
        peepholes = self._of(7, direction) if node.op == "LSTM" else None
        functions = self._activations(direction)
        lengths = node.input(4)
        states: list[Value] = [state] * self.steps
        for t in reversed(range(self.steps)) if back else range(self.steps):
            new, new_cell = self._step(inputs[t], state, cell, turned, pair, peepholes, functions)
            shown = new
            if lengths is not None:
                within = build.unsqueeze(build("Less", build.scalar(float(t), lengths), lengths), [1])
                shown = build("Where", within, new, build.scalar(0.0, self.x))
                new = build("Where", within, new, state)
                new_cell = None if new_cell is None or cell is None else build("Where", within, new_cell, cell)
            state, cell = new, new_cell
            states[t] = shown
        return states, [state] if cell is None else [state, cell]

    def _nothing(self, row: Value) -> Value:
        """Zeros for each sample."""
        build = self.build
        count = build.size(self.x, 0 if self.batch_first else 1)
        return build("Expand", build.scalar(0.0, self.x), build("Concat", count, build.ints([self.hidden]), axis=0))

    def _step(
        self,
        x: Value,
        state: Value,
        cell: Value | None,
        turned: tuple[Value, Value],
        biases: tuple[Value | None, Value | None],
        peepholes: Value | None,
        functions: list[Activation],
    ) -> tuple[Value, Value | None]:
        build = self.build
        fed = self._plus(build("MatMul", x, turned[0]), biases[0])
        if self.node.op == "GRU":
            return self._gru(fed, state, turned[1], biases[1], functions), None
        total = build("Add", fed, self._plus(build("MatMul", state, turned[1]), biases[1]))
        if cell is None:
            return functions[0](total), None
        gates = [self._gate(total, i) for i in range(4)]
        holes = [self._gate(peepholes, i, 0) for i in range(3)] if peepholes is not None else None
        first = gates[0] if holes is None else build("Add", gates[0], build("Mul", holes[0], cell))
        i = functions[0](first)
        if self.node.get_int("input_forget"):
            f = build("Sub", build.scalar(1.0, self.x), i)
        else:
            f = functions[0](gates[2] if holes is None else build("Add", gates[2], build("Mul", holes[2], cell)))
        new = build("Add", build("Mul", f, cell), build("Mul", i, functions[1](gates[3])))
        out = functions[0](gates[1] if holes is None else build("Add", gates[1], build("Mul", holes[1], new)))
        return build("Mul", out, functions[2](new)), new

    def _gru(self, fed: Value, state: Value, again: Value, bias: Value | None, functions: list[Activation]) -> Value:
        build = self.build
        if self.node.get_int("linear_before_reset"):
            product = self._plus(build("MatMul", state, again), bias)
            z, r = (functions[0](build("Add", self._gate(fed, i), self._gate(product, i))) for i in (0, 1))
            inner = build("Mul", r, self._gate(product, 2))
        else:
            both = build.slice(again, [1], [0], [2 * self.hidden])
            part = None if bias is None else build.slice(bias, [0], [0], [2 * self.hidden])
            product = self._plus(build("MatMul", state, both), part)
            z, r = (functions[0](build("Add", self._gate(fed, i), self._gate(product, i))) for i in (0, 1))
            third = build.slice(again, [1], [2 * self.hidden], [3 * self.hidden])
            rest = None if bias is None else build.slice(bias, [0], [2 * self.hidden], [3 * self.hidden])
            inner = self._plus(build("MatMul", build("Mul", r, state), third), rest)
        h = functions[1](build("Add", self._gate(fed, 2), inner))
        kept = build("Sub", build.scalar(1.0, self.x), z)
        return build("Add", build("Mul", kept, h), build("Mul", z, state))

    def _plus(self, value: Value, bias: Value | None) -> Value:
        return value if bias is None else self.build("Add", value, bias)

    def _gate(self, value: Value, index: int, axis: int = 1) -> Value:
        return self.build.slice(value, [axis], [index * self.hidden], [(index + 1) * self.hidden])

    def _activations(self, direction: int) -> list[Activation]:
        """The functions of one direction; parameters are handed out in order to those that take any."""
        node = self.node
        defaults = _DEFAULT[node.op]
        attribute = node.attributes.get("activations")
        names = list(defaults) * self.directions
        if attribute is not None and attribute.kind is AttributeKind.STRINGS and isinstance(attribute.value, tuple):
            names = [name.decode() if isinstance(name, bytes) else str(name) for name in attribute.value]
        shares = {key: list(self._floats(f"activation_{key}")) for key in ("alpha", "beta")}
        functions: list[Activation] = []
        for name in names:
            parameters = dict(_SHARES.get(name, {}))
            for key in parameters:
                if shares[key]:
                    parameters[key] = shares[key].pop(0)
            functions.append(self._activation(name, parameters))
        return functions[direction * len(defaults) : (direction + 1) * len(defaults)]

    def _floats(self, name: str) -> tuple[float, ...]:
        attribute = self.node.attributes.get(name)
        return attribute.value if attribute is not None and isinstance(attribute.value, tuple) else ()  # type: ignore[return-value]

    def _activation(self, name: str, parameters: dict[str, float]) -> Activation:
        if name not in _SHARES and name not in _PLAIN:
            raise CannotDifferentiate(f"has the activation {name}")
        bound = self.node.get_float("clip")

        def apply(value: Value) -> Value:
            build = self.build
            if bound:
                value = build("Clip", value, build.scalar(-bound, self.x), build.scalar(bound, self.x))
            return build(name, value, **parameters)

        return apply


RECURRENT = frozenset(_GATES)
