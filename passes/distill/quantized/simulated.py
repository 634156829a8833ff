"""A quantized student as floats that a gradient moves, and what they became written back as codes.

The student's *twin* answers as it does, and is made of floats:

    weights       W = s e m round(u)          u: latent codes; e: a factor of the scale; m: multipliers of blocks
    biases        the floats that the int32 codes stand for
    activations   of more than `SIMULATED` bits: cut to their range, x' = clip(x, s (low - z), s (high - z))
                  of fewer: x' = s e (round(clip(x / (s e), low - z, high - z)))

Rounding passes gradients straight through (Bengio et al. 2013); those of e are then those of learned step sizes (Esser
et al. 2020, eq. 3) but for its gradient scale, which Adam's steps do not see: a rate is a share of the scale itself.
Eight bits of an activation are so fine that rounding them costs time, and tells the gradient nothing.

u begins at the codes, moved at random by less than half of one (`DITHER`): the number that was rounded is not known,
and were it the code itself, no step could change any code before it had gone half a code in one direction.

What comes out has the student's own form. Scales keep to numbers that the file stores in few bytes: those of few bits
are rounded to as many digits as they had; those that are powers of one base stay as they are. Not trained: codes that
are indices of a codebook, those of eight bits where pairs of products may saturate, and what is quantized as the model
runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ....ir.clone import clone
from ....ir.graph import Graph, Node, Value
from ....ir.ops import LAYERS
from ....ir.shapes.infer import infer
from ....ir.tensor import ArrayTensor, Tensor
from ....ir.types import DType, TensorType
from ...base import Detail
from ...quant.numbers.params import DIGITS, limits, powers_of_base, shortened
from ...quant.read.decode import Encodings, carry, clip, read_by
from ..parameters import Parameter, parameters
from .codes import Codes, codes_of

Floats = NDArray[np.float32]

SIMULATED = 4
"""The most bits of an activation whose rounding is part of the forward pass."""
DITHER = 0.45
"""How far a latent code may begin from its code."""
CODES = 3.0
"""The root mean square that codes are taken to have where theirs is less: those of four bits have it, and the step from
one code to the next is the same with two."""
STEADY = 0.1
"""The pace of factors of scales, which move all numbers of a channel together, and of biases, which the rounding of
weights has fitted already."""
PRUNED = {2: 0.75, 3: 0.45, 4: 0.3, 8: 0.1}
"""Bits -> the share of zero codes beyond which a weight was pruned, and its zeros stay: twice what rounding numbers of
a normal distribution makes zero."""


@dataclass(frozen=True, slots=True, eq=False)
class _Weight:
    """A weight of the student: the DequantizeLinear that reads it, its codes, and its latent codes and the factor of
    its scale in the twin."""

    node: Node
    codes: Codes
    zero: int
    latent: Value | None
    factor: Value | None


@dataclass(frozen=True, slots=True, eq=False)
class _Bias:
    """A bias: its DequantizeLinear, and its floats in the twin."""

    node: Node
    floats: Value


@dataclass(slots=True)
class Twin:
    """The twin `graph` of a quantized `student`. `moving` are its parameters."""

    student: Graph
    graph: Graph
    moving: list[Parameter]
    weights: list[_Weight] = field(default_factory=list)
    biases: list[_Bias] = field(default_factory=list)
    steps: dict[Value, Value] = field(default_factory=dict)
    """Scales of activations of the student, by the factors that the twin has for them."""
    others: dict[Value, Value] = field(default_factory=dict)
    """Float parameters of the twin, each with that of the student."""
    original: dict[Value, Tensor] = field(default_factory=dict)
    """All constants of the student as they were."""

    def write(self) -> None:
        """Give the student what the parameters of the twin are now."""
        scales: dict[Value, Floats] = {}
        for weight in self.weights:
            if weight.latent is not None:
                numbers = np.rint(_floats(weight.latent)).astype(np.int64)
                weight.codes.write(np.clip(numbers + weight.zero, weight.codes.low, weight.codes.high))
            if weight.factor is not None:
                scale = _scale(weight.node)
                scales[scale] = _rounded(self._was(scale) * _floats(weight.factor).reshape(self._was(scale).shape))
        for factor, scale in self.steps.items():
            scales[scale] = np.asarray(self._was(scale) * np.abs(_floats(factor).reshape(())), np.float32)
        for scale, numbers_ in scales.items():
            scale.constant = ArrayTensor(np.maximum(numbers_, np.float32(1e-30)).reshape(self._was(scale).shape))
        for bias in self.biases:
            self._write_bias(bias)
        for twin, own in self.others.items():
            own.constant = twin.constant

    def restore(self) -> None:
        """Give the student its own constants back."""
        for value, tensor in self.original.items():
            value.constant = tensor

    def users(self, parameter: Parameter) -> Sequence[Node]:
        """The nodes of the student that compute with a parameter of the twin."""
        for weight in self.weights:
            if parameter.value in (weight.latent, weight.factor):
                return weight.node.output.users
        for bias in self.biases:
            if parameter.value is bias.floats:
                return bias.node.output.users
        if parameter.value in self.steps:
            return self.steps[parameter.value].users
        return self.others[parameter.value].users

    def details(self, latent: Value) -> dict[str, Detail]:
        """What became of the weight of these latent codes: the share of codes that changed."""
        for weight in self.weights:
            if weight.latent is latent:
                numbers = np.rint(_floats(latent)) + weight.zero
                return {"codes_changed": round(float(np.mean(numbers != weight.codes.numbers)), 4)}
        return {}

    def _was(self, value: Value) -> Floats:
        return np.asarray(self.original[value].numpy(), np.float32)

    def _write_bias(self, bias: _Bias) -> None:
        """Codes on the grid of the layer's sums, whose scale is that of its input times that of its weight."""
        codes, scale = bias.node.inputs[0], _scale(bias.node)
        layer = bias.node.output.users[0]
        source, weight = (None if v is None else v.producer for v in layer.inputs[:2])
        assert codes is not None
        if source is not None and weight is not None and _is_decoder(source) and _is_decoder(weight):
            product = np.asarray(_scale(weight).numpy()) * np.asarray(_scale(source).numpy()).reshape(())
            shape = self._was(scale).shape
            scale.constant = ArrayTensor(np.ascontiguousarray(np.broadcast_to(product.reshape(-1), shape), np.float32))
        step = np.asarray(scale.numpy(), np.float64)
        numbers = np.clip(np.rint(_floats(bias.floats) / step), -(2**31) + 1, 2**31 - 1)
        codes.constant = ArrayTensor(shortened(numbers))


