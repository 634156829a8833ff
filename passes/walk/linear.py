"""Linear layers: Conv, ConvTranspose, Gemm and MatMul with constant weights, seen as y = W x + b.

One view for all of them: `weights()` is (groups, n, d) with d ordered (channel, kernel...), `inputs` and `targets` take
rows at sampled output positions, `write` puts new weights and bias back in the op's own layout. A MatMul whose result
is only ever shifted by a constant vector is a layer with a bias, and its output is the Add's.

A weight that several nodes read in the same way (the two sides of a comparison, the steps of an unrolled loop, a head
on every level of a pyramid) is one layer, with the node that comes first; the others are its `twins`, and `write`
changes all of them together.

Not handled, each a `Skip` with the reason: weights that are computed, read in several ways, or not float; constant or
transposed inputs; stacked MatMul weights (rank above 2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ...ir.graph import Graph, Node, Value
from ...ir.order import depths
from ...ir.types import DType
from ..base import Skip
from .patches import take_outputs, take_patches, take_transposed

Array = NDArray[np.float64]
Rows = NDArray[np.float32]
Number = TypeVar("Number", bound=np.generic)

OPS = frozenset({"Conv", "Gemm", "MatMul", "ConvTranspose"})
FLOATS = frozenset({DType.FLOAT, DType.FLOAT16, DType.BFLOAT16, DType.DOUBLE})
LARGEST_HALF = 65504.0
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """A linear layer. `add` is the node that adds a MatMul's bias, where there is one; `twins` are the other layers
    that read its weight, and its bias, where it is shared."""

    node: Node
    add: Node | None
    groups: int
    kernel: tuple[int, ...]
    twins: tuple[Linear, ...] = ()

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
        assert self.node.graph is not None
        if self.dtype == np.float16:
            data = np.clip(data, -LARGEST_HALF, LARGEST_HALF)
        return self.node.graph.constant(np.ascontiguousarray(data.astype(self.dtype)), name)

    @property
    def readers(self) -> tuple[Linear, ...]:
        """All layers that read the weight: this one first."""
        return (self, *self.twins)

    @property
    def shared(self) -> dict[str, int]:
        """What a report tells of a weight with several readers: how many."""
        return {"readers": len(self.readers)} if self.twins else {}

    @property
    def source(self) -> Value:
        """The value it reads."""
        value = self.node.inputs[0]
        assert value is not None
        return value

    @property
    def output(self) -> Value:
        return (self.add or self.node).output

    @property
    def weight(self) -> Value:
        value = self.node.inputs[1]
        assert value is not None
        return value

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
        return self.op in _CONVOLUTIONS

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
        if self.op == "Gemm" and self.node.get_int("transB"):
            return 1, sizes[0], sizes[1]
        return 1, sizes[1], sizes[0]

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
        return 0 if self.op == "Conv" or (self.op == "Gemm" and self.node.get_int("transB")) else 1

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
        kind = self.is_conv, self.transposed
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
            return (data if self.node.get_int("transB") else data.T)[None]
        return data.T[None]

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
        elif self.op == "Gemm":
            flat = weight[0] / self.node.get_float("alpha", 1.0)
            data = flat if self.node.get_int("transB") else flat.T
        else:
            data = weight[0].T
        made = self.constant(data, self.weight.name)
        for reader in self.readers:
            reader.node.set_input(1, made)
        if bias is not None:
            self.write_bias(bias)

    def write_bias(self, bias: Array) -> None:
        """Make `bias` (groups * n,) the layer's own; a layer without one stays so."""
        place = self.bias_place
        if place is None:
            return
        old = place[0].inputs[place[1]]
        assert old is not None
        made = self.constant(bias, old.name)
        for reader in self.readers:
            node, index = reader.bias_place or place
            node.set_input(index, made)
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
        return math.prod(output[:-1]), 1

    def output_shape(self, source: Sequence[int], like: Sequence[int]) -> tuple[int, ...]:
        """The shape of the output for an input of shape `source`; `like` is that for another one."""
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
            return np.ascontiguousarray(x.reshape(-1, x.shape[-1])[positions], dtype=np.float32)
        pads = self._begin_pads(x.shape[2:], output[2:])
        take = take_transposed if self.transposed else take_patches
        return take(x, positions, output[2:], self.kernel, self.strides, pads, self.dilations)

    def targets(self, y: Rows, positions: NDArray[np.intp]) -> Rows:
        """Rows (count, groups * n) of an output `y` at `positions`."""
        if self.is_conv:
            return take_outputs(y, positions)
        return np.ascontiguousarray(y.reshape(-1, y.shape[-1])[positions], dtype=np.float32)

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


