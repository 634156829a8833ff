"""Recurrent cells over an open number of steps: one kernel walks them, where known numbers of steps are written out.

all steps    G = X W^T + b                         one product, as of any layer
each step    G_t + H_{t-1} R^T, and the gates (see `legal.recurrent`), for each sequence by itself (`compute.cells`)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax, tirx

from ...compute import dense as products
from ..expressions import FUSABLE, constant
from .call import LoweringCall

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_Floats = npt.NDArray[Any]


def lower_cell(call: LoweringCall) -> list[relax.Expr]:
    node = call.node
    first = node.get_int("layout") == 1
    x = call.expr(0)
    if first:
        x = call.emit(relax.op.permute_dims(x, [1, 0, 2]))
    direction = node.get_string("direction", "forward")
    walks = [direction == "reverse"] if direction != "bidirectional" else [False, True]
    parts = [_Direction(call, x, index, back).run() for index, back in enumerate(walks)]
    joined = [
        parts[0][k] if len(parts) == 1 else call.emit(relax.op.concat([part[k] for part in parts], axis=0 if k else 1))
        for k in range(len(parts[0]))
    ]
    if first:
        joined = [
            call.emit(relax.op.permute_dims(one, [1, 0, 2] if k else [2, 0, 1, 3])) for k, one in enumerate(joined)
        ]
    return joined


class _Direction:
    """One direction of a cell: `index` counts it, `back` tells that it walks from the last step to the first."""

    def __init__(self, call: LoweringCall, x: relax.Expr, index: int, back: bool) -> None:
        self.call, self.x, self.index, self.back = call, x, index, back
        self.op = call.node.op

    def run(self) -> list[relax.Expr]:
        """Answers [steps, 1, batch, hidden], and each of the last states [1, batch, hidden]."""
        call = self.call
        w, r = self._weights(1), self._weights(2)
        steps, many, hidden = self.x.ty.shape[0], self.x.ty.shape[1], r.shape[1]
        arguments = [self._products(w, hidden), constant(np.ascontiguousarray(r.T)), self._state(5, many, hidden)]
        if self.op == "LSTM":
            arguments.append(self._state(6, many, hidden))
        elif self.op == "GRU":
            arguments.append(constant(self._bias(hidden)[1]))
        states = 2 if self.op == "LSTM" else 1
        shapes = [(steps, many, hidden), *[(many, hidden)] * states]
        function = call.importer.bb.add_func(self._kernel(hidden), self.op.lower())
        results = call.emit(
            relax.call_tir(
                function, relax.Tuple(arguments), out_ty=[relax.TensorType(shape, "float32") for shape in shapes]
            )
        )
        answers, *last = [call.emit(relax.TupleGetItem(results, k)) for k in range(1 + states)]
        return [
            call.emit(relax.op.reshape(answers, (steps, 1, many, hidden))),
            *[call.emit(relax.op.reshape(one, (1, many, hidden))) for one in last],
        ]

    def _weights(self, place: int) -> _Floats:
        part: _Floats = self.call.stored(place)[self.index]
        return part

    def _bias(self, hidden: int) -> tuple[_Floats, _Floats]:
        """What is added to the products of all steps, and to a GRU's product of the last gate before it is reset."""
        gates = _GATES[self.op]
        both = self.call.array(3)
        if both is None:
            return np.zeros(gates * hidden, np.float32), np.zeros(hidden, np.float32)
        of_w, of_r = np.split(both[self.index], 2)
        if self.op != "GRU" or not self.call.node.get_int("linear_before_reset"):
            return of_w + of_r, np.zeros(hidden, np.float32)
        front, last = of_r[: 2 * hidden], of_r[2 * hidden :]
        return of_w + np.concatenate([front, np.zeros(hidden, np.float32)]), np.ascontiguousarray(last)

    def _products(self, w: _Floats, hidden: int) -> relax.Expr:
        importer = self.call.importer
        tile = importer.tile("dense", self.x, w.T.shape)
        packed = constant(products.pack(np.ascontiguousarray(w.T), tile, importer.machine.block))
        product = importer.te(products.dense, self.x, packed, pattern=FUSABLE, columns=len(w), tile=tile)
        return self.call.emit(relax.op.add(product, constant(self._bias(hidden)[0])))

    def _state(self, place: int, many: Any, hidden: int) -> relax.Expr:
        """The first state [batch, hidden]."""
        call = self.call
        if not call.has(place):
            return call.emit(relax.op.zeros((many, hidden), "float32"))
        axis = 1 if call.node.get_int("layout") == 1 else 0
        part = call.emit(relax.op.strided_slice(call.expr(place), [axis], [self.index], [self.index + 1]))
        return call.emit(relax.op.reshape(part, (many, hidden)))

    def _kernel(self, hidden: int) -> tirx.PrimFunc:
        from ...compute import cells

        biased = self.call.has(3)
        if self.op == "LSTM":
            return cells.lstm(hidden, self.back, biased)
        if self.op == "GRU":
            return cells.gru(hidden, self.back, bool(self.call.node.get_int("linear_before_reset")), biased)
        return cells.rnn(hidden, self.back)
