"""Convolutions in the layout that ONNX Runtime computes them fastest in: channels in blocks as wide as its vectors.

ONNX Runtime brings layers into this layout itself, but only those of constant weights; in training weights are inputs,
and its kernels for them take up to three times as long. So each convolution of several elements, dense or depthwise,
is written here as the operator of that layout (domain `com.microsoft.nchwc`) between others that bring values into it
and back; weights are reordered as the graph runs. An Add and a Relu or Clip behind become part of it. What one
convolution leaves in blocks the next one reads so. Products of matrices (1 x 1) are faster as they are.

ONNX Runtime 1.32, one thread, ms, as it was and in blocks with both ends reordered: 16 of 16 -> 16 channels, 32 x 32,
3 x 3: 1.40, .85; 64 -> 64, 8 x 8: .91, .55; depthwise, 4 of 144, 56 x 56: 6.3, 2.5; 384, 14 x 14: 1.1, .4.
"""

from __future__ import annotations

import functools

import numpy as np

from ...errors import TargetError
from ...ir.attributes import AttributeValue
from ...ir.graph import Graph, Node, Value
from ...ir.types import DType, TensorType
from ..session import bare

DOMAIN = "com.microsoft.nchwc"
FOURS = 4
"""Channels are brought into blocks in so many at once."""
PROBED = 64
"""Channels by which the width of a block is seen: more than any block has."""


def block_convolutions(graph: Graph, block: int) -> int:
    """Write what `graph` and its bodies convolve in blocks of so many channels; returns how many layers those are."""
    count = 0
    for one in list(graph.graphs()) if block else ():
        rewriting = _Rewriting(one, block)
        count += sum(rewriting.rewrite(node) for node in list(one) if node.op == "Conv" and not node.domain)
        one.sweep()
        one.sort()
    if count:
        graph.root.opsets.setdefault(DOMAIN, 1)
    return count


@functools.cache
def channel_block() -> int:
    """How many channels a block has here; 0 where ONNX Runtime has no such layout, or another than is written here."""
    try:
        block = _probed()
        return block if block and _agrees(block) else 0
    except TargetError:
        return 0


def _probed() -> int:
    """Channels that lie side by side, from where the second place of the first channel comes to lie."""
    graph = Graph("probe", opsets={"": 13, DOMAIN: 1})
    x = graph.add_input("x", TensorType(DType.FLOAT, (1, PROBED, 1, 2)))
    y = graph.add("ReorderInput", [x], domain=DOMAIN).output
    graph.add_output(y, "y", TensorType(DType.FLOAT))
    (seen,) = bare(graph, threads=1).run(None, {"x": np.arange(2 * PROBED, dtype=np.float32).reshape(1, PROBED, 1, 2)})
    return int(np.flatnonzero(np.asarray(seen).reshape(-1) == 1.0)[0])


