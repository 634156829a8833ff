"""A small pre-norm transformer encoder that reads an image row by row.

Vaswani et al., "Attention Is All You Need", 2017 (arXiv:1706.03762), with the normalisation before each layer (Xiong et
al., 2020, arXiv:2002.04745). Spelled in the operators that exporters emit: MatMul and Add for dense layers, Erf for the
exact GELU.
"""

from __future__ import annotations

import math

import numpy as np

from ..ir.graph import Graph
from ..ir.node import Value
from ..ir.types import Shape
from .builder import NetworkBuilder, Weights, sizes


def row_transformer(
    name: str, weights: Weights, *, size: int, classes: int, width: int, heads: int, layers: int
) -> Graph:
    """(N, 1, size, size) -> logits (N, classes): each of the `size` rows is a token of `width` features."""
    build = NetworkBuilder(name, weights)
    x = build.input("input", 1, size, size)
    x = build.node("Squeeze", "rows", [x, build.integers("rows.axes", [1])], ("N", size, size))
    x = _linear(build, x, "embed", width)
    x = build.add(x, build.parameter("position", [size, width], deviation=0.1), "embed.position")
    for layer in range(1, layers + 1):
        attended = _attention(build, _layer_norm(build, x, f"layer{layer}.norm1"), f"layer{layer}.attention", heads)
        x = build.add(x, attended, f"layer{layer}.add1")
        fed = _feed_forward(build, _layer_norm(build, x, f"layer{layer}.norm2"), f"layer{layer}.ffn")
        x = build.add(x, fed, f"layer{layer}.add2")
    x = _layer_norm(build, x, "norm")
    x = build.node("ReduceMean", "mean", [x, build.integers("mean.axes", [1])], ("N", width), {"keepdims": 0})
    return build.finish(build.dense(x, "classifier", classes), "logits")


def _linear(build: NetworkBuilder, x: Value, name: str, features: int) -> Value:
    tokens, inputs = sizes(x)
    weight = build.parameter(f"{name}.weight", [inputs, features], deviation=math.sqrt(1.0 / inputs))
    y = build.node("MatMul", name, [x, weight], ("N", tokens, features))
    return build.add(y, build.parameter(f"{name}.bias", [features]), f"{name}.add")


def _layer_norm(build: NetworkBuilder, x: Value, name: str) -> Value:
    tokens, width = sizes(x)
    gamma, beta = build.parameter(f"{name}.gamma", [width], mean=1.0), build.parameter(f"{name}.beta", [width])
    return build.node("LayerNormalization", name, [x, gamma, beta], ("N", tokens, width), {"axis": -1, "epsilon": 1e-5})


def _attention(build: NetworkBuilder, x: Value, name: str, heads: int) -> Value:
    tokens, width = sizes(x)
    size = width // heads

    def split(part: str, order: list[int]) -> Value:
        y, prefix = _linear(build, x, f"{name}.{part}", width), f"{name}.{part}"
        split_shape: Shape = ("N", tokens, heads, size)
        shape = build.integers(f"{prefix}.heads", [0, tokens, heads, size])
        y = build.node("Reshape", f"{prefix}.split", [y, shape], split_shape)
        permuted = tuple(split_shape[axis] for axis in order)
        return build.node("Transpose", f"{prefix}.transpose", [y], permuted, {"perm": order})

    query, key, value = split("query", [0, 2, 1, 3]), split("key", [0, 2, 3, 1]), split("value", [0, 2, 1, 3])
    square: Shape = ("N", heads, tokens, tokens)
    scores = build.node("MatMul", f"{name}.scores", [query, key], square)
    factor = build.graph.constant(np.float32(size**-0.5), f"{name}.factor")
    scores = build.node("Mul", f"{name}.scale", [scores, factor], square)
    scores = build.node("Softmax", f"{name}.softmax", [scores], square, {"axis": -1})
    y = build.node("MatMul", f"{name}.mix", [scores, value], ("N", heads, tokens, size))
    y = build.node("Transpose", f"{name}.transpose", [y], ("N", tokens, heads, size), {"perm": [0, 2, 1, 3]})
    y = build.node(
        "Reshape", f"{name}.merge", [y, build.integers(f"{name}.width", [0, tokens, width])], ("N", tokens, width)
    )
    return _linear(build, y, f"{name}.output", width)


def _feed_forward(build: NetworkBuilder, x: Value, name: str) -> Value:
    width = sizes(x)[1]
    return _linear(
        build, _gelu(build, _linear(build, x, f"{name}.expand", 4 * width), f"{name}.gelu"), f"{name}.project", width
    )


def _gelu(build: NetworkBuilder, x: Value, name: str) -> Value:
    """x / 2 * (1 + erf(x / sqrt(2)))."""
    shape: Shape = ("N", *sizes(x))
    root, one, half = (
        build.graph.constant(np.float32(number), f"{name}.{part}")
        for part, number in (("root", math.sqrt(2.0)), ("one", 1.0), ("half", 0.5))
    )
    y = build.node("Div", f"{name}.div", [x, root], shape)
    y = build.node("Erf", f"{name}.erf", [y], shape)
    y = build.node("Add", f"{name}.add", [y, one], shape)
    y = build.node("Mul", f"{name}.mul", [x, y], shape)
    return build.node("Mul", f"{name}.halve", [y, half], shape)