def twin_of(student: Graph, *, saturating: bool, seed: int = 0) -> Twin | None:
    """The twin of `student`; `None` where it has no codes that a gradient could move. `saturating`: whether codes of 8
    bits must stay, for the sake of kernels whose products saturate."""
    readers = [node for node in student if _is_decoder(node) and _layers_of(node)]
    if not readers:
        return None
    copies: dict[Value, Value] = {}
    graph = clone(student, copies)
    nodes = dict(zip(student, graph, strict=True))
    twin = Twin(student, graph, [])
    twin.original = {v: v.constant for v in student.constants if v.constant is not None}
    rng = np.random.default_rng(seed)
    for node in readers:
        _weight(twin, node, nodes[node], rng, saturating)
    if not twin.weights:
        return None
    for node in student:
        if _is_decoder(node) and (floats := _bias(node, nodes[node], graph)) is not None:
            twin.biases.append(_Bias(node, floats))
            twin.moving.append(Parameter(floats, "bias", pace=STEADY))
    _activations(twin, student, nodes, copies)
    graph.sweep()
    infer(graph, fresh=True)
    own = {copy: value for value, copy in copies.items()}
    latent = {one.value for one in twin.moving}
    for one in parameters(graph):
        if one.value not in latent and one.value in own:
            twin.others[one.value] = own[one.value]
            twin.moving.append(one)
    alive = set(graph.constants)
    twin.moving = [one for one in twin.moving if one.value in alive]
    return twin


