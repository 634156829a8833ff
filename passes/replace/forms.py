"""The forms that can stand for a block, each a graph of its own, fitted to what the block answers.

    conv       W x                      least squares
    lowrank    A B x                    B (r, inputs) of k x k taps, A pointwise: the best split of that W
    separable  P D x                    D depthwise, P pointwise: alternating least squares for that W
    inverted   P f(D Q x + b)           Q pointwise, D depthwise, P pointwise (MobileNetV2's, but for one activation)

For an inverted bottleneck each filter of the block's first layer over space is split in rank-one terms, (a row of Q)
times (a kernel of D); those that weigh most are its inner channels, several of a filter where there are more channels
than filters. P is by least squares. Then all of it is trained, as no closed form reaches it: steps of Adam on what the
block read and answered (`training`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ...errors import SpecError
from ...ir.graph import Graph, Node, Value
from ...ir.shapes.infer import infer
from ...ir.types import DType, TensorType
from ...runtime.session import Session
from ..base import Context, Skip
from ..depthwise.dw_pw import dw_pw
from ..svd.channel import channel_split
from ..walk.linear import Linear
from ..walk.target import Array
from .places import Place
from .samples import Kernel, Taken, target

if TYPE_CHECKING:
    from .replace import Replace

FORMS = ("conv", "lowrank", "separable", "inverted")
POINT = Kernel((1, 1))


def kernel_of(place: Place, options: Replace) -> Kernel:
    """The geometry of the one convolution over space of a form."""
    widest = place.widest
    size = (options.kernel,) * 2 if options.kernel else widest.kernel
    if any(one % 2 == 0 for one in size):
        raise SpecError(f"kernel={options.kernel}: a kernel that keeps the size has an odd side")
    return Kernel((size[0], size[1]), _pair(place.strides), _pair(widest.dilations))


def fitted(form: str, place: Place, pairs: Taken, options: Replace, ctx: Context) -> Graph:
    """`form` in the place of a block. Raises `Skip` where the block has none, `DataError` where what it reads or
    answers is not finite."""
    kernel = kernel_of(place, options)
    pairs.check(kernel)
    if form == "inverted":
        return _inverted(place, pairs, kernel, options, ctx)
    body = Body(place)
    goal = target(pairs, pairs.read, kernel, ctx.seed)
    weight, hessian, (n, c) = goal.weight[0], goal.hessian[0], (place.outputs, place.inputs)
    if form == "conv":
        return body.done(body.conv(body.x, weight.reshape(n, c, *kernel.size), kernel, goal.bias(goal.weight)))
    if form == "lowrank":
        rank = max(round(options.rank * n), 1)
        if rank >= min(weight.shape):
            raise Skip(f"a rank of {rank} is none that is low")
        after, before = channel_split(weight, hessian).factors(rank)
        first, whole = before.reshape(rank, c, *kernel.size), after @ before
    else:
        p, d = dw_pw(weight, hessian, c, 1)
        after, first = p[:, :, 0], d.reshape(c, 1, *kernel.size)
        whole = (after[:, :, None] * d[None, :, 0]).reshape(n, -1)
    inner = body.conv(body.x, first, kernel, groups=c if form == "separable" else 1)
    return body.done(body.conv(inner, after[:, :, None, None], POINT, goal.bias(whole[None])))


def _inverted(place: Place, pairs: Taken, kernel: Kernel, options: Replace, ctx: Context) -> Graph:
    activation = next((node for node in place.nodes if node.op != "Conv"), None)
    if activation is None:
        raise Skip("it is linear as it is")
    width = max(round(options.expansion * place.inputs), 1)
    rows, taps, bias = _terms(place, kernel, width)
    body = Body(place)
    spread = body.conv(body.x, rows[:, :, None, None], POINT)
    inner = body.conv(spread, taps.reshape(-1, 1, *kernel.size), kernel, bias, groups=len(rows))
    inner = body.activated(inner, activation)
    session = Session(body.graph, outputs=[inner], threads=ctx.threads)
    features = [np.asarray(session.run({"x": read})[0], np.float32) for read in pairs.read]
    goal = target(pairs, features, POINT, ctx.seed)
    return body.done(body.conv(inner, goal.weight[0][:, :, None, None], POINT, goal.bias(goal.weight)))


def _terms(place: Place, kernel: Kernel, width: int) -> tuple[Array, Array, Array]:
    """The rows of Q (width, inputs), the kernels of D (width, taps) and their biases."""
    first, *rest = place.layers
    if first.groups != 1:
        raise Skip("its first layer is not over all channels")
    n, c = first.outputs, place.inputs
    weight, bias = _onto(first.weights().reshape(n, c, *first.kernel), kernel.size), _bias(first)
    if set(first.kernel) == {1} and rest[0].depthwise and rest[0].outputs == n:
        taps = _onto(rest[0].weights().reshape(n, 1, *rest[0].kernel), kernel.size)
        weight, bias = first.weights().reshape(n, c, 1) * taps, bias * taps.sum(axis=(1, 2)) + _bias(rest[0])
        rest = rest[1:]
    u, s, v = np.linalg.svd(weight, full_matrices=False)  # (n, c, r), (n, r), (n, r, taps)
    if width > s.size:
        raise Skip(f"its filters have no {width} terms")
    weighs = s * (_heard(rest[0], n) if rest else np.ones(n))[:, None]  # as much as what reads a filter says
    f, r = np.divmod(np.sort(np.argsort(-weighs, axis=None, kind="stable")[:width]), s.shape[1])
    root = np.sqrt(np.maximum(s[f, r], 1e-12))[:, None]
    return u[f, :, r] * root, v[f, r] * root, np.where(r == 0, bias[f], 0.0)


def _heard(layer: Linear, n: int) -> Array:
    """The norm of the weights that read each of n channels; 1 for each where groups of channels are read."""
    weights = layer.weights()
    if layer.groups == n:
        return np.asarray(np.linalg.norm(weights, axis=(1, 2)))
    if layer.groups == 1:
        return np.asarray(np.linalg.norm(weights.reshape(layer.outputs, n, -1), axis=(0, 2)))
    return np.ones(n)


def _bias(layer: Linear) -> Array:
    bias = layer.bias()
    return np.zeros(layer.outputs) if bias is None else bias


def _onto(weight: Array, size: tuple[int, int]) -> Array:
    """Kernels (n, c, height, width) cut or filled with zeros around their middle, (n, c, taps) of another size."""
    n, c, *old = weight.shape
    placed = np.zeros((n, c, *size))
    mine, theirs = zip(*(_overlap(a, b) for a, b in zip(old, size, strict=True)), strict=True)
    placed[(slice(None), slice(None), *theirs)] = weight[(slice(None), slice(None), *mine)]
    return placed.reshape(n, c, -1)


def _overlap(old: int, new: int) -> tuple[slice, slice]:
    less = min(old, new)
    return slice((old - less) // 2, (old + less) // 2), slice((new - less) // 2, (new + less) // 2)


class Body:
    """A graph in the making that reads "x" and answers as a block."""

    def __init__(self, place: Place) -> None:
        owner = place.layers[0].node.graph
        assert owner is not None
        self._place = place
        self.graph = Graph("block", opsets=owner.opsets)
        self.x = self.graph.add_input("x", TensorType(DType.FLOAT, ("N", place.inputs, "H", "W")))

    def conv(self, x: Value, weight: Array, kernel: Kernel, bias: Array | None = None, groups: int = 1) -> Value:
        constants = [self._of(weight)] + ([] if bias is None else [self._of(bias)])
        return self.graph.add("Conv", [x, *constants], {**kernel.attributes, "group": groups}).output

    def activated(self, x: Value, like: Node) -> Value:
        """The activation `like`; a Relu where that has a parameter a channel."""
        parameters = [None if v is None else v.constant for v in like.inputs[1:]]
        if any(one is not None and math.prod(one.shape) > 1 for one in parameters):
            return self.graph.add("Relu", [x]).output
        constants = [None if one is None else self.graph.constant(one) for one in parameters]
        return self.graph.add(like.op, [x, *constants], {k: v.value for k, v in like.attributes.items()}).output

    def done(self, y: Value) -> Graph:
        self.graph.add_output(y, "y", TensorType(DType.FLOAT, None))
        infer(self.graph)
        return self.graph

    def _of(self, data: Array) -> Value:
        return self.graph.constant(np.ascontiguousarray(data, np.float32))


def _pair(numbers: tuple[int, ...]) -> tuple[int, int]:
    return numbers[0], numbers[1]