def linear_layer(node: Node) -> Linear:
    """The layer that `node` (one of `OPS`) is, with its twins in the order of the weight's uses. Raises `Skip` where it
    is one that cannot be rewritten."""
    layer = _reader(node)
    twins = []
    for user, index in layer.weight.uses:
        if user is node:
            if index != 1:
                raise Skip("it reads its weight as an input, too")
            continue
        other = f"{user.op} '{user.label}'" if isinstance(user, Node) else "the model's output"
        plain = isinstance(user, Node) and index == 1 and user.op == node.op and not user.domain
        if not plain or not isinstance(user, Node) or user.graph is not node.graph:
            raise Skip(f"its weight is shared with {other}, which reads it in another way")
        twin = _reader(user)
        if why := _unlike(layer, twin):
            raise Skip(f"its weight is shared with {other}, {why}")
        twins.append(twin)
    return replace(layer, twins=tuple(twins))


def _unlike(one: Linear, other: Linear) -> str:
    """Why two readers of a weight cannot be changed as one, or "": they see it alike, and have one bias or none."""
    if one.node.get_int("transB") != other.node.get_int("transB"):
        return "which reads it the other way round"
    if (one.groups, one.strides, one.dilations) != (other.groups, other.strides, other.dilations):
        return "which strides or dilates otherwise"
    scales = [[x.node.get_float("alpha", 1.0), x.node.get_float("beta", 1.0)] for x in (one, other)]
    biases = [None if place is None else place[0].inputs[place[1]] for place in (one.bias_place, other.bias_place)]
    return "" if scales[0] == scales[1] and biases[0] is biases[1] else "which has a bias of its own"


def _reader(node: Node) -> Linear:
    """The layer that `node` is, whoever else reads its weight."""
    weight = node.input(1)
    if weight is None:
        raise Skip("it has no weight")
    source = node.input(0)
    fixed = source is not None and source.constant is not None
    if weight.constant is None:
        if node.op == "MatMul" and fixed:
            raise Skip("its constant is on the left")
        raise Skip(f"its weight is {weight.unknown}")
    if fixed:
        raise Skip("its input is constant")
    if weight.constant.dtype not in FLOATS:
        raise Skip(f"its weight is {weight.constant.dtype.text}, not float")
    if node.op == "Gemm" and node.get_int("transA"):
        raise Skip("its input is transposed")
    if node.op == "MatMul" and len(weight.constant.shape) != 2:
        raise Skip(f"its weight has rank {len(weight.constant.shape)}")
    bias = node.input(2) if node.op != "MatMul" else None
    if bias is not None and bias.constant is None:
        raise Skip(f"its bias is {bias.unknown}")
    if node.op == "Gemm" and bias is not None and bias.constant is not None:
        columns = weight.constant.shape[0 if node.get_int("transB") else 1]
        if bias.constant.size not in (1, columns) or (bias.constant.shape or (1,))[-1] != bias.constant.size:
            raise Skip(f"its bias has shape {list(bias.constant.shape)}, not one number an output")
    if not np.isfinite(np.asarray(weight.numpy(), dtype=np.float32)).all():
        raise Skip("its weight is not finite")
    if not np.any(weight.numpy()):
        raise Skip("its weight is zero everywhere")
    return layer_view(node)


def layer_view(node: Node) -> Linear:
    """The layer that `node` (one of `OPS`) is, without its twins; who asks knows that it may be changed."""
    weight = node.input(1)
    if node.op not in _CONVOLUTIONS:
        return Linear(node, _bias_add(node), 1, ())
    return Linear(node, None, node.get_int("group", 1), (() if weight is None else weight.static_shape or ())[2:])


def linear_layers(graph: Graph) -> tuple[list[Linear], list[tuple[Node, str]]]:
    """The linear layers of a graph in its order, and the nodes that could not be taken, with the reason."""
    layers: list[Linear] = []
    refused: list[tuple[Node, str]] = []
    order = depths(graph)
    behind: set[Node] = set()  # twins of a layer that comes before them
    for node in graph.walk():
        if node.domain or node.op not in OPS or node in behind:
            continue
        if node.graph is not graph:
            refused.append((node, "it is inside the body of a control-flow operator"))
            continue
        known = [v is not None and v.constant is not None for v in node.inputs]
        weight = node.input(1)
        if node.op == "MatMul" and not any(known) and (weight is None or weight.default is None):
            continue  # a product of activations has no weights to speak of
        try:
            layer = linear_layer(node)
        except Skip as skip:
            refused.append((node, skip.reason))
            continue
        if layer.twins:
            # A walk visits all of them where it comes to the first.
            layer = linear_layer(min((reader.node for reader in layer.readers), key=lambda node: order[node]))
            behind.update(reader.node for reader in layer.readers)
        layers.append(layer)
    return layers, refused


def _bias_add(node: Node) -> Node | None:
    """The Add that gives a MatMul its bias: its only reader, with one constant number an output."""
    if node.op != "MatMul" or len(node.output.uses) != 1 or not node.output.users:
        return None
    add = node.output.users[0]
    weight = node.inputs[1]
    if add.op != "Add" or add.domain or add.graph is not node.graph or weight is None or weight.constant is None:
        return None
    other = next((v for v in add.inputs if v is not node.output), None)
    if other is None or other.constant is None or other.constant.dtype is not weight.constant.dtype:
        return None
    return add if other.constant.shape == weight.constant.shape[1:] else None


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