def _weight(twin: Twin, node: Node, copy: Node, rng: np.random.Generator, saturating: bool) -> None:
    source, scale = node.inputs[0], node.inputs[1]
    codes = None if source is None else codes_of(source)
    if codes is None or scale is None or scale.constant is None or node.get_int("block_size"):
        return
    graph, zeros = twin.graph, node.input(2)
    zero = 0 if zeros is None else int(np.asarray(zeros.numpy()).reshape(-1)[0])
    numbers = (codes.numbers - zero).astype(np.float32)
    rank, axis = numbers.ndim, node.get_int("axis", 1)
    shape = [-1 if i == axis % rank else 1 for i in range(rank)] if scale.constant.size > 1 else [1] * rank
    own = np.asarray(scale.numpy(), np.float32)
    unit = graph.constant(np.asarray(own.reshape(shape) * codes.multipliers, np.float32), "unit")
    latent = factor = None
    wide = codes.high - codes.low > 100
    if wide and saturating:
        whole = graph.constant(numbers, "codes")
    else:
        begin = numbers + rng.uniform(-DITHER, DITHER, numbers.shape).astype(np.float32)
        mask = _mask(numbers, codes)
        latent = graph.constant(begin if mask is None else begin * mask, f"{copy.output.name}.latent")
        twin.moving.append(
            Parameter(latent, "codes", mask, bounds=(codes.low - zero, codes.high - zero), pace=_pace(numbers))
        )
        whole = graph.add("Round", [latent], before=copy).output
    if not wide and powers_of_base(own) is None:
        factor = graph.constant(np.ones(own.reshape(shape).shape, np.float32), f"{copy.output.name}.factor")
        twin.moving.append(Parameter(factor, "scale", pace=STEADY))
        unit = graph.add("Mul", [unit, factor], before=copy).output
    decoded = graph.add("Mul", [whole, unit], before=copy, origin=copy.origin).output
    decoded.type = TensorType(DType.FLOAT, numbers.shape)
    copy.output.replace_uses(decoded)
    graph.remove(copy)
    twin.weights.append(_Weight(node, codes, zero, latent, factor))


def _pace(numbers: Floats) -> float:
    size = float(np.sqrt(np.mean(np.square(numbers)))) or 1.0
    return max(CODES / size, 1.0)


def _mask(numbers: Floats, codes: Codes) -> NDArray[np.bool_] | None:
    bits = (codes.high - codes.low).bit_length()
    share = PRUNED[min((b for b in PRUNED if b >= bits), default=8)]
    return numbers != 0 if np.mean(numbers == 0) > share else None


def _bias(node: Node, copy: Node, graph: Graph) -> Value | None:
    codes, scale = node.inputs[0], node.inputs[1]
    if codes is None or codes.constant is None or codes.constant.dtype is not DType.INT32:
        return None
    if scale is None or scale.constant is None or not all(
        user.op in LAYERS and index == 2 for user, index in node.output.uses if isinstance(user, Node)
    ):  # fmt: skip
        return None
    numbers = np.asarray(codes.numpy(), np.float64) * np.asarray(scale.numpy(), np.float64)
    floats = graph.constant(np.asarray(numbers, np.float32), f"{copy.output.name}.bias")
    copy.output.replace_uses(floats)
    graph.remove(copy)
    return floats


