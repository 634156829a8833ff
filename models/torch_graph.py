"""Running a built graph in PyTorch, so that the network which is trained is the very one that is written.

Covers the operators that the builders emit and raises `ModelError` at any other. Only for training: everything else
runs on ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as functional

from ..errors import ModelError
from ..ir.graph import Graph
from ..ir.node import Node, Value

Operands = list[torch.Tensor]


class TorchGraph:
    """A graph with its float constants as tensors; those of rank 1 and above train, statistics follow."""

    def __init__(self, graph: Graph) -> None:
        unknown = sorted({node.op for node in graph} - _OPERATORS.keys() - {"BatchNormalization"})
        if unknown:
            raise ModelError(f"{graph.name}: no training for the operators {', '.join(unknown)}")
        self._graph = graph
        self._constants = {value: torch.tensor(value.numpy()) for value in graph.constants}
        norms = [node for node in graph if node.op == "BatchNormalization"]
        self._statistics = {value for node in norms for value in node.inputs[3:5]}
        for value, tensor in self._constants.items():
            if self._trains(value, tensor):
                tensor.requires_grad_()

    def _trains(self, value: Value, tensor: torch.Tensor) -> bool:
        return tensor.is_floating_point() and tensor.ndim > 0 and value not in self._statistics

    def parameters(self) -> Operands:
        return [tensor for tensor in self._constants.values() if tensor.requires_grad]

    def arrays(self) -> dict[str, torch.Tensor]:
        """Name of each constant, to its present value."""
        return {value.name: tensor.detach() for value, tensor in self._constants.items()}

    def __call__(self, images: torch.Tensor, *, training: bool = False) -> torch.Tensor:
        """The first output; `training` normalises by the batch and moves the running statistics towards it."""
        values: dict[Value, torch.Tensor] = {self._graph.inputs[0]: images, **self._constants}
        for node in self._graph:
            operands = [values[value] for value in node.inputs if value is not None]
            if node.op == "BatchNormalization":
                x, gamma, beta, mean, variance = operands
                epsilon = node.get_float("epsilon", 1e-5)
                y = functional.batch_norm(x, mean, variance, gamma, beta, training, 0.1, epsilon)
            else:
                y = _OPERATORS[node.op](node, operands)
            values[node.output] = y
        return values[self._graph.outputs[0].value]


def _conv(node: Node, operands: Operands) -> torch.Tensor:
    x, weight, *bias = operands
    pad = node.get_ints("pads")[0]
    return functional.conv2d(
        x, weight, bias[0] if bias else None, node.get_ints("strides"), padding=pad, groups=node.get_int("group", 1)
    )


def _reshape(node: Node, operands: Operands) -> torch.Tensor:
    x, shape = operands
    return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(shape.tolist())])


_OPERATORS: dict[str, Callable[[Node, Operands], torch.Tensor]] = {
    "Add": lambda node, v: v[0] + v[1],
    "Clip": lambda node, v: torch.clamp(v[0], v[1], v[2]),
    "Conv": _conv,
    "Div": lambda node, v: v[0] / v[1],
    "Erf": lambda node, v: torch.erf(v[0]),
    "Flatten": lambda node, v: v[0].flatten(1),
    "Gemm": lambda node, v: functional.linear(v[0], v[1], v[2]),
    "GlobalAveragePool": lambda node, v: v[0].mean((2, 3), keepdim=True),
    "HardSigmoid": lambda node, v: torch.clamp(node.get_float("alpha", 0.2) * v[0] + node.get_float("beta", 0.5), 0, 1),
    "HardSwish": lambda node, v: functional.hardswish(v[0]),
    "LayerNormalization": lambda node, v: functional.layer_norm(
        v[0], v[1].shape, v[1], v[2], node.get_float("epsilon", 1e-5)
    ),
    "MatMul": lambda node, v: v[0] @ v[1],
    "Mul": lambda node, v: v[0] * v[1],
    "ReduceMean": lambda node, v: v[0].mean(v[1].tolist()),
    "Relu": lambda node, v: torch.relu(v[0]),
    "Reshape": _reshape,
    "Sigmoid": lambda node, v: torch.sigmoid(v[0]),
    "Softmax": lambda node, v: torch.softmax(v[0], -1),
    "Squeeze": lambda node, v: v[0].squeeze(v[1].tolist()),
    "Transpose": lambda node, v: v[0].permute(node.get_ints("perm")),
}
