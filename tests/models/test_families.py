"""The mobile families have their authors' parameters and multiply-adds, to the unit and to the last digit published."""

from __future__ import annotations

import numpy as np
import pytest

from optc.errors import SpecError
from optc.ir.cost import cost
from optc.ir.graph import Graph
from optc.models import zoo
from optc.models.builder import NetworkBuilder, he


def parameters(graph: Graph, *, moving: bool = False) -> int:
    """Weights, biases, gamma and beta; with `moving` the means and variances of BatchNormalization too."""
    last = {"Conv": 3, "Gemm": 3, "BatchNormalization": 5 if moving else 3}
    counted = {v for node in graph for v in node.inputs[1 : last.get(node.op, 0)] if v is not None}
    return sum(int(np.prod(value.static_shape or ())) for value in counted)


# Parameters: published counts of torchvision (V2, V3, EfficientNet, where it has the width), else of the authors'
# checkpoints (tensorflow/models slim/nets, tensorflow/tpu efficientnet/lite). Multiply-adds, in millions, of
# convolutions and dense layers: the tables of the same places.
@pytest.mark.parametrize(
    ("spec", "count", "macs"),
    [
        ("mobilenet_v1", 4_231_976, 568.7),
        ("mobilenet_v1:alpha=0.75:resolution=192", 2_585_560, 239.3),
        ("mobilenet_v1:alpha=0.5:resolution=160", 1_331_592, 76.5),
        ("mobilenet_v1:alpha=0.25:resolution=128", 470_072, 13.6),
        ("mobilenet_v2:width=1.4", 6_108_776, 582.2),
        ("mobilenet_v2", 3_504_872, 300.8),
        ("mobilenet_v2:width=0.75", 2_636_424, 209.1),
        ("mobilenet_v2:width=0.5", 1_968_680, 97.1),
        ("mobilenet_v2:width=0.35", 1_677_128, 59.3),
        ("mobilenet_v3_large", 5_483_032, 216.6),
        ("mobilenet_v3_large:width=0.75", 3_993_528, 154.6),
        ("mobilenet_v3_small", 2_542_856, 56.5),
        ("mobilenet_v3_small:width=0.75", 2_041_872, 43.4),
        ("efficientnet_b0", 5_288_548, 385.8),
        ("efficientnet_b1", 7_794_184, 686.8),
        ("efficientnet_b2", 9_109_994, 993.6),
        ("efficientnet_b3", 12_233_232, 1827.1),
        ("efficientnet_b4", 19_341_616, 4393.8),
        ("efficientnet_b5", 30_389_784, 10266.4),
        ("efficientnet_b6", 43_040_704, 19067.6),
        pytest.param("efficientnet_b7", 66_347_960, 37745.9, marks=pytest.mark.slow),
        ("efficientnet_lite0", 4_652_008, 385.2),
        ("efficientnet_lite1", 5_416_680, 600.2),
        ("efficientnet_lite2", 6_092_072, 859.7),
        ("efficientnet_lite3", 8_197_096, 1383.3),
        ("efficientnet_lite4", 13_006_568, 2553.0),
        ("mnasnet_a1", 3_887_038, 311.6),
    ],
)
def test_a_family_has_its_authors_size(spec: str, count: int, macs: float) -> None:
    graph = zoo.load(spec)
    assert parameters(graph) == count
    assert cost(graph, dims={"N": 1}).macs / 1e6 == pytest.approx(macs, abs=0.051)


@pytest.mark.parametrize(
    ("name", "total", "macs"),
    [("nasnet_mobile", 5_326_716, 564), pytest.param("nasnet_large", 88_949_818, 23_800, marks=pytest.mark.slow)],
)
def test_nasnet_has_the_size_of_its_published_weights(name: str, total: int, macs: float) -> None:
    """Keras counts the moving statistics, too; the multiply-adds are the paper's, Table 2 and 3."""
    graph = zoo.load(name)
    assert parameters(graph, moving=True) == total
    assert cost(graph, dims={"N": 1}).macs / 1e6 == pytest.approx(macs, rel=1e-3)


def test_folded_networks_have_biases_in_the_place_of_normalisation() -> None:
    for name in ("mobilenet_v3_small", "efficientnet_b0", "mnasnet_a1", "nasnet_mobile:repeats=1"):
        folded = zoo.load(f"{name}:batch_norm=false")
        apart = zoo.load(name)
        norms = sum(node.op == "BatchNormalization" for node in apart)
        assert norms
        assert not any(node.op == "BatchNormalization" for node in folded)
        biased = [sum(n.op == "Conv" and len(n.inputs) == 3 for n in graph) for graph in (apart, folded)]
        assert biased[1] - biased[0] == norms


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(8, 3, 2), (9, 3, 2), (8, 5, 2), (7, 5, 1), (8, 7, 2), (5, 1, 2)]
)
def test_tensorflow_s_pads_stand_at_the_end(size: int, kernel: int, stride: int) -> None:
    """As many windows as ceil(size / stride), the last of which just fits, and never more before than behind."""
    build = NetworkBuilder("net", he(0), pads="tf")
    x = build.input("input", 1, size, size)
    top, left, bottom, right = build.pads(x, kernel, stride)
    places = -(-size // stride)
    assert (top, bottom) == (left, right)
    assert 0 <= bottom - top <= 1
    assert top + bottom == max(0, (places - 1) * stride + kernel - size)
    assert build.conv(x, "conv", 4, kernel, stride=stride).shape == ("N", 4, places, places)


def test_what_a_family_does_not_have_is_refused() -> None:
    with pytest.raises(SpecError, match="no option 'lite'"):
        zoo.load("efficientnet_b0:lite=true")
    with pytest.raises(SpecError, match="take 'torch'"):
        zoo.load("mobilenet_v2:pads=same")
    with pytest.raises(SpecError, match="multiple of 96"):
        zoo.load("nasnet_mobile:filters=100")


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "efficientnet_b0",
        "efficientnet_lite0", "mnasnet_a1", "nasnet_mobile",
    ],
)  # fmt: skip
def test_an_input_may_have_other_channels(name: str) -> None:
    narrow = "alpha=0.25" if name == "mobilenet_v1" else "filters=96:repeats=1" if "nasnet_m" in name else "width=0.25"
    grey, coloured = (zoo.load(f"{name}:{narrow}:channels={n}:resolution=32:classes=10") for n in (1, 3))
    assert grey.inputs[0].shape == ("N", 1, 32, 32)
    kernel = next(node for node in grey if node.op == "Conv").inputs[1].static_shape  # type: ignore[union-attr]
    assert parameters(coloured) - parameters(grey) == 2 * kernel[0] * kernel[2] * kernel[3]  # type: ignore[index]
