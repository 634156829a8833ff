"""Weights of other frameworks: every parameter found under its name there, and nothing of a file executed."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optc.errors import ModelError, SpecError
from optc.ir.graph import Graph
from optc.models import zoo
from optc.models.weights import files
from optc.models.weights.names import SCHEMES, parameters

KEYS = Path(__file__).parent / "state_dicts.txt"
"""The parameters of PyTorch networks as torchvision 0.29 and timm 1.0 name them; a norm stands for its four."""
TINY = "mobilenet_v1:alpha=0.25:resolution=32:classes=5"


def state_dicts() -> Iterator[tuple[str, str, dict[str, tuple[int, ...]]]]:
    for part in KEYS.read_text().split("[")[1:]:
        head, _, body = part.partition("]\n")
        framework, network = head.split()
        shapes: dict[str, tuple[int, ...]] = {}
        for line in body.splitlines():
            key, *rest = line.split()
            shape = tuple(map(int, rest[-1].split("x")))
            leaves = ("weight", "bias", "running_mean", "running_var") if rest[0] == "norm" else ()
            shapes |= {f"{key}.{leaf}": shape for leaf in leaves} or {key: shape}
        yield framework, network, shapes


class Storage:
    def __init__(self, key: str, array: np.ndarray[Any, Any]) -> None:
        self.key, self.array = key, array


class Tensor:
    """Pickles as a tensor of PyTorch does; `names` are those that the pickle must speak of."""

    def __init__(self, array: np.ndarray[Any, Any], key: str) -> None:
        self.array, self.storage = array, Storage(key, array)


def pickled(content: object) -> tuple[bytes, dict[str, np.ndarray[Any, Any]]]:
    """A pickle as PyTorch writes it, by the opcodes, and the storages that it speaks of."""
    storages: dict[str, np.ndarray[Any, Any]] = {}
    out = io.BytesIO()

    class Writer(pickle._Pickler):  # type: ignore[misc, name-defined]
        def save(self, item: Any, save_persistent_id: bool = True) -> None:
            if isinstance(item, Tensor):
                self.write(b"ctorch._utils\n_rebuild_tensor_v2\n(")
                self.save(item.storage)
                strides = tuple(n // item.array.itemsize for n in item.array.strides)
                for part in (0, item.array.shape, strides, False):
                    self.save(part)
                self.write(b"tR")
            elif isinstance(item, Storage):
                storages[item.key] = item.array
                self.write(b"(")
                self.save("storage")
                self.write(b"ctorch\nFloatStorage\n")
                for part in (item.key, "cpu", item.array.size):
                    self.save(part)
                self.write(b"tQ")
            else:
                super().save(item, save_persistent_id)

    Writer(out, 2).dump(content)
    return out.getvalue(), storages


def save_zip(path: Path, content: object) -> None:
    data, storages = pickled(content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", data)
        archive.writestr("net/byteorder", "little")
        for key, array in storages.items():
            archive.writestr(f"net/data/{key}", array.tobytes())


def save_stream(path: Path, content: object) -> None:
    data, storages = pickled(content)
    with open(path, "wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            file.write(pickle.dumps(part, 2))
        file.write(data)
        file.write(pickle.dumps(list(storages), 2))
        for array in storages.values():
            file.write(struct.pack("<q", array.size) + array.tobytes())


def tensors(arrays: dict[str, np.ndarray[Any, Any]]) -> OrderedDict[str, Tensor]:
    return OrderedDict((name, Tensor(array, str(index))) for index, (name, array) in enumerate(arrays.items()))


def drawn(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray[Any, Any]]:
    random = np.random.default_rng(0)
    return {name: random.random(shape, np.float32) for name, shape in shapes.items()}


def constants(graph: Graph) -> dict[str, np.ndarray[Any, Any]]:
    return {value.name: np.asarray(value.numpy()) for value in graph.constants}


@pytest.mark.parametrize(
    ("framework", "network", "shapes"), list(state_dicts()), ids=lambda item: item if isinstance(item, str) else ""
)
def test_every_parameter_of_a_published_state_dict_has_its_place(
    framework: str, network: str, shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    arrays = drawn(shapes)
    np.savez(tmp_path / "net.npz", **arrays)
    pads = "tf" if network == "efficientnet_lite0" else "torch"
    graph = zoo.load(f"{network}:pads={pads}:weights={tmp_path}/net.npz")
    (scheme,) = [one for one in SCHEMES if one.name == framework]
    named = parameters(graph, scheme)
    assert named is not None
    assert {source for source, _ in named.values()} == arrays.keys()
    tensors = constants(graph)
    for name, (source, _) in named.items():
        assert np.array_equal(tensors[name].ravel(), arrays[source].ravel())


@pytest.mark.parametrize("save", [save_zip, save_stream])
def test_both_forms_of_pytorch_are_read(save: Callable[[Path, object], None], tmp_path: Path) -> None:
    arrays = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float32([[1, 2], [3, 4]]).T}
    save(tmp_path / "net.pth", tensors(arrays))
    read = files.read(str(tmp_path / "net.pth"))
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        assert read[name].shape == array.shape
    assert np.array_equal(read["a.weight"], arrays["a.weight"])


def test_a_checkpoint_s_state_dict_is_taken_without_what_stands_beside_it(tmp_path: Path) -> None:
    inner = {f"module.{name}": tensor for name, tensor in tensors({"x": np.ones(3, np.float32)}).items()}
    save_zip(tmp_path / "net.pth", {"state_dict": inner, "epoch": 3, "random": np.random.default_rng(0)})
    assert files.read(str(tmp_path / "net.pth")).keys() == {"x"}


class Hostile:
    def __init__(self, call: Any, *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> Any:
        return self.call, self.arguments


@pytest.mark.parametrize("save", [save_zip, save_stream])
def test_nothing_in_a_file_is_run(save: Callable[[Path, object], None], tmp_path: Path) -> None:
    import os

    spoiled = tmp_path / "spoiled"
    calls = [
        Hostile(os.system, f"touch {spoiled}"),
        Hostile(eval, f"open({str(spoiled)!r}, 'w')"),
        Hostile(exec, "1/0"),
    ]
    save(tmp_path / "net.pth", {"x": tensors({"x": np.ones(3, np.float32)})["x"], "y": calls})
    assert files.read(str(tmp_path / "net.pth")).keys() == {"x"}
    assert not spoiled.exists()


def view(size: tuple[int, ...], stride: tuple[int, ...], count: int) -> bytes:
    """The pickle of one tensor that is a view of `count` numbers."""
    out = io.BytesIO()
    out.write(b"\x80\x02}U\x01xctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpu")
    out.write(pickle.dumps(count, 0)[:-1] + b"tQK\x00")
    for part in (size, stride, False):
        out.write(pickle.dumps(part, 2)[2:-1])
    out.write(b"tRs.")
    return out.getvalue()


@pytest.mark.parametrize(
    ("size", "stride"), [((4, 4), (4, 1)), ((2**40,), (0,)), ((2,), (2**40,)), ((2, -1), (1, 1)), ((2,), (1, 1))]
)
def test_a_view_beyond_its_numbers_is_refused(size: tuple[int, ...], stride: tuple[int, ...], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "net.pth", "w") as archive:
        archive.writestr("net/data.pkl", view(size, stride, 4))
        archive.writestr("net/data/0", bytes(16))
    with pytest.raises(ModelError, match=r"reaches beyond|as none can be"):
        files.read(str(tmp_path / "net.pth"))


@pytest.mark.parametrize("save", [save_zip, save_stream])
def test_every_cut_is_a_clear_refusal(save: Callable[[Path, object], None], tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    save(path, tensors({"x": np.ones((4, 4), np.float32)}))
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"net\.pth"):
            files.read(str(path))


def slim(graph: Graph, name: str) -> dict[str, np.ndarray[Any, Any]]:
    """The parameters of a network as a TensorFlow scheme calls and lays them out."""
    (scheme,) = [one for one in SCHEMES if one.name == name]
    tensors, arrays = constants(graph), {}
    for ours, (source, depthwise) in (parameters(graph, scheme) or {}).items():
        array = tensors[ours]
        if array.ndim == 4:
            array = array.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
        elif array.ndim == 2:
            array = array.T
        arrays[source] = array
    return arrays


# Of tensorflow/models, slim/nets; of keras/applications under Keras 2, of keras/src/applications under Keras 3; of
# keras-applications, the package; and of Keras 2.1.6.
PUBLISHED = {
    ("TF-slim", "mobilenet_v1"): """
        MobilenetV1/Conv2d_0/weights MobilenetV1/Conv2d_0/BatchNorm/moving_mean
        MobilenetV1/Conv2d_1_depthwise/depthwise_weights MobilenetV1/Conv2d_13_pointwise/BatchNorm/beta
        MobilenetV1/Logits/Conv2d_1c_1x1/biases""",
    ("TF-slim", "mobilenet_v2"): """
        MobilenetV2/Conv/weights MobilenetV2/expanded_conv/depthwise/depthwise_weights
        MobilenetV2/expanded_conv_9/project/BatchNorm/moving_variance MobilenetV2/expanded_conv_16/expand/weights
        MobilenetV2/Conv_1/BatchNorm/gamma MobilenetV2/Logits/Conv2d_1c_1x1/weights""",
    ("TF-slim", "mobilenet_v3_small"): """
        MobilenetV3/Conv/BatchNorm/beta MobilenetV3/expanded_conv/squeeze_excite/Conv/weights
        MobilenetV3/expanded_conv_3/squeeze_excite/Conv_1/biases MobilenetV3/expanded_conv_10/project/weights
        MobilenetV3/Conv_1/weights MobilenetV3/Conv_2/biases MobilenetV3/Logits/Conv2d_1c_1x1/weights""",
    ("Keras", "mobilenet_v1"): """
        conv1/kernel conv1_bn/gamma conv_dw_1/depthwise_kernel conv_dw_13_bn/moving_mean conv_pw_13/kernel
        conv_preds/bias""",
    ("Keras", "mobilenet_v2"): """
        Conv1/kernel bn_Conv1/beta expanded_conv_depthwise/depthwise_kernel expanded_conv_project_BN/gamma
        block_1_expand/kernel block_16_project_BN/moving_variance Conv_1/kernel Conv_1_bn/beta predictions/kernel""",
    ("Keras", "mobilenet_v3_small"): """
        Conv/kernel Conv/BatchNorm/gamma expanded_conv/depthwise/depthwise_kernel
        expanded_conv/squeeze_excite/Conv/kernel expanded_conv_10/squeeze_excite/Conv_1/bias
        expanded_conv_10/project/BatchNorm/moving_mean Conv_1/BatchNorm/beta Conv_2/bias Logits/kernel""",
    ("Keras", "efficientnet_b0"): """
        stem_conv/kernel stem_bn/gamma block1a_dwconv/depthwise_kernel block1a_bn/beta block1a_se_reduce/bias
        block7a_se_expand/kernel block6d_expand_bn/moving_mean block7a_project_conv/kernel top_bn/beta
        predictions/bias""",
    ("Keras 3", "mobilenet_v1"): "conv1/kernel conv_dw_1/kernel conv_dw_1_bn/gamma conv_preds/kernel",
    ("Keras 3", "mobilenet_v2"): "Conv1/kernel expanded_conv_depthwise/kernel block_1_expand_BN/beta predictions/bias",
    ("Keras 3", "mobilenet_v3_small"): """
        conv/kernel conv_bn/gamma expanded_conv_depthwise/kernel expanded_conv_squeeze_excite_conv/bias
        expanded_conv_10_squeeze_excite_conv_1/kernel expanded_conv_10_expand_bn/moving_mean
        expanded_conv_1_project/kernel conv_1_bn/beta conv_2/bias logits/kernel""",
    ("Keras 3", "efficientnet_b0"): "stem_conv/kernel block1a_dwconv/kernel block2b_expand_bn/gamma top_conv/kernel",
    ("keras-applications", "mobilenet_v2"): "block_1_expand/kernel block_1_expand_BN/gamma Logits/kernel",
    ("Keras 2.1", "mobilenet_v2"): """
        Conv1/kernel bn_Conv1/gamma mobl0_conv_0_depthwise/depthwise_kernel mobl1_conv_1_expand/kernel
        bn2_conv_2_bn_project/beta Conv_1_bn/moving_mean Logits/bias""",
}  # fmt: skip
"""Some parameters of each network, by scheme: one of every kind of layer."""


@pytest.mark.parametrize(("scheme", "network"), PUBLISHED)
def test_a_layer_of_every_kind_is_called_as_published(scheme: str, network: str, tmp_path: Path) -> None:
    source = zoo.load(f"{network}:resolution=32:classes=5")
    arrays = slim(source, scheme)
    assert not set(PUBLISHED[scheme, network].split()) - arrays.keys()
    np.savez(tmp_path / "net.npz", **arrays)
    read = constants(zoo.load(f"{network}:resolution=32:weights={tmp_path}/net.npz"))
    dense = next(name for name in read if name.endswith("classifier.weight"))
    assert np.array_equal(read[dense], constants(source)[dense])


def test_keras_s_statistics_of_images_are_no_parameters(tmp_path: Path) -> None:
    network = "efficientnet_b0:width=0.25:depth=0.3:resolution=32"
    arrays = slim(zoo.load(network), "Keras")
    apart = {f"normalization_1/{name}": np.ones(3, np.float32) for name in ("mean", "variance")}
    np.savez(tmp_path / "net.npz", **arrays, **apart)
    assert zoo.load(f"{network}:weights={tmp_path}/net.npz").outputs[0].value.shape == ("N", 1000)


@pytest.mark.parametrize("scheme", ["TF-slim", "Keras"])
@pytest.mark.parametrize("network", [TINY, "mobilenet_v2:width=0.35:classes=5", "mobilenet_v3_small:classes=5"])
def test_kernels_of_tensorflow_are_turned(scheme: str, network: str, tmp_path: Path) -> None:
    source = zoo.load(f"{network}:seed=7")
    np.savez(tmp_path / "net.npz", **slim(source, scheme))
    graph = zoo.load(f"{network}:weights={tmp_path}/net.npz")
    expected, tensors = constants(source), constants(graph)
    assert all(np.array_equal(tensors[name], array) for name, array in expected.items() if "relu6" not in name)
    stem = next(node for node in graph if node.name == "stem")
    assert stem.attributes["pads"].value == (0, 0, 1, 1), "TensorFlow pads at the end"


def test_keras_files_are_read(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    source = zoo.load(f"{TINY}:seed=7")
    with h5py.File(tmp_path / "net.h5", "w") as file:
        for name, array in slim(source, "Keras").items():
            layer = name.rpartition("/")[0]
            file.create_dataset(f"{layer}/{name}:0", data=array)
    tensors = constants(zoo.load(f"{TINY}:weights={tmp_path}/net.h5"))
    assert np.array_equal(tensors["block3.pointwise.weight"], constants(source)["block3.pointwise.weight"])


def test_keras_files_without_names_say_what_to_save(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "net.weights.h5", "w") as file:
        file.create_dataset("layers/conv2d/vars/0", data=np.ones((3, 3, 3, 8), np.float32))
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
        archive.write(tmp_path / "net.weights.h5", "model.weights.h5")
    for name in ("net.weights.h5", "net.keras"):
        with pytest.raises(ModelError, match=r"save the model as \.h5"):
            files.read(str(tmp_path / name))


def test_safetensors_are_read(tmp_path: Path) -> None:
    numpy_files = pytest.importorskip("safetensors.numpy")
    numpy_files.save_file({"x": np.arange(3, dtype=np.float32)}, tmp_path / "net.bin")
    assert np.array_equal(files.read(str(tmp_path / "net.bin"))["x"], np.arange(3))


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    arrays = slim(zoo.load(TINY), "TF-slim")
    path = tmp_path / "net.npz"

    def load(changed: dict[str, np.ndarray[Any, Any]], spec: str = TINY) -> Graph:
        np.savez(path, **changed)
        return zoo.load(f"{spec}:weights={path}")

    with pytest.raises(ModelError, match=r"lacks 1 of the .* 'MobilenetV1/Conv2d_0/weights'"):
        load({name: array for name, array in arrays.items() if name != "MobilenetV1/Conv2d_0/weights"})
    with pytest.raises(ModelError, match=r"holds 1 parameters that .* 'extra'"):
        load({**arrays, "extra": np.zeros(3)})
    with pytest.raises(ModelError, match=r"has shape .* other options"):
        load(arrays, TINY.replace("0.25", "0.5"))
    with pytest.raises(ModelError, match="none of the parameters"):
        load({"x": np.zeros(3)})
    assert load(arrays, "mobilenet_v1:alpha=0.25:resolution=32").outputs[0].value.shape == ("N", 5), "as the file has"
    with pytest.raises(SpecError, match="architectures"):
        zoo.load(f"digits_resnet:weights={path}")
    with pytest.raises(ModelError, match="cannot be read"):
        zoo.load(f"{TINY}:weights={tmp_path}/none.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ModelError, match="no weights in a known form"):
        zoo.load(f"{TINY}:weights={tmp_path}/text.pth")


def test_names_that_do_not_tell_the_pads_ask_for_them(tmp_path: Path) -> None:
    (shapes,) = [shapes for framework, name, shapes in state_dicts() if (framework, name) == ("timm", "mnasnet_a1")]
    np.savez(tmp_path / "net.npz", **drawn(shapes))
    with pytest.raises(SpecError, match="say pads=tf"):
        zoo.load(f"mnasnet_a1:weights={tmp_path}/net.npz")
