"""Loss and gradients of a batch on ONNX Runtime, read from and written to flat buffers without copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ...errors import TargetError
from ...ir.clone import clone
from ...ir.gradient.differentiate import Frozen, differentiate
from ...ir.graph import Graph, Value
from ...ir.types import DType, TensorType
from ..columns import Array
from ..session import CPU, bare, one_line
from .blocked import block_convolutions, channel_block
from .parameters import Floats, Parameters
from .recompute import recompute, segments


class Backward:
    """A session that computes `loss`, a scalar float32 value of `graph`, and its gradients.

    The parameters become inputs that are views of `parameters.flat`: what an optimizer writes there is what the next
    run reads. `graph` itself stays as it is. `also` are further values to return. `frugal` computes much of the forward
    pass twice, to keep less of it. `copies` tell for each value its like in `graph`, where that is a copy of the graph
    that `loss` and the parameters are values of. Raises `ModelError` where no gradient reaches any parameter, and
    `TargetError` where ONNX Runtime refuses the graph or lacks a provider.
    """

    def __init__(
        self,
        graph: Graph,
        loss: Value,
        parameters: Parameters,
        *,
        also: Sequence[Value] = (),
        frugal: bool = False,
        copies: Mapping[Value, Value] | None = None,
        threads: int = 1,
        providers: Sequence[str] = CPU,
    ) -> None:
        self.parameters = parameters
        own: dict[Value, Value] = {}
        copy = clone(graph, own)
        copies = own if copies is None else {value: own[one] for value, one in copies.items()}
        inputs = {value: _as_input(copy, copies, value, i) for i, value in enumerate(parameters.leaders)}
        for value in parameters.values:
            copies[value].replace_uses(inputs[parameters.leader[value]])
        while copy.outputs:
            copy.remove_output(len(copy.outputs) - 1)
        block = channel_block() if tuple(providers) == CPU else 0
        parts = segments(copy, copies[loss]) if frugal else []
        wrt = [*inputs.values(), *(part.end for part in parts)]
        gradients = differentiate(copy, {copies[loss]: None}, wrt, by_sample=block > 0)
        self.frozen: tuple[Frozen, ...] = gradients.frozen
        """Operators without a gradient, and the parameters before them, which do not move."""
        copy.add_output(copies[loss], "optc.loss", TensorType(DType.FLOAT, ()))
        self._names: dict[Value, tuple[str, str]] = {}
        for i, (value, given_as) in enumerate(inputs.items()):
            if given_as in gradients.of:
                copy.add_output(gradients.of[given_as], f"optc.gradient.{i}", given_as.type)
                self._names[value] = given_as.name, f"optc.gradient.{i}"
        self._inputs = {value: one.name for value, one in inputs.items()}
        self.still = tuple(value for value in inputs if value not in self._names)
        """Parameters without a gradient."""
        self._also = [f"optc.also.{i}" for i in range(len(also))]
        for value, name in zip(also, self._also):
            copy.add_output(copies[value], name)
        copy.sweep()
        recompute(copy, copies[loss], parts, gradients.of)
        block_convolutions(copy, block)
        self.inputs = tuple(v.name for v in copy.inputs if v.uses and v not in inputs.values())
        self._read = {v.name for v in copy.inputs if v.uses}
        # By itself the runtime computes the gradients of weights after all else, and keeps what they read till then.
        self._session = bare(copy, threads=threads, providers=providers, in_order=frugal)

    def bind(self, gradient: Floats) -> Run:
        """A run that writes gradients into `gradient`, a buffer like the parameters'. Runs may go side by side."""
        gradient[...] = 0.0
        return Run(self, gradient)


class Run:
    """One place to run in: a gradient buffer, and the last loss."""

    def __init__(self, backward: Backward, gradient: Floats) -> None:
        import onnxruntime

        self._backward = backward
        self._loss = np.zeros((), np.float32)
        self._binding = backward._session.io_binding()
        parameters, values = backward.parameters, onnxruntime.OrtValue
        views: list[tuple[str, Floats]] = []
        for value, (name, result) in backward._names.items():
            views.append((name, parameters.view(parameters.flat, value)))
            self._bind_output(result, parameters.view(gradient, value))
        views += [(backward._inputs[v], parameters.view(parameters.flat, v)) for v in backward.still]
        for name, view in views:
            if name in backward._read:
                self._binding.bind_ortvalue_input(name, values.ortvalue_from_numpy(view))
        self._bind_output("optc.loss", self._loss)
        for name in backward._also:
            self._binding.bind_output(name)

    def _bind_output(self, name: str, array: npt.NDArray[np.float32]) -> None:
        self._binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)

    def __call__(self, feeds: Mapping[str, Array], *, shrink: bool = False) -> tuple[float, list[Array]]:
        """The loss of a batch, and what else is returned; gradients lie in the buffer. Raises `TargetError`.

        `shrink` gives the memory of the run back at its end.
        """
        import onnxruntime

        options = onnxruntime.RunOptions()
        options.log_severity_level = 4
        if shrink:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        for name in self._backward.inputs:
            self._binding.bind_cpu_input(name, np.ascontiguousarray(feeds[name]))
        try:
            self._backward._session.run_with_iobinding(self._binding, options)
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise TargetError(f"a step of training failed: {one_line(error)}") from error
        extra = self._binding.get_outputs()[-len(self._backward._also) :] if self._backward._also else []
        return float(self._loss), [value.numpy() for value in extra]


def _as_input(copy: Graph, copies: Mapping[Value, Value], value: Value, index: int) -> Value:
    return copy.add_input(f"optc.parameter.{index}", copies[value].type)