def _activations(twin: Twin, student: Graph, nodes: Mapping[Node, Node], copies: Mapping[Value, Value]) -> None:
    """Let the twin carry floats where the student carries codes of activations."""
    graph = twin.graph
    carried: Encodings = {}
    factors: dict[Value, Value] = {}
    for node in student:
        copy = nodes[node]
        if copy.graph is None or node.domain:
            continue
        first = copy.input(0)
        if node.op == "QuantizeLinear" and first is not None and first.constant is None and _one_scale(node):
            ends = _code_ends(node)
            if ends is not None and ends[1] - ends[0] < 1 << SIMULATED:
                _simulate(twin, node, copy, ends, factors)
            else:
                clip(graph, copy, carried)
        elif node.op == "DequantizeLinear" and first is not None and first.dtype is DType.FLOAT:
            copy.output.replace_uses(read_by(graph, copy, first, carried[first]) if first in carried else first)
            graph.remove(copy)
        elif first is not None and first in carried:
            carry(graph, copy, carried)


def _code_ends(node: Node) -> tuple[int, int] | None:
    """The least and the greatest code that a QuantizeLinear leaves, after a Clip that alone reads its codes and passes
    them to who reads them by the same scale."""
    dtype, users = node.output.dtype, node.output.users
    if dtype is None or not dtype.is_integer:
        return None
    low, high = limits(dtype)
    if len(users) == 1 and users[0].op == "Clip" and _same_scale(node, users[0]):
        ends = [None if v is None or v.constant is None else int(np.asarray(v.numpy())) for v in users[0].inputs[1:3]]
        return (low if ends[0] is None else ends[0], high if len(ends) < 2 or ends[1] is None else ends[1])
    return low, high


def _same_scale(node: Node, cut: Node) -> bool:
    own, *others = (_scale(one).numpy() for one in (node, *filter(_is_decoder, cut.output.users)))
    return own is not None and all(other is not None and np.array_equal(other, own) for other in others)


def _simulate(twin: Twin, node: Node, copy: Node, ends: tuple[int, int], factors: dict[Value, Value]) -> None:
    graph, scale = twin.graph, _scale(node)
    own, zeros = np.asarray(scale.numpy(), np.float32).reshape(()), node.input(2)
    zero = 0 if zeros is None else int(np.asarray(zeros.numpy()).reshape(()))
    low, high = (graph.constant(np.asarray(end - zero, np.float32), "bound") for end in ends)
    if scale not in factors:
        factors[scale] = graph.constant(np.ones((1,), np.float32), f"{scale.name}.factor")
        twin.steps[factors[scale]] = scale
        twin.moving.append(Parameter(factors[scale], "scale", pace=STEADY))
    source = copy.inputs[0]
    assert source is not None
    unit = graph.add("Mul", [factors[scale], graph.constant(own, "unit")], before=copy).output
    steps = graph.add("Div", [source, unit], before=copy).output
    whole = graph.add("Round", [graph.add("Clip", [steps, low, high], before=copy).output], before=copy).output
    decoded = graph.add("Mul", [whole, unit], before=copy, origin=copy.origin).output
    decoded.type = TensorType(DType.FLOAT, copy.output.shape)
    copy.output.replace_uses(decoded)
    graph.remove(copy)
    for user in decoded.users:
        if user.op == "Clip" and user.output.dtype is not DType.FLOAT:
            user.output.replace_uses(decoded)  # which is cut already
            graph.remove(user)


def _is_decoder(node: Node) -> bool:
    return node.op == "DequantizeLinear" and not node.domain


def _layers_of(node: Node) -> list[Node]:
    """The layers whose weight a DequantizeLinear decodes."""
    return [user for user, index in node.output.uses if isinstance(user, Node) and user.op in LAYERS and index == 1]


def _one_scale(node: Node) -> bool:
    scale = node.input(1)
    return scale is not None and scale.constant is not None and scale.constant.size == 1


def _scale(node: Node) -> Value:
    scale = node.inputs[1]
    assert scale is not None
    return scale


def _floats(value: Value) -> Floats:
    return np.asarray(value.numpy(), np.float32)


def _rounded(scale: Floats) -> Floats:
    """The nearest numbers of as many digits as float16 keeps."""
    parts, exponents = np.frexp(scale.astype(np.float64))
    return np.asarray(np.ldexp(np.rint(np.ldexp(parts, DIGITS)), exponents - DIGITS), np.float32)