def _agrees(block: int) -> bool:
    """Whether a dense and a depthwise layer answer in blocks as they do in plain order."""
    graph = Graph("probe", opsets={"": 13})
    random = np.random.default_rng(0)
    x = graph.add_input("x", TensorType(DType.FLOAT, (1, PROBED, 5, 6)))
    names = {"x": random.standard_normal((1, PROBED, 5, 6)).astype(np.float32)}
    at = x
    for i, (out, group) in enumerate(((PROBED, PROBED), (block + FOURS, 1), (3, 1))):
        channels = PROBED if i < 2 else block + FOURS
        shape = (out, channels // group, 3, 2)
        weight = graph.add_input(f"w{i}", TensorType(DType.FLOAT, shape))
        names[weight.name] = random.standard_normal(shape).astype(np.float32)
        kind = TensorType(DType.FLOAT, (1, out, 5, 5 - i))
        window: dict[str, AttributeValue] = {"group": group, "pads": (1, 0, 1, 0), "kernel_shape": (3, 2)}
        at = graph.add("Conv", [at, weight], window, types=[kind]).output
    graph.add_output(at, "y", TensorType(DType.FLOAT))
    fast = graph.clone()
    block_convolutions(fast, block)
    plain, blocked = (np.asarray(bare(one, threads=1).run(None, names)[0]) for one in (graph, fast))
    return bool(np.allclose(plain, blocked, rtol=1e-3, atol=1e-3))


class _Rewriting:
    def __init__(self, graph: Graph, block: int) -> None:
        self.graph = graph
        self.block = block
        self.blocked: dict[Value, Value] = {}
        """What is in blocks already, by the same in plain order."""

    def rewrite(self, node: Node) -> bool:
        """Write a Conv in blocks; whether it is one of those that gain."""
        x, weight, bias = node.inputs[0], node.inputs[1], node.input(2)
        shape = None if weight is None else weight.static_shape
        if x is None or weight is None or shape is None or len(shape) != 4 or shape[2] * shape[3] == 1:
            return False
        if {x.dtype, weight.dtype} != {DType.FLOAT} or weight.constant is not None:
            return False
        group = node.get_int("group", 1)
        out, channels = shape[0], shape[1] * group
        direct = group == 1 and channels < self.block
        if not direct and (channels % FOURS or group not in (1, channels) or (group > 1 and out != group)):
            return False
        wide = _up(out, self.block)
        chain, other, activation = self._behind(node, out)
        at = chain[-1]
        inputs: list[Value | None] = [x if direct else self._in_blocks(x, at)]
        inputs.append(self._depthwise(weight, shape, at) if group > 1 else self._dense(weight, shape, direct, at))
        inputs.append(None if bias is None else self._padded(bias, (wide - out,), at))
        if other is not None:
            inputs.append(self._in_blocks(other, at))
        while inputs[-1] is None:
            inputs.pop()
        window = {name: attribute for name, attribute in node.attributes.items() if name != "group"}
        fast = self.graph.add("Conv", inputs, window, domain=DOMAIN, before=at, origin=node.origin)
        fast.set_attribute("group", 1 if group == 1 else wide)
        for name, value in activation.items():
            fast.set_attribute(name, value)
        answer = at.output
        plain = self._add("ReorderOutput", [fast.output], at, domain=DOMAIN, channels=out)
        plain.type = answer.type
        self.blocked[plain] = fast.output
        answer.replace_uses(plain)
        for old in reversed(chain):
            self.graph.remove(old)
        return True

    def _behind(self, node: Node, out: int) -> tuple[list[Node], Value | None, dict[str, AttributeValue]]:
        """What a layer of `out` channels takes in: itself, an Add of as much, a Relu or Clip; with what is added, and
        the attributes of the activation."""
        chain, other = [node], None
        after = _only_user(node)
        if after is not None and after.op == "Add" and out % FOURS == 0:
            left, right = after.inputs
            beside = right if left is node.output else left
            if beside is not None and beside.constant is None and _alike(beside, node.output):
                chain, other = [node, after], beside
                after = _only_user(after)
        activation = {} if after is None else _activation(after)
        return ([*chain, after] if after is not None and activation else chain), other, activation

    def _in_blocks(self, value: Value, at: Node) -> Value:
        if value not in self.blocked:
            self.blocked[value] = self._add("ReorderInput", [value], at, domain=DOMAIN)
        return self.blocked[value]

    def _dense(self, weight: Value, shape: tuple[int, ...], direct: bool, at: Node) -> Value:
        """[O, C, …] as [O / block, C / block, …, C in the block, O in the block]; `direct` where C is less than one:
        then all of C stands in the place of one."""
        out, channels, *kernel = shape
        block, wide, deep = self.block, _up(out, self.block), channels if direct else _up(channels, self.block)
        padded = self._padded(weight, (wide - out, deep - channels, 0, 0), at)
        inner = 1 if direct else block
        parts = self._reshaped(padded, (wide // block, block, deep // inner, inner, *kernel), at)
        turned = self._add("Transpose", [parts], at, perm=(0, 2, 4, 5, 3, 1))
        return self._reshaped(turned, (wide, deep, *kernel), at)

    def _depthwise(self, weight: Value, shape: tuple[int, ...], at: Node) -> Value:
        """[C, 1, …] as a map of C channels is."""
        channels, _, *kernel = shape
        image = self._reshaped(weight, (1, channels, *kernel), at)
        return self._reshaped(self._in_blocks(image, at), (_up(channels, self.block), 1, *kernel), at)

    def _padded(self, value: Value, more: tuple[int, ...], at: Node) -> Value:
        """`value` with so many zeros behind each axis."""
        if not any(more):
            return value
        return self._add("Pad", [value, self._ints((*(0 for _ in more), *more))], at)

    def _reshaped(self, value: Value, sizes: tuple[int, ...], at: Node) -> Value:
        return self._add("Reshape", [value, self._ints(sizes)], at)

    def _ints(self, numbers: tuple[int, ...]) -> Value:
        return self.graph.constant(np.array(numbers, np.int64))

    def _add(self, op: str, inputs: list[Value], at: Node, domain: str = "", **attributes: AttributeValue) -> Value:
        return self.graph.add(op, inputs, attributes, domain=domain, before=at).output


def _up(number: int, block: int) -> int:
    return -(-number // block) * block


def _alike(one: Value, other: Value) -> bool:
    return one.dtype is DType.FLOAT and one.shape is not None and one.shape == other.shape


def _only_user(node: Node) -> Node | None:
    """The one node that reads what `node` makes, where nothing else does."""
    users = node.output.users
    alone = len(node.output.uses) == 1 and len(users) == 1 and not node.output.is_output
    return users[0] if alone and users[0].graph is node.graph and not users[0].domain else None


def _activation(node: Node) -> dict[str, AttributeValue]:
    """A Relu or Clip as attributes of the layer before it; nothing for all else."""
    if node.op == "Relu":
        return {"activation": "Relu"}
    bounds = [None if value is None else value.numpy() for value in (node.input(1), node.input(2))]
    if node.op != "Clip" or len(node.inputs) < 3 or any(bound is None or bound.size != 1 for bound in bounds):
        return {}
    numbers = tuple(float(bound.reshape(-1)[0]) for bound in bounds if bound is not None)
    return {"activation": "Clip", "activation_params": numbers}
