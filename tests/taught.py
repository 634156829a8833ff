"""What tests of distillation share: a hurt student of a small network, and its context."""

from __future__ import annotations

import numpy as np

from optc.compiler import read
from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.ir.tensor import ArrayTensor
from optc.ir.types import DType
from optc.models import zoo
from optc.passes.base import Context, TargetFacts
from optc.runtime.agreement import agreement
from optc.runtime.sources import load_samples

NAME = "digits_dscnn"


def context(name: str = NAME, samples: int = 160, judges: int = 48) -> Context:
    teacher = read(f"zoo:{name}")
    infer(teacher)
    fit, rest = load_samples(zoo.samples(name, "calib"), teacher).take(samples).split(judges)
    return Context(TargetFacts("onnx"), teacher=teacher, fit=fit, held_out=rest, threads=1)


def hurt(graph: Graph, share: float = 0.2, *, zeros: float = 0.0) -> Graph:
    """The graph with noise of a share of each weight's size on the weights, and some of them gone."""
    rng = np.random.default_rng(0)
    for value in list(graph.constants):
        if value.constant is None or value.dtype is not DType.FLOAT or len(value.constant.shape) < 2:
            continue
        weight = np.asarray(value.numpy(), np.float32)
        noisy = (weight + share * weight.std() * rng.normal(size=weight.shape)).astype(np.float32)
        if zeros:
            noisy[rng.random(weight.shape) < zeros] = 0.0
        value.constant = ArrayTensor(noisy)
    return graph


def student(share: float = 0.2, *, zeros: float = 0.0, name: str = NAME) -> Graph:
    graph = read(f"zoo:{name}")
    infer(graph)
    return hurt(graph, share, zeros=zeros)


def divergence(graph: Graph, ctx: Context) -> float:
    assert ctx.teacher is not None
    assert ctx.held_out is not None
    kl = agreement(ctx.teacher, graph, ctx.held_out, threads=1).kl
    assert kl is not None
    return kl
