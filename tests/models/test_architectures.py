"""The built networks are the papers' networks: parameters, multiply-adds, types, determinism."""

from __future__ import annotations

import numpy as np
import pytest

from optc.errors import ModelError, SpecError
from optc.ir.cost import cost
from optc.ir.graph import Graph
from optc.ir.onnx.writer import to_bytes, to_proto
from optc.ir.verify.verify import verify
from optc.models import zoo
from optc.models.builder import NetworkBuilder, he, stored
from optc.models.mobilenet import divisible, mobilenet_v1, mobilenet_v2
from optc.models.resnet import resnet_cifar

SMALL = (
    "mobilenet_v1:alpha=0.25:resolution=64:classes=7",
    "mobilenet_v1:alpha=0.25:resolution=33:classes=7:batch_norm=false",
    "mobilenet_v2:width=0.35:resolution=64:classes=7",
    "mobilenet_v2:width=0.35:resolution=33:classes=7:batch_norm=false",
    "mobilenet_v3_large:width=0.5:resolution=64:classes=7",
    "mobilenet_v3_small:resolution=33:classes=7:minimalistic=true:batch_norm=false",
    "efficientnet_b0:width=0.5:resolution=64:classes=7:pads=tf",
    "efficientnet_b1:resolution=33:classes=7:batch_norm=false",
    "efficientnet_lite0:width=0.5:resolution=65:classes=7:pads=tf",
    "mnasnet_a1:width=0.5:resolution=64:classes=7",
    "nasnet_mobile:filters=192:repeats=1:resolution=64:classes=7",
    "nasnet_large:filters=288:repeats=2:stem=16:resolution=65:classes=7:pads=torch:batch_norm=false",
    "resnet_cifar:depth=14",
    "resnet_cifar:depth=14:shortcut=project",
    "resnet_cifar:depth=110:batch_norm=false",
)


def weights(graph: Graph) -> int:
    """What the papers count: convolution and dense weights, and the classifier's bias; no normalisation."""
    counted = [v for n in graph for v in n.inputs[1:] if v is not None and n.op in ("Conv", "Gemm")]
    return sum(int(np.prod(v.static_shape or ())) for v in counted)


def millions(graph: Graph) -> tuple[float, float]:
    return cost(graph, dims={"N": 1}).macs / 1e6, weights(graph) / 1e6


# Howard et al., 2017: Table 6 (width multiplier) and Table 7 (resolution).
@pytest.mark.parametrize(
    ("alpha", "resolution", "macs", "parameters"),
    [
        (1.0, 224, 569, 4.2),
        (0.75, 224, 325, 2.6),
        (0.5, 224, 149, 1.3),
        (0.25, 224, 41, 0.5),
        (1.0, 192, 418, 4.2),
        (1.0, 160, 290, 4.2),
        (1.0, 128, 186, 4.2),
    ],
)
def test_mobilenet_v1_costs_what_the_paper_says(alpha: float, resolution: int, macs: int, parameters: float) -> None:
    built_macs, built_parameters = millions(mobilenet_v1(alpha, resolution))
    assert built_macs == pytest.approx(macs, abs=1)
    assert round(built_parameters, 1) == parameters


# Sandler et al., 2018, Table 4 gives 300 M and 3.4 M (width 1) and 585 M and 6.9 M (width 1.4). The table that the
# authors published with their checkpoints (tensorflow/models, slim/nets/mobilenet/README.md) is finer, cuts decimals
# off the multiply-adds, and corrects the last to 6.06 M.
@pytest.mark.parametrize(
    ("width", "resolution", "macs", "parameters"),
    [
        (1.4, 224, 582, 6.06),
        (1.3, 224, 509, 5.34),
        (1.0, 224, 300, 3.47),
        (1.0, 192, 221, 3.47),
        (1.0, 160, 154, 3.47),
        (1.0, 96, 56, 3.47),
        (0.75, 224, 209, 2.61),
        (0.5, 224, 97, 1.95),
        (0.35, 224, 59, 1.66),
        (0.35, 96, 11, 1.66),
    ],
)
def test_mobilenet_v2_costs_what_its_authors_say(width: float, resolution: int, macs: int, parameters: float) -> None:
    built_macs, built_parameters = millions(mobilenet_v2(width, resolution))
    assert built_macs == pytest.approx(macs, abs=1)
    assert round(built_parameters, 2) == parameters


def test_mobilenet_v2_is_near_its_paper() -> None:
    macs, parameters = millions(mobilenet_v2())
    assert macs == pytest.approx(300, rel=0.01)
    assert parameters == pytest.approx(3.4, rel=0.03)
    assert millions(mobilenet_v2(1.4))[0] == pytest.approx(585, rel=0.01)


