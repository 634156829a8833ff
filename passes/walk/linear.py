"""Linear layers: Conv, ConvTranspose, Gemm and MatMul with constant weights, seen as y = W x + b.

One view for all of them: `weights()` is (groups, n, d) with d ordered (channel, kernel...), `inputs` and `targets` take
rows at sampled output positions, `write` puts new weights and bias back in the op's own layout. A MatMul whose result
is only ever shifted by a constant vector is a layer with a bias, and its output is the Add's.

A product may have its weight on the left, W x, and behind a Transpose.

A weight that several nodes read in the same way (the two sides of a comparison, the steps of an unrolled loop, a head
on every level of a pyramid) is one layer, with the node that comes first; the others are its `twins`. Who reads it
otherwise is one of its `others` (`readers.py`). `write` changes all of them together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ...ir.graph import Node, Value
from ...ir.types import DType
from .patches import PatchWindow, patch_places, take_outputs, take_patches, take_transposed

Array = NDArray[np.float64]
Rows = NDArray[np.float32]
Number = TypeVar("Number", bound=np.generic)

OPS = frozenset({"Conv", "Gemm", "MatMul", "ConvTranspose"})
FLOATS = frozenset({DType.FLOAT, DType.FLOAT16, DType.BFLOAT16, DType.DOUBLE})
LARGEST_HALF = 65504.0
CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
PRODUCTS = OPS - CONVOLUTIONS
OTHERWISE = "which reads it in another way"


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """A linear layer. `add` is the node that adds a MatMul's bias, where there is one; `twins` are the other layers
    that read its weight, and its bias, where it is shared, and `others` who reads its weight otherwise. `turn` is the
    Transpose between a product and its weight; `left` tells that the weight is its first operand."""

    node: Node
    add: Node | None
    groups: int
    kernel: tuple[int, ...]
    twins: tuple[Linear, ...] = ()
    others: tuple[Other, ...] = ()
    turn: Node | None = None
    left: bool = False

    @property
    def name(self) -> str:
        return self.node.name or self.output.name or self.node.op

    @property
    def op(self) -> str:
        return self.node.op

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """What its weights are stored in, and are written in; they are fitted in double precision."""
        constant = self.weight.constant
        return DType.FLOAT.numpy if constant is None else constant.dtype.numpy

    def constant(self, data: Array, name: str) -> Value:
        """A constant of the layer's graph, in its precision, within what that holds."""
        graph = self.weight.graph or self.node.graph  # bodies beside this one may read it, too
        assert graph is not None
        if self.dtype == np.float16:
            data = np.clip(data, -LARGEST_HALF, LARGEST_HALF)
        return graph.constant(np.ascontiguousarray(data.astype(self.dtype)), name)

    @property
    def readers(self) -> tuple[Linear, ...]:
        """All layers that read the weight: this one first."""
        return (self, *self.twins)

    @property
    def alone(self) -> bool:
        """Whether nobody else reads the weight."""
        return not (self.twins or self.others)

    @property
    def otherwise(self) -> str:
        """Why what changes the form of the weight's readers leaves the layer, or "": one of them reads it otherwise."""
        nodes = [f"{other.node.op} '{other.node.label}'" for other in self.others]
        return f"its weight is shared with {nodes[0]}, {OTHERWISE}" if nodes else ""

    @property
    def shared(self) -> dict[str, int]:
        """What a report tells of a weight with several readers: how many."""
        count = len(self.readers) + len(self.others)
        return {"readers": count} if count > 1 else {}

    @property
    def source(self) -> Value:
        """The value it reads."""
        value = self.node.inputs[1 - self.operand]
        assert value is not None
        return value

    @property
    def output(self) -> Value:
        return (self.add or self.node).output

    @property
    def weight(self) -> Value:
        node, index = self.place
        value = node.inputs[index]
        assert value is not None
        return value

    @property
    def place(self) -> tuple[Node, int]:
        """Where the weight is read as it is stored: node and input index."""
        return (self.node, self.operand) if self.turn is None else (self.turn, 0)

    @property
    def operand(self) -> int:
        """Which input of its node the weight is, behind the Transpose where there is one."""
        return 0 if self.left else 1

    def put(self, weight: Value) -> None:
        """Let all readers read `weight`, which is laid out as theirs is."""
        for node, index in (*(reader.place for reader in self.readers), *(other.place for other in self.others)):
            node.set_input(index, weight)

    @property
    def turned(self) -> bool:
        """Whether the weight of a product is stored as (outputs, inputs)."""
        by_attribute = self.op == "Gemm" and bool(self.node.get_int("transB"))
        return by_attribute ^ (self.turn is not None) ^ self.left

    @property
    def bias_place(self) -> tuple[Node, int] | None:
        """Where the bias is read: node and input index; `None` for a layer without one, which stays without."""
        if self.op != "MatMul":
            return (self.node, 2) if self.node.input(2) is not None else None
        if self.add is None:
            return None
        return self.add, next(i for i, v in enumerate(self.add.inputs) if v is not self.node.output)

    @property
    def is_conv(self) -> bool:
        return self.op in CONVOLUTIONS

    @property
    def transposed(self) -> bool:
        return self.op == "ConvTranspose"

    @property
    def strides(self) -> tuple[int, ...]:
        return self.node.get_ints("strides", (1,) * len(self.kernel))

    @property
    def dilations(self) -> tuple[int, ...]:
        return self.node.get_ints("dilations", (1,) * len(self.kernel))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(groups, outputs a group, inputs a row)."""
        sizes = self.weight.static_shape or ()
        if self.transposed:
            return self.groups, sizes[1], sizes[0] // self.groups * int(np.prod(sizes[2:]))
        if self.is_conv:
            return self.groups, sizes[0] // self.groups, int(np.prod(sizes[1:]))
        return (1, sizes[0], sizes[1]) if self.turned else (1, sizes[1], sizes[0])

    @property
    def channels(self) -> int:
        """Input channels a group: d without the kernel."""
        return self.shape[2] // int(np.prod(self.kernel or (1,)))

    @property
    def depthwise(self) -> bool:
        return self.groups > 1 and self.channels == 1

    @property
    def axis(self) -> int:
        """The axis of the weight, as the operator has it, that counts outputs (of a group, for ConvTranspose)."""
        return 0 if self.op == "Conv" or self.turned else 1

    @property
    def outputs(self) -> int:
        """Output channels, of all groups; there too where the weight is computed of quantized values."""
        return (self.weight.static_shape or ())[self.axis] * (self.groups if self.transposed else 1)

    @property
    def unshared(self) -> bool:
        """Whether nothing else reads its weight, or the bias among its own inputs."""
        bias = self.node.input(2)
        return len(self.weight.uses) == 1 and (bias is None or len(bias.uses) == 1)

    def geometry(self) -> tuple[object, ...]:
        """Equal for layers that read the same rows of the same value."""
        node = self.node
        pads = node.get_ints("pads"), node.get_string("auto_pad")
        sizes = node.get_ints("output_padding"), node.get_ints("output_shape")
        kind = self.is_conv, self.transposed, self.left
        return self.source, kind, self.groups, self.kernel, self.strides, self.dilations, pads, sizes

    def weights(self) -> Array:
        """W as (groups, n, d)."""
        data = np.asarray(self.weight.numpy(), dtype=np.float64)
        if self.transposed:
            groups, n, _ = self.shape
            return data.reshape(groups, -1, n, int(np.prod(self.kernel))).swapaxes(1, 2).reshape(self.shape)
        if self.is_conv:
            return data.reshape(self.shape)
        if self.op == "Gemm":
            data = data * self.node.get_float("alpha", 1.0)
        return (data if self.turned else data.T)[None]

    def kernel_rows(self, numbers: NDArray[np.generic] | None = None) -> Rows:
        """The weight, or `numbers` laid out like it, as rows (outputs, d) in the order in which kernels read it.

        Conv (n, c, *k) -> (n, *k then c); Gemm and MatMul (d, n), or (n, d), -> (n, d).
        """
        data = np.asarray(self.weight.numpy() if numbers is None else numbers, np.float32)
        if self.op == "Conv":
            return np.ascontiguousarray(np.moveaxis(data, 1, -1).reshape(len(data), -1))
        return np.ascontiguousarray(data if self.axis == 0 else data.T)

    def of_kernel_rows(self, rows: NDArray[Number]) -> NDArray[Number]:
        """Such rows laid out as the weight is, in the type that they have; with fewer columns, one for each block."""
        shape = self.weight.static_shape or ()
        if self.op == "Conv":
            return np.ascontiguousarray(np.moveaxis(rows.reshape(shape[0], *shape[2:], -1), -1, 1))
        return np.ascontiguousarray(rows if self.axis == 0 else rows.T)

    def laid_out(self, weight: NDArray[Number]) -> NDArray[Number]:
        """`weight` (groups, n, d), of a Conv, Gemm or MatMul, as the operator has it, in the type that it has."""
        if self.op == "Conv":
            return np.ascontiguousarray(weight.reshape(self.weight.static_shape or ()))
        return np.ascontiguousarray(weight[0] if self.axis == 0 else weight[0].T)

    def bias(self) -> Array | None:
        """b as (groups * n,); `None` where none is added."""
        place = self.bias_place
        if place is None:
            return None
        groups, n, _ = self.shape
        value = place[0].inputs[place[1]]
        assert value is not None
        scale = self.node.get_float("beta", 1.0) if self.op == "Gemm" else 1.0
        return np.asarray(np.broadcast_to(np.asarray(value.numpy(), np.float64).reshape(-1) * scale, (groups * n,)))

    def write(self, weight: Array, bias: Array | None) -> None:
        """Make `weight` (groups, n, d) and `bias` (groups * n,) the layer's own."""
        assert self.weight.constant is not None
        if self.transposed:
            groups, n, _ = self.shape
            by_channel = weight.reshape(groups, n, -1, int(np.prod(self.kernel))).swapaxes(1, 2)
            data = by_channel.reshape(self.weight.constant.shape)
        elif self.is_conv:
            data = weight.reshape(self.weight.constant.shape)
        else:
            flat = weight[0] / self.node.get_float("alpha", 1.0) if self.op == "Gemm" else weight[0]
            data = flat if self.turned else flat.T
        self.put(self.constant(data, self.weight.name))
        if bias is not None:
            self.write_bias(bias)

    def write_bias(self, bias: Array) -> None:
        """Make `bias` (groups * n,), or one number for all, the layer's own; a layer without one stays so."""
        place = self.bias_place
        if place is None:
            return
        old = place[0].inputs[place[1]]
        assert old is not None
        new = self.constant(bias, old.name)
        for reader in self.readers:
            node, index = reader.bias_place or place
            node.set_input(index, new)
            if self.op == "Gemm":
                node.set_attribute("beta", 1.0)

    def shift_bias(self, shift: Array) -> None:
        """Add `shift` (outputs,) to the bias. A Conv or Gemm without one gets one; a MatMul must have one."""
        node, index = self.bias_place or (self.node, 2)
        old, bias = node.input(index), self.bias()
        name = f"{self.name}_bias" if old is None else old.name
        node.set_input(index, self.constant(shift if bias is None else bias + shift, name))
        if self.op == "Gemm" and node.get_float("beta", 1.0) != 1.0:
            node.set_attribute("beta", 1.0)

    def sites(self, output: Sequence[int]) -> tuple[int, int]:
        """How many positions an output of shape `output` can be sampled at, and how many rows each gives."""
        if self.is_conv:
            return math.prod(output[2:]), output[0]
        return math.prod(output) // max(output[-2 if self.left else -1], 1), 1

    def output_shape(self, source: Sequence[int], like: Sequence[int]) -> tuple[int, ...]:
        """The shape of the output for an input of shape `source`; `like` is that for another one."""
        if self.left:
            return (*source[:-2], like[-2], source[-1])
        if not self.is_conv:
            return (*source[:-1], like[-1])
        if self.transposed or self.node.get_string("auto_pad", "NOTSET") not in ("", "NOTSET"):
            return (source[0], *like[1:])
        pads, rank = self.node.get_ints("pads", (0,) * (2 * len(self.kernel))), len(self.kernel)
        axes = zip(source[2:], self.kernel, self.strides, self.dilations, pads[:rank], pads[rank:], strict=True)
        sizes = [(size + low + high - (k - 1) * d - 1) // s + 1 for size, k, s, d, low, high in axes]
        return (source[0], like[1], *sizes)

    def answers(self, x: Rows) -> Rows:
        """What the layer as it is answers to rows `x` (count, groups * d): (count, groups * n)."""
        groups, n, d = self.shape
        weight = self.weights().astype(np.float32)
        y = x.reshape(len(x), groups, d).swapaxes(0, 1) @ weight.swapaxes(1, 2)
        flat = y.swapaxes(0, 1).reshape(len(x), groups * n)
        bias = self.bias()
        return flat if bias is None else flat + bias.astype(np.float32)

    def inputs(self, x: Rows, positions: NDArray[np.intp], output: tuple[int, ...]) -> Rows:
        """Rows (count, groups * d) of the input `x` behind `positions` of an output of shape `output`."""
        if not self.is_conv:
            return self._rows(x, positions)
        take = take_transposed if self.transposed else take_patches
        return take(x, positions, output[2:], self._window(x.shape[2:], output[2:]))

    def places(
        self, sizes: tuple[int, ...], positions: NDArray[np.intp], output: tuple[int, ...]
    ) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Where a Conv reads an input of the spatial `sizes` for `positions` of an output of shape `output`: flat
        (positions, taps), and which of these lie inside."""
        return patch_places(sizes, positions, output[2:], self._window(sizes, output[2:]))

    def _window(self, sizes: tuple[int, ...], output: tuple[int, ...]) -> PatchWindow:
        return PatchWindow(self.kernel, self.strides, self._begin_pads(sizes, output), self.dilations)

    def targets(self, y: Rows, positions: NDArray[np.intp]) -> Rows:
        """Rows (count, groups * n) of an output `y` at `positions`."""
        if self.is_conv:
            return take_outputs(y, positions)
        return self._rows(y, positions)

    def _rows(self, array: Rows, positions: NDArray[np.intp]) -> Rows:
        """Rows of what a product reads or answers: columns, where its weight is on the left."""
        array = array.swapaxes(-1, -2) if self.left else array
        return np.ascontiguousarray(array.reshape(-1, array.shape[-1])[positions], dtype=np.float32)

    def _begin_pads(self, sizes: tuple[int, ...], output: tuple[int, ...]) -> tuple[int, ...]:
        mode = self.node.get_string("auto_pad", "NOTSET")
        rank = len(self.kernel)
        if mode in ("", "NOTSET") and not self.node.get_ints("output_shape"):
            return self.node.get_ints("pads", (0,) * (2 * rank))[:rank]
        if mode == "VALID":
            return (0,) * rank
        begins = []
        more = self.node.get_ints("output_padding", (0,) * rank)
        for axis, (k, s, d) in enumerate(zip(self.kernel, self.strides, self.dilations, strict=True)):
            small, large = sizes[axis], output[axis]
            if self.transposed:
                small, large = large - more[axis], small
            total = max((large - 1) * s + (k - 1) * d + 1 - small, 0)
            begins.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
        return tuple(begins)


@dataclass(frozen=True, slots=True, eq=False)
class Other:
    """Who reads the weight of a layer otherwise than the layer does: a layer of its own, or a Gather, of whose rows it
    is the table (`layer` is `None`)."""

    node: Node
    layer: Linear | None

    @property
    def place(self) -> tuple[Node, int]:
        """Where the weight is read as it is stored: node and input index."""
        return (self.node, 0) if self.layer is None else self.layer.place


def layer_view(node: Node) -> Linear:
    """The layer that `node` (one of `OPS`) is, without who else reads its weight; who asks knows that it may be
    changed."""
    if node.op in CONVOLUTIONS:
        weight = node.input(1)
        kernel = (() if weight is None else weight.static_shape or ())[2:]
        return Linear(node, None, node.get_int("group", 1), kernel)
    left = node.op == "MatMul" and not _weight_of(node, 1) and _weight_of(node, 0)
    value = node.input(0 if left else 1)
    maker = None if value is None else value.producer
    one = Linear(node, None, 1, (), turn=maker if maker is not None and turns(maker) else None, left=left)
    return replace(one, add=_bias_add(one))


def turns(node: Node) -> bool:
    """Whether a node exchanges the two axes of a constant."""
    weight = node.input(0) if node.op == "Transpose" and not node.domain else None
    if weight is None or weight.constant is None or len(weight.constant.shape) != 2:
        return False
    return node.get_ints("perm", (1, 0)) == (1, 0)


def _weight_of(node: Node, index: int) -> bool:
    """Whether an operand is a constant, or one whose axes are exchanged."""
    value = node.input(index)
    return value is not None and (value.constant is not None or (value.producer is not None and turns(value.producer)))


def has_weight(node: Node) -> bool:
    """Whether an operand of a product is a weight, computed from constants, or an input with a default for one."""
    weight = node.input(1)
    if _weight_of(node, 1) or _weight_of(node, 0):
        return True
    return weight is not None and (weight.default is not None or weight.of_constants)


def _bias_add(layer: Linear) -> Node | None:
    """The Add that gives a MatMul its bias: its only reader, with one constant number an output."""
    node = layer.node
    if layer.op != "MatMul" or layer.left or len(node.output.uses) != 1 or not node.output.users:
        return None
    add = node.output.users[0]
    weight = layer.weight if node.input(1) is not None else None
    if add.op != "Add" or add.domain or add.graph is not node.graph or weight is None or weight.constant is None:
        return None
    other = next((v for v in add.inputs if v is not node.output), None)
    if other is None or other.constant is None or other.constant.dtype is not weight.constant.dtype:
        return None
    shape = weight.constant.shape
    return add if other.constant.shape == (shape[:1] if layer.turned else shape[1:]) else None


SMALL = 0.005
"""Share of all linear weights below which a layer has nothing to give and, often being the first or last, much to
lose."""


def too_small(layers: Sequence[Linear]) -> dict[Linear, str]:
    """The layers whose weights are a negligible share of all, with the reason to leave them."""
    total = sum(math.prod(layer.shape) for layer in layers)
    shares = {layer: math.prod(layer.shape) / total for layer in layers}
    return {
        layer: f"its weights are {100 * share:.2g} % of all: too few to matter"
        for layer, share in shares.items()
        if share < SMALL
    }
