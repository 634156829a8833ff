"""Writing the codes into the graph: QuantizeLinear, moves on codes, DequantizeLinear.

For each coded value v the graph holds its codes once: QuantizeLinear of what its producer answers (before an absorbed
clamp), or a move run on the codes of its input. Who computes on v reads DequantizeLinear of them. Float readers of a
value that a float op made keep reading the float.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ....ir.graph import Graph, Node, Value
from ....ir.origin import Origin
from ....ir.types import DType, TensorType
from ...walk.linear import Linear
from ..numbers.params import QuantParams, activation_params, limits
from .placement import Placement, bounds, operands
from .ramps import is_ramp, read_otherwise, saturates, write_ramp

BY = "quant"


class Insertion:
    """Rewrites one graph along one placement. `grids` maps group representatives to their grids."""

    def __init__(self, graph: Graph, plan: Placement, params_of: Mapping[Value, QuantParams], dtype: DType) -> None:
        self.graph = graph
        self._plan = plan
        self._cut_of = read_otherwise(plan, params_of)
        self._params_of = {**params_of, **self._cut_of}
        self._dtype = dtype
        self._codes: dict[Value, Value] = {}
        self._decoded: dict[Value, Value] = {}
        self._constants: dict[tuple[str, bytes], Value] = {}

    def params(self, value: Value) -> QuantParams:
        return self._params_of[self._plan.group[value]]

    def input_params(self, layer: Linear) -> QuantParams:
        """The grid of what a layer reads."""
        return self.params(self._plan.reads[layer.node])

    def activations(self) -> None:
        """Put codes where the placement wants them and let the integer ops read them."""
        plan, order = self._plan, tuple(self.graph)
        first = order[0]
        clamped = {node.inputs[0]: value for value, node in plan.clamp.items()}
        for value in plan.coded:
            if value.producer is None:
                self._codes[value] = self._quantize(value, value, first, None)
        for node in order:
            if node in plan.moves:
                self._move(node)
                continue
            if node.outputs[0] in self._cut_of:
                self._read_otherwise(node)
                continue
            for out in node.outputs:
                value = clamped.get(out, out)
                if value in plan.coded and value not in self._codes:
                    self._codes[value] = self._quantize(value, out, None, node if value is out else plan.clamp[value])
        for value in plan.coded:
            self._redirect(value)

    def dequantize(self, codes: Value, params: QuantParams, *, before: Node, origin: Origin, hint: str = "") -> Value:
        inputs = [codes, self._constant(params.scale, "scale"), self._zero(params)]
        attributes = {} if params.axis is None else {"axis": params.axis}
        shape = codes.shape
        return self.graph.add(
            "DequantizeLinear",
            inputs,
            attributes,
            outputs=[hint],
            types=[TensorType(DType.FLOAT, shape)],
            origin=Origin.merge([origin], BY),
            before=before,
        ).output

    # -- activations

    def _quantize(self, value: Value, numbers: Value, before: Node | None, after: Node | None) -> Value:
        """Codes of `value`, whose numbers come from `made`: the same, or what it was before its clamp."""
        params = self.params(value)
        source = numbers if numbers is not value and self._clamps(params, self._plan.clamp[value]) else value
        origin = after.origin if after is not None else Origin()
        codes = self.graph.add(
            "QuantizeLinear",
            [source, self._constant(params.scale, "scale"), self._zero(params)],
            outputs=["codes"],
            types=[TensorType(params.dtype, value.shape)],
            origin=Origin.merge([origin], BY),
            before=before,
            after=after,
        ).output
        return self._cut(codes, params)

    def _cut(self, codes: Value, params: QuantParams) -> Value:
        """Codes cut to their range, where their type has more."""
        if (params.low, params.high) == limits(params.dtype):
            return codes
        ends = [self._constant(np.asarray(end, params.dtype.numpy), "end") for end in (params.low, params.high)]
        maker = codes.producer
        assert maker is not None
        return self.graph.add(
            "Clip", [codes, *ends], outputs=["codes"], types=[codes.type], origin=maker.origin, after=maker
        ).output

    def _read_otherwise(self, node: Node) -> None:
        """The codes of the answer are those of the input, cut. The node itself dies with its last reader."""
        (value,) = operands(node)
        self._codes[node.output] = self._cut(self._codes[value], self.params(node.output))

    @staticmethod
    def _clamps(params: QuantParams, node: Node) -> bool:
        """Whether encoding alone does what the clamp does: its bounds lie on the grid's own ends, or past them."""
        allowed, ends, half = bounds(node), params.bounds, 0.5 * float(params.scale)
        return allowed is not None and ends[0] > allowed[0] - half and ends[1] < allowed[1] + half

    def _move(self, node: Node) -> None:
        """The same op on codes. Its float twin stays for now and dies with the last float reader."""
        read = set(operands(node))
        inputs = [self._codes[v] if v is not None and v in read else v for v in node.inputs]
        params = self.params(operands(node)[0])
        if node.op == "Pad" and node.get_string("mode", "constant") == "constant":
            fill = node.input(2)
            number = 0.0 if fill is None else float(np.asarray(fill.numpy(), np.float64).reshape(()))
            code = params.quantize(np.asarray(number, np.float32))
            inputs = [*inputs, *[None] * (2 - len(inputs))]
            inputs[2:3] = [self._constant(code, "pad")]
        twin = self.graph.add(
            node.op,
            inputs,
            node.attributes,
            outputs=["codes"] * len(node.outputs),
            types=[TensorType(params.dtype, v.shape) for v in node.outputs],
            name=node.name,
            origin=Origin.merge([node.origin], BY),
            after=node,
        )
        for old, new in zip(node.outputs, twin.outputs):
            self._codes[old] = new

    def _redirect(self, value: Value) -> None:
        plan = self._plan
        maker = plan.maker.get(value)
        answered = maker is not None and plan.integer(maker)
        for user, index in tuple(value.uses):
            if isinstance(user, Node):
                if user in plan.moves or user.op == "QuantizeLinear":
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
            params = self.params(value)
            self._decoded[value] = self.graph.add(
                "DequantizeLinear",
                [codes, self._constant(params.scale, "scale"), self._zero(params)],
                outputs=["decoded"],
                types=[TensorType(DType.FLOAT, value.shape)],
                origin=codes.producer.origin,
                after=codes.producer,
            ).output
        return self._decoded[value]

    def constants(self) -> None:
        """Encode the constant operands of pointwise ops, each on its own range, and write Relu and HardSigmoid in forms
        that runtimes fuse."""
        for node in tuple(self.graph):
            if node not in self._plan.pointwise:
                continue
            if node.op == "Relu":
                self._relu(node)
            elif node.output in self._cut_of:
                continue
            elif is_ramp(node) and saturates(self.params(node.output)):
                read = next(value for value, decoded in self._decoded.items() if decoded is node.inputs[0])
                write_ramp(self, node, self._codes[read], self.params(read))
            elif node.op in ("Add", "Mul"):
                for index, value in enumerate(node.inputs):
                    data = None if value is None else value.numpy()
                    if data is not None:
                        node.set_input(index, self.constant_operand(np.asarray(data, np.float32), node))

    def constant_operand(self, numbers: np.ndarray, node: Node) -> Value:
        """`numbers`, quantized over their own range, as `node` is to read them. One number gets the rank of the answer:
        of fewer axes, runtimes broadcast it channel by channel."""
        if numbers.size == 1 and node.output.shape is not None:
            numbers = numbers.reshape((1,) * max(numbers.ndim, len(node.output.shape)))
        params = activation_params(float(numbers.min()), float(numbers.max()), self._dtype)
        codes = self.graph.constant(params.quantize(numbers), "codes")
        return self.dequantize(codes, params, before=node, origin=node.origin, hint="decoded")

    def _relu(self, node: Node) -> None:
        """Relu(x) = LeakyRelu(x, 0), which has an integer kernel where Relu has none."""
        twin = self.graph.add(
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

    def _zero(self, params: QuantParams) -> Value:
        zeros = np.full(params.scale.shape, params.zero_point, params.dtype.numpy)
        return self._constant(zeros, "zero")

    def _constant(self, array: np.ndarray, hint: str) -> Value:
        key = (f"{array.dtype}{array.shape}", array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.graph.constant(array, hint)
        return self._constants[key]