# He et al., 2015, Table 6.
@pytest.mark.parametrize(("depth", "parameters"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_resnet_has_the_paper_s_parameters(depth: int, parameters: float) -> None:
    digits = 1 if depth == 110 else 2
    assert round(weights(resnet_cifar(depth)) / 1e6, digits) == parameters


def test_resnet20_by_hand() -> None:
    image, stages = 32 * 32, ((16, 16, 1), (16, 32, 4), (32, 64, 16))
    macs = 9 * 3 * 16 * image + 64 * 10
    for inputs, channels, shrink in stages:
        macs += (9 * inputs * channels + 5 * 9 * channels * channels) * image // shrink
    assert cost(resnet_cifar(20), dims={"N": 1}).macs == macs
    projections = (16 * 32 * 256 + 32 * 64 * 64, 16 * 32 + 32 * 64)
    projecting = resnet_cifar(20, shortcut="project")
    assert cost(projecting, dims={"N": 1}).macs == macs + projections[0]
    assert weights(projecting) == weights(resnet_cifar(20)) + projections[1]


def test_learned_parameters_of_mobilenet_v2_match_the_usual_count() -> None:
    graph = mobilenet_v2()
    norms = {v for n in graph if n.op == "BatchNormalization" for v in n.inputs[1:3] if v is not None}
    assert weights(graph) + sum(int(np.prod(v.static_shape or ())) for v in norms) == 3_504_872


def test_widths_round_as_the_authors_do() -> None:
    assert [divisible(c) for c in (16 * 0.35, 24 * 0.35, 32 * 0.35, 24 * 0.75, 320 * 1.4)] == [8, 8, 16, 24, 448]


@pytest.mark.parametrize("spec", SMALL)
def test_built_networks_are_valid_and_their_types_are_right(spec: str) -> None:
    import onnx

    graph = zoo.load(spec)
    verify(graph)
    proto = to_proto(graph)
    onnx.checker.check_model(proto, full_check=True)
    names = [v.name for n in graph for v in n.outputs] + [v.name for v in graph.constants]
    assert len(set(names)) == len(names), "writing need not rename anything"
    declared = {v.name: v.shape for n in graph for v in n.outputs}
    del proto.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    seen = 0
    for info in inferred.graph.value_info:
        dims = info.type.tensor_type.shape.dim
        assert declared[info.name] == tuple(d.dim_param or d.dim_value for d in dims)
        seen += 1
    assert seen == len(declared) - 1, "every value but the output"


@pytest.mark.parametrize("spec", SMALL)
def test_random_networks_keep_the_signal_alive(spec: str) -> None:
    import onnxruntime

    graph = zoo.load(spec)
    session = onnxruntime.InferenceSession(to_bytes(graph), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).standard_normal((4, *graph.inputs[0].shape[1:])).astype(np.float32)  # type: ignore[index]
    (logits,) = session.run(["logits"], {"input": images})
    spread = float(np.std(logits, axis=0).mean())
    assert 1e-3 < spread < 1e2


@pytest.mark.parametrize("spec", SMALL[:1] + SMALL[4:5])
def test_a_seed_fixes_every_byte(spec: str) -> None:
    assert to_bytes(zoo.load(spec)) == to_bytes(zoo.load(spec))
    assert to_bytes(zoo.load(spec)) != to_bytes(zoo.load(f"{spec}:seed=1"))


def test_a_parameter_does_not_depend_on_the_others() -> None:
    draw = he(3)
    alone = draw("stem.weight", (4, 3), 0.0, 1.0)
    draw("other", (9,), 0.0, 1.0)
    assert np.array_equal(draw("stem.weight", (4, 3), 0.0, 1.0), alone)


def test_stored_weights_say_what_is_missing() -> None:
    with pytest.raises(ModelError, match=r"'stem.weight' is missing"):
        NetworkBuilder("net", stored({})).parameter("stem.weight", [3, 3])
    with pytest.raises(ModelError, match=r"'stem.weight' has shape \(2,\)"):
        NetworkBuilder("net", stored({"stem.weight": np.zeros(2, np.float32)})).parameter("stem.weight", [3, 3])


@pytest.mark.parametrize("depth", [2, 21, 19])
def test_resnet_refuses_other_depths(depth: int) -> None:
    with pytest.raises(SpecError, match="6n \\+ 2"):
        resnet_cifar(depth)


def test_a_network_of_no_size_is_refused() -> None:
    for arguments in ({"resolution": 0}, {"classes": 0}):
        with pytest.raises(SpecError, match="shape"):
            mobilenet_v1(**arguments)
