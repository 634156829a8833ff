"""The table of the zoo, and the trained networks that ship: they load, verify, answer right, and are small."""

from __future__ import annotations

import re

import numpy as np
import pytest

from optc.errors import DataError, SpecError
from optc.ir.graph import Graph
from optc.ir.onnx.writer import to_bytes
from optc.ir.verify.verify import verify
from optc.models import digits, zoo
from optc.models.builder import stored

TRAINED = [entry.name for entry in zoo.entries() if entry.kind == "trained"]
SHIPPED_LIMIT = 2_000_000


def accuracy(graph: Graph, name: str, split: str) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(to_bytes(graph), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], zoo.samples(name, split))
    return float(np.mean(logits.argmax(1) == zoo.labels(name, split)))


def test_what_ships_is_small() -> None:
    sizes = {item.name: len(item.read_bytes()) for item in digits.DATA.iterdir()}
    assert sizes.keys() == {"digits.npz", *(f"{name}.onnx" for name in TRAINED)}
    assert sum(sizes.values()) < SHIPPED_LIMIT


@pytest.mark.parametrize("name", TRAINED)
def test_trained_networks_answer_right(name: str) -> None:
    graph = zoo.load(name)
    verify(graph)
    right = accuracy(graph, name, "test")
    assert right >= 0.98
    stated = re.search(r"([0-9.]+) % right", zoo.find(name).description)
    assert stated is not None
    assert 100 * right == pytest.approx(float(stated[1]), abs=0.4), "rounding on another machine may turn two samples"


@pytest.mark.parametrize("name", TRAINED)
def test_shipped_files_are_what_the_builders_build(name: str) -> None:
    shipped = zoo.load(name)
    arrays = {value.name: np.array(value.numpy()) for value in shipped.constants}
    assert to_bytes(digits.NETWORKS[name](stored(arrays))) == to_bytes(shipped)


@pytest.mark.parametrize("name", TRAINED)
def test_trained_networks_take_any_batch(name: str) -> None:
    graph = zoo.load(name)
    assert [(value.name, value.shape) for value in graph.inputs] == [("input", ("N", 1, 16, 16))]
    assert [(output.name, output.value.shape) for output in graph.outputs] == [("logits", ("N", 10))]


def test_normalisation_is_left_to_fold() -> None:
    assert sum(node.op == "BatchNormalization" for node in zoo.load("digits_dscnn")) == 11
    assert sum(node.op == "BatchNormalization" for node in zoo.load("digits_resnet")) == 15


def test_splits_are_apart_and_complete() -> None:
    sizes = {"train": 897, "calib": 300, "test": 600}
    images = {split: zoo.samples(TRAINED[0], split)["input"] for split in sizes}
    assert {split: len(array) for split, array in images.items()} == sizes
    assert {split: len(zoo.labels(TRAINED[0], split)) for split in sizes} == sizes
    for array in images.values():
        assert array.dtype == np.float32
        assert array.shape[1:] == (1, 16, 16)
        assert array.min() >= 0
        assert array.max() <= 1
    seen = [{row.tobytes() for row in array} for array in images.values()]
    assert len(set.union(*seen)) == sum(len(rows) for rows in seen), "no image is in two splits"
    assert all(len(set(zoo.labels(TRAINED[0], split))) == 10 for split in sizes)


def test_enlarging_is_half_pixel_linear() -> None:
    expected = [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    assert np.array_equal(digits.bilinear(2, 4), np.array(expected, np.float32))


def test_the_table_has_every_name_once() -> None:
    names = [entry.name for entry in zoo.entries()]
    assert len(set(names)) == len(names)
    assert set(TRAINED) == set(digits.NETWORKS)
    assert all(entry.description and entry.source for entry in zoo.entries())


def test_options_are_the_builder_s_arguments() -> None:
    graph = zoo.load("resnet_cifar:depth=8:classes=3:batch_norm=false")
    assert graph.outputs[0].value.shape == ("N", 3)
    assert not any(node.op == "BatchNormalization" for node in graph)
    assert zoo.find("resnet_cifar").options["depth"] == 20
    assert zoo.find("digits_dscnn").options == {}


@pytest.mark.parametrize(
    ("spec", "message", "position"),
    [
        ("digits_resne", "Did you mean 'digits_resnet'?", 0),
        ("mobilenet_v1:alpah=0.5", "Did you mean 'alpha'?", 13),
        ("mobilenet_v1:classes=10:alpha=wide", "takes a value like 1.0, not 'wide'", 30),
        ("mobilenet_v1:alpha=nan", "takes a value like 1.0", 19),
        ("mobilenet_v1:alpha=-1", "takes a value like 1.0", 19),
        ("mobilenet_v1:alpha=0", "takes a value like 1.0, not '0'", 19),
        ("efficientnet_b0:depth=0.0", "takes a value like 1.0, not '0.0'", 22),
        ("nasnet_mobile:repeats=0", "takes a value like 4", 22),
        ("mobilenet_v1:classes=0", "takes a value like 1000", 21),
        ("mobilenet_v1:classes=10:alpha=1:classes=9", "'classes' of mobilenet_v1 stands there twice", 32),
        ("resnet_cifar:batch_norm=1", "takes a value like True", 24),
        ("digits_dscnn:alpha=1", "no option 'alpha'", 13),
        ("mobilenet_v1:", "no option ''", 13),
    ],
)
def test_bad_specifications_point_at_the_place(spec: str, message: str, position: int) -> None:
    with pytest.raises(SpecError) as caught:
        zoo.load(spec)
    assert message in str(caught.value)
    assert caught.value.position == position


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mobilenet_v3_small:width=1e9", "billion parameters at .*; make it narrower"),
        ("mobilenet_v1:classes=2000000000", "billion parameters at 'classifier.weight'"),
        ("mobilenet_v2:resolution=100000000", "make it narrower, or its input smaller"),
        ("efficientnet_b0:depth=1000000:width=0.001:resolution=32", "nodes; give it fewer layers"),
        ("nasnet_mobile:repeats=1000000:filters=96:resolution=32", "nodes; give it fewer layers"),
    ],
)
def test_a_network_beyond_all_sizes_is_refused_before_it_is_built(spec: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        zoo.load(spec)


def test_only_trained_networks_have_samples() -> None:
    with pytest.raises(DataError, match="random weights"):
        zoo.samples("mobilenet_v1", "calib")
    with pytest.raises(DataError, match=r"no split 'testing'\. Did you mean 'test'"):
        zoo.labels("digits_dscnn", "testing")
    with pytest.raises(SpecError):
        zoo.samples("mobilenet", "calib")
