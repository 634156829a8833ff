"""Whole models: the derivative along a random direction of all weights, in double precision, against differences."""

from __future__ import annotations

from pathlib import Path

import pytest
from equivalence import feeds as random_feeds
from gradients import along_weights

from optc.ir.graph import Graph
from optc.ir.onnx.reader import load
from optc.ir.shapes.infer import infer
from optc.models import zoo


def check(graph: Graph, samples: int, length: int = 12) -> None:
    infer(graph)
    arrays = random_feeds(graph, size=samples, dims={"T": length})
    analytic, numeric = along_weights(graph, dict(zip((v.name for v in graph.inputs), arrays)))
    assert analytic == pytest.approx(numeric, rel=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        "digits_dscnn",
        "digits_resnet",
        "digits_transformer",
        "digits_mobilenet_v3",
        "digits_efficientnet",
        "resnet_cifar",
    ],
)
def test_small_networks(name: str) -> None:
    check(zoo.load(name), 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "mnasnet_a1", "efficientnet_b0"]
)
def test_large_networks(name: str) -> None:
    check(zoo.load(name), 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "samples"),
    [
        ("cifar_resnet20", 1), ("cifar_resnet32_bn", 1), ("kws_dscnn", 1), ("silero_vad16k", 2), ("minilm_l6", 2),
        ("face_rfb320", 1), ("squeezenet11", 1), ("mobilenetv2", 1), ("efficientnet_lite0", 1),
    ],
)  # fmt: skip
def test_real_models(kit: Path, name: str, samples: int) -> None:
    check(load(kit / "models" / f"{name}.onnx"), samples)
