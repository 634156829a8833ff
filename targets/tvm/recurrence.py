"""RNN, GRU and LSTM written out, step by step, into products and activations (ONNX RNN, GRU, LSTM).

All steps read one product, of the whole sequence by the weights of all gates. Where sequences of a batch have lengths
of their own, a step beyond one's end keeps its state and gives zeros. Does not fire where the number of steps or the
size of the batch is open.
"""

from __future__ import annotations

import numpy as np

from ...ir.attributes import AttributeValue
from ...ir.node import Node, Value

MOST = 512
"""Steps that are written out."""
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_DEFAULTS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
_CONSTANTS = {
    "Affine": (1.0, 0.0), "Elu": (1.0,), "HardSigmoid": (0.2, 0.5), "LeakyRelu": (0.01,), "ScaledTanh": (1.0, 1.0),
    "ThresholdedRelu": (1.0,),
}  # fmt: skip
"""The constants of activations that have some: alpha, beta."""


def unroll(node: Node) -> bool:
    """Replace the node; whether that was possible."""
    x = node.inputs[0]
    if node.domain or node.op not in _GATES or x is None or x.static_shape is None or x.static_shape[0] > MOST:
        return False
    _Cells(node, x).replace()
    return True


class _Cells:
    def __init__(self, node: Node, x: Value) -> None:
        assert node.graph is not None
        self.node, self.graph = node, node.graph
        self.batch_first = bool(node.get_int("layout"))
        assert x.static_shape is not None
        steps, batch = x.static_shape[1::-1] if self.batch_first else x.static_shape[:2]
        self.steps, self.batch = steps, batch
        weights = node.inputs[2]
        assert weights is not None
        assert weights.shape is not None
        self.hidden = node.get_int("hidden_size") or int(weights.shape[2] or 0)
        self.x = self.add("Transpose", x, perm=[1, 0, 2]) if self.batch_first else x
        self.dtype = x.dtype.numpy if x.dtype is not None else np.dtype(np.float32)
        names = node.attributes.get("activations")
        self.directions = 2 if node.get_string("direction") == "bidirectional" else 1
        texts = names.value if names is not None else _DEFAULTS[node.op] * self.directions
        assert isinstance(texts, tuple)
        self.activations = [text.decode() if isinstance(text, bytes) else str(text) for text in texts]
        self.alphas, self.betas = self._constants("activation_alpha", 0), self._constants("activation_beta", 1)

    def _constants(self, name: str, which: int) -> list[float | None]:
        """A constant for each activation: those that have one take the numbers given in order, as long as there are."""
        attribute = self.node.attributes.get(name)
        numbers = list(attribute.value) if attribute is not None and isinstance(attribute.value, tuple) else []
        each: list[float | None] = []
        for activation in self.activations:
            defaults = _CONSTANTS.get(activation, ())
            if len(defaults) <= which:
                each.append(None)
            else:
                each.append(float(numbers.pop(0)) if numbers else defaults[which])  # type: ignore[arg-type]
        return each

    def add(self, op: str, *inputs: Value, **attributes: AttributeValue | list[int]) -> Value:
        return self.graph.add(op, list(inputs), attributes, before=self.node, origin=self.node.origin).output

    def number(self, value: float) -> Value:
        return self.graph.constant(np.array(value, self.dtype))

    def ints(self, *values: int) -> Value:
        return self.graph.constant(np.array(values, np.int64))

    def one(self, value: Value, index: int, axis: int = 0) -> Value:
        return self.add("Gather", value, self.graph.constant(np.array(index, np.int64)), axis=axis)

    def cut(self, value: Value, gate: int) -> Value:
        """The numbers of one gate, along the last axis."""
        start, end = gate * self.hidden, (gate + 1) * self.hidden
        return self.add("Slice", value, self.ints(start), self.ints(end), self.ints(-1))

    def activate(self, which: int, value: Value) -> Value:
        clip = self.node.get_float("clip")
        if clip:
            value = self.add("Max", self.add("Min", value, self.number(clip)), self.number(-clip))
        name, alpha, beta = self.activations[which], self.alphas[which], self.betas[which]
        if name == "Affine":
            return self.add("Add", self.add("Mul", value, self.number(alpha or 0)), self.number(beta or 0))
        if name == "ScaledTanh":
            scaled = self.add("Tanh", self.add("Mul", value, self.number(beta or 0)))
            return self.add("Mul", scaled, self.number(alpha or 0))
        constants = {key: float(n) for key, n in (("alpha", alpha), ("beta", beta)) if n is not None}
        return self.add(name, value, **constants)

    def replace(self) -> None:
        sequences, last, cells = [], [], []
        for direction in range(self.directions):
            steps, h, c = self.run(direction)
            sequences.append(steps)
            last.append(h)
            cells.append(c)
        axis = 2 if self.batch_first else 1
        ends = [
            self._ends(last),
            *([] if self.node.op != "LSTM" else [self._ends([c for c in cells if c is not None])]),
        ]
        rows = [
            [self._wide(step, 1 if self.batch_first else 0) for step in steps] for steps in sequences
        ]  # [B, 1, H] or [1, B, H]
        stacks = [[self._wide(row, axis - 1 if self.batch_first else 0) for row in steps] for steps in rows]
        whole = [self.add("Concat", *steps, axis=1 if self.batch_first else 0) for steps in stacks]
        y = whole[0] if len(whole) == 1 else self.add("Concat", *whole, axis=axis)
        for old, new in zip(self.node.outputs, [y, *ends], strict=False):
            if new.type is None:
                new.type = old.type
            old.replace_uses(new)
        self.graph.remove(self.node)

    def _wide(self, value: Value, axis: int) -> Value:
        if self.graph.opset() < 13:
            return self.add("Unsqueeze", value, axes=[axis])
        return self.add("Unsqueeze", value, self.ints(axis))

    def _ends(self, parts: list[Value]) -> Value:
        axis = 1 if self.batch_first else 0
        wide = [self._wide(part, axis) for part in parts]
        return wide[0] if len(wide) == 1 else self.add("Concat", *wide, axis=axis)

    def run(self, direction: int) -> tuple[list[Value], Value, Value | None]:
        """The states of all steps in the order of time, the last, and the last of the cell."""
        node, gates = self.node, _GATES[self.node.op]
        w, r = (self.one(value, direction) for value in node.inputs[1:3] if value is not None)
        product = self.add("MatMul", self.x, self.add("Transpose", w, perm=[1, 0]))
        recurrent = self.add("Transpose", r, perm=[1, 0])
        inner: Value | None = None
        given = node.input(3)
        if given is not None:
            both = self.one(given, direction)
            size = gates * self.hidden
            first = self.add("Slice", both, self.ints(0), self.ints(size), self.ints(0))
            inner = self.add("Slice", both, self.ints(size), self.ints(2 * size), self.ints(0))
            product = self.add("Add", product, first)
        axis = 1 if self.batch_first else 0
        zero = self.graph.constant(np.zeros((self.batch, self.hidden), self.dtype))
        h0, c0 = node.input(5), node.input(6)
        h = zero if h0 is None else self.one(h0, direction, axis)
        c = zero if c0 is None else self.one(c0, direction, axis)
        lengths, peepholes = node.input(4), node.input(7)
        peep = None if peepholes is None else self.one(peepholes, direction)
        backward = direction == 1 or node.get_string("direction") == "reverse"
        states: dict[int, Value] = {}
        for step in reversed(range(self.steps)) if backward else range(self.steps):
            row = self.one(product, step)
            new_h, new_c = self._cell(direction, row, h, c, recurrent, inner, peep)
            states[step] = new_h
            if lengths is not None:
                now = self.graph.constant(np.array(step, np.int32))
                inside = self._wide(self.add("Less", now, self.add("Cast", lengths, to=6)), 1)
                states[step] = self.add("Where", inside, new_h, zero)
                new_h, new_c = self.add("Where", inside, new_h, h), self.add("Where", inside, new_c, c)
            h, c = new_h, new_c
        return [states[step] for step in range(self.steps)], h, c if node.op == "LSTM" else None

    def _cell(
        self, direction: int, row: Value, h: Value, c: Value, recurrent: Value, inner: Value | None, peep: Value | None
    ) -> tuple[Value, Value]:
        at = direction * len(_DEFAULTS[self.node.op])
        back = self.add("MatMul", h, recurrent)
        if inner is not None:
            back = self.add("Add", back, inner)
        if self.node.op == "RNN":
            return self.activate(at, self.add("Add", row, back)), c
        if self.node.op == "GRU":
            return self._gru(at, row, h, recurrent, back, inner), c
        total = self.add("Add", row, back)

        def gate(which: int, part: int, cell: Value | None) -> Value:
            value = self.cut(total, which)
            if peep is not None and cell is not None:
                value = self.add("Add", value, self.add("Mul", self.cut(peep, part), cell))
            return value

        i = self.activate(at, gate(0, 0, c))
        if self.node.get_int("input_forget"):
            f = self.add("Sub", self.number(1), i)
        else:
            f = self.activate(at, gate(2, 2, c))
        new = self.add("Mul", i, self.activate(at + 1, gate(3, 0, None)))
        c = self.add("Add", self.add("Mul", f, c), new)
        o = self.activate(at, gate(1, 1, c))
        return self.add("Mul", o, self.activate(at + 2, c)), c

    def _gru(self, at: int, row: Value, h: Value, recurrent: Value, back: Value, inner: Value | None) -> Value:
        z = self.activate(at, self.add("Add", self.cut(row, 0), self.cut(back, 0)))
        r = self.activate(at, self.add("Add", self.cut(row, 1), self.cut(back, 1)))
        if self.node.get_int("linear_before_reset"):
            reset = self.add("Mul", r, self.cut(back, 2))
        else:
            reset = self.add("MatMul", self.add("Mul", r, h), self.cut(recurrent, 2))
            if inner is not None:
                reset = self.add("Add", reset, self.cut(inner, 2))
        new = self.activate(at + 1, self.add("Add", self.cut(row, 2), reset))
        return self.add("Add", self.add("Mul", self.add("Sub", self.number(1), z), new), self.add("Mul", z, h))
