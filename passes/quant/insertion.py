"""Writing the codes into the graph: QuantizeLinear, moves on codes, DequantizeLinear.

For each coded value v the graph holds its codes once: QuantizeLinear of what its producer answers (before an absorbed
clamp), or a move run on the codes of its input. Who computes on v reads DequantizeLinear of them. Float readers of a
value that a float op made keep reading the float.

A layer becomes

    source codes -> DequantizeLinear -+
    int8 weight -> DequantizeLinear --+-> layer -> QuantizeLinear -> ...
    int32 bias -> DequantizeLinear ---+         (scale of bias = scale of source * scale of weight)

which is the form that runtimes fuse into one integer kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ...ir.graph import Graph, Node, Value
from ...ir.origin import Origin
from ...ir.types import DType, TensorType
from ..base import TargetFacts
from .grid import Grid, activation_grid
from .layers import Layer
from .placement import Placement, bounds, operands
from .weights import importance_of, quantize_rows, reduction_rows, weight_grid, weight_of_rows

BY = "quant"


class Insertion:
    """Rewrites one graph along one placement. `grids` maps group representatives to their grids."""

    def __init__(self, graph: Graph, plan: Placement, grids: Mapping[Value, Grid], target: TargetFacts) -> None:
        self._graph = graph
        self._plan = plan
        self._grids = grids
        self._dtype = target.activation_dtype
        self._saturating = target.saturating_int8 and self._dtype is DType.UINT8
        self._codes: dict[Value, Value] = {}
        self._decoded: dict[Value, Value] = {}
        self._constants: dict[tuple[str, bytes], Value] = {}
        self._weight_grids: dict[Layer, Grid] = {}

    def grid(self, value: Value) -> Grid:
        return self._grids[self._plan.group[value]]

    def activations(self) -> None:
        """Put codes where the placement wants them and let the integer ops read them."""
        plan, order = self._plan, tuple(self._graph)
        first = order[0]
        clamped = {node.inputs[0]: value for value, node in plan.clamp.items()}
        for value in plan.coded:
            if value.producer is None:
                self._codes[value] = self._quantize(value, value, first, None)
        for node in order:
            if node in plan.moves:
                self._move(node)
                continue
            for out in node.outputs:
                value = clamped.get(out, out)
                if value in plan.coded and value not in self._codes:
                    self._codes[value] = self._quantize(value, out, None, node if value is out else plan.clamp[value])
        for value in plan.coded:
            self._redirect(value)

    def weights(
        self,
        layers: Sequence[Layer],
        energy: Mapping[Value, NDArray[np.float64]],
        *,
        per_channel: bool,
    ) -> None:
        """Let every layer read int8 codes of its weight; layers that share a weight share its codes."""
        together: dict[Value, list[Layer]] = {}
        for layer in layers:
            together.setdefault(layer.weight, []).append(layer)
        for weight, users in together.items():
            first = users[0]
            codes, grid = self._encode(first, users, energy, per_channel)
            constant = self._graph.constant(codes, weight.name)
            for layer in users:
                decoded = self._dequantize(
                    constant, grid, before=layer.node, origin=layer.node.origin, hint=weight.name
                )
                layer.node.set_input(1, decoded)
                self._weight_grids[layer] = grid

    def biases(self, layers: Sequence[Layer]) -> None:
        """Turn every float bias into int32 codes on the grid of the layer's sums: scale of source times of weight."""
        for layer in layers:
            bias = layer.node.input(2)
            if bias is None:
                continue
            numbers = np.asarray(bias.numpy(), np.float64).reshape(-1)
            numbers = np.broadcast_to(numbers, (layer.channels,))
            scale = self._weight_grids[layer].scale * self.grid(layer.source).scale
            if scale.ndim == 0:
                scale = np.full(layer.channels, scale, np.float32)
            grid = Grid(scale.astype(np.float32), 0, DType.INT32, 0, -(2**31) + 1, 2**31 - 1)
            codes = self._graph.constant(grid.encode(numbers), bias.name)
            layer.node.set_input(
                2, self._dequantize(codes, grid, before=layer.node, origin=layer.node.origin, hint=bias.name)
            )

    def _encode(
        self,
        layer: Layer,
        users: Sequence[Layer],
        energy: Mapping[Value, NDArray[np.float64]],
        per_channel: bool,
    ) -> tuple[NDArray[np.generic], Grid]:
        """Codes of a layer's weight, in its own layout, and their grid."""
        assert layer.weight.constant is not None
        weight = np.asarray(layer.weight.numpy(), np.float32)
        rows = reduction_rows(weight, layer.op, transposed=layer.transposed)
        least = np.zeros(len(rows))
        for user in users:  # int32 must hold every bias
            bias = user.node.input(2)
            if bias is not None:
                numbers = np.abs(np.asarray(bias.numpy(), np.float64)).reshape(-1)
                least = np.maximum(least, 2 * numbers / (float(self.grid(user.source).scale) * 2**31))
        importance = importance_of(layer, energy.get(layer.source), rows.shape)
        saturating = self._saturating and not layer.depthwise
        codes, scale = quantize_rows(
            rows, DType.INT8, importance=importance, saturating=saturating, shared=not per_channel, least_scale=least
        )
        axis = layer.axis if per_channel else None
        return weight_of_rows(codes, weight.shape, layer.op, transposed=layer.transposed), weight_grid(
            scale, DType.INT8, axis
        )

    def _dequantize(self, codes: Value, grid: Grid, *, before: Node, origin: Origin, hint: str = "") -> Value:
        inputs = [codes, self._constant(grid.scale, "scale"), self._zero(grid)]
        attributes = {} if grid.axis is None else {"axis": grid.axis}
        shape = codes.shape
        return self._graph.add(
            "DequantizeLinear",
            inputs,
            attributes,
            outputs=[hint],
            types=[TensorType(DType.FLOAT, shape)],
            origin=Origin.merge([origin], BY),
            before=before,
        ).output

    # -- activations

    def _quantize(self, value: Value, made: Value, before: Node | None, after: Node | None) -> Value:
        """Codes of `value`, whose numbers come from `made`: the same, or what it was before its clamp."""
        grid = self.grid(value)
        source = made if made is not value and self._clamps(grid, self._plan.clamp[value]) else value
        origin = after.origin if after is not None else Origin()
        return self._graph.add(
            "QuantizeLinear",
            [source, self._constant(grid.scale, "scale"), self._zero(grid)],
            outputs=[f"{value.name}_codes"],
            types=[TensorType(grid.dtype, value.shape)],
            origin=Origin.merge([origin], BY),
            before=before,
            after=after,
        ).output

    @staticmethod
    def _clamps(grid: Grid, node: Node) -> bool:
        """Whether encoding alone does what the clamp does: its bounds lie on the grid's own ends, or past them."""
        allowed, ends, half = bounds(node), grid.bounds, 0.5 * float(grid.scale)
        return allowed is not None and ends[0] > allowed[0] - half and ends[1] < allowed[1] + half

    def _move(self, node: Node) -> None:
        """The same op on codes. Its float twin stays for now and dies with the last float reader."""
        read = set(operands(node))
        inputs = [self._codes[v] if v is not None and v in read else v for v in node.inputs]
        grid = self.grid(operands(node)[0])
        if node.op == "Pad" and node.get_string("mode", "constant") == "constant":
            fill = node.input(2)
            number = 0.0 if fill is None else float(np.asarray(fill.numpy(), np.float64).reshape(()))
            code = grid.encode(np.asarray(number, np.float32))
            inputs = [*inputs, *[None] * (2 - len(inputs))]
            inputs[2:3] = [self._constant(code, "pad")]
        made = self._graph.add(
            node.op,
            inputs,
            node.attributes,
            outputs=[f"{v.name}_codes" for v in node.outputs],
            types=[TensorType(grid.dtype, v.shape) for v in node.outputs],
            name=node.name,
            origin=Origin.merge([node.origin], BY),
            after=node,
        )
        for old, new in zip(node.outputs, made.outputs):
            self._codes[old] = new

    def _redirect(self, value: Value) -> None:
        plan = self._plan
        codes = self._codes[value]
        maker = plan.maker.get(value)
        answered = maker is not None and plan.integer(maker)
        for user, index in tuple(value.uses):
            if isinstance(user, Node):
                if user in plan.moves or (user.op == "QuantizeLinear" and user.output is codes):
                    continue
                reads = user in plan.pointwise or (user in plan.layers and index == 0)
                if reads or answered:
                    user.set_input(index, self._decode(value))
            elif answered:
                user.set_output(index, self._decode(value))

    def _decode(self, value: Value) -> Value:
        if value not in self._decoded:
            codes = self._codes[value]
            assert codes.producer is not None
            grid = self.grid(value)
            self._decoded[value] = self._graph.add(
                "DequantizeLinear",
                [codes, self._constant(grid.scale, "scale"), self._zero(grid)],
                outputs=[f"{value.name}_decoded"],
                types=[TensorType(DType.FLOAT, value.shape)],
                origin=codes.producer.origin,
                after=codes.producer,
            ).output
        return self._decoded[value]

    def constants(self) -> None:
        """Encode the constant operands of pointwise ops, each on its own range, and turn Relu into a fusable form."""
        for node in tuple(self._graph):
            if node not in self._plan.pointwise:
                continue
            if node.op == "Relu":
                self._relu(node)
                continue
            for index, value in enumerate(node.inputs):
                data = None if value is None else value.numpy()
                if value is not None and data is not None and node.op in ("Add", "Mul"):
                    numbers = np.asarray(data, np.float32)
                    grid = activation_grid(float(numbers.min()), float(numbers.max()), self._dtype)
                    codes = self._graph.constant(grid.encode(numbers), f"{value.name}_codes")
                    decoded = self._dequantize(
                        codes, grid, before=node, origin=node.origin, hint=f"{value.name}_decoded"
                    )
                    node.set_input(index, decoded)

    def _relu(self, node: Node) -> None:
        """Relu(x) = LeakyRelu(x, 0), which has an integer kernel where Relu has none."""
        twin = self._graph.add(
            "LeakyRelu",
            node.inputs,
            {"alpha": 0.0},
            outputs=[node.output.name],
            types=[node.output.type],
            name=node.name,
            origin=Origin.merge([node.origin], BY),
            before=node,
        )
        node.output.replace_uses(twin.output)

    # -- constants, each written once

    def _zero(self, grid: Grid) -> Value:
        zeros = np.full(grid.scale.shape, grid.zero, grid.dtype.numpy)
        return self._constant(zeros, "zero")

    def _constant(self, array: np.ndarray, hint: str) -> Value:
        key = (f"{array.dtype}{array.shape}", array.tobytes())
        if key not in self._constants:
            self._constants[key] = self._graph.constant(array, hint)
        return self._constants[key]
