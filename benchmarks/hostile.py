"""Hostile files made at random from sound ones: models, samples, documents, archives, devices."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import random
import shutil
import socket
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from attempt import Case, attempt
from onnx import TensorProto, helper, numpy_helper

NUMBERS = (
    *(0, 1, -1, 2, 3, 7, 127, 255, 65535),
    *(1 << 20, (1 << 31) - 1, 1 << 31, 1 << 40, 1 << 62, (1 << 63) - 1, -(1 << 63)),
)
NAMES = (
    *("", "../x", "/tmp/optc-fuzz", "a\nb", "\x1b[2J", "[/x]", "x" * 5000, "x", "y", "w0", "ü", "\x00"),
    *("a b", "$(id)", "%s", "-o"),
)
OPS = (
    *("Add", "MatMul", "Conv", "Gemm", "Reshape", "Tile", "Expand", "ConstantOfShape", "Range", "Concat", "Gather"),
    *("Slice", "Pad", "Resize", "Cast", "Shape", "Where", "Einsum", "Relu", "Softmax", "Transpose", "Unsqueeze"),
    *("Split", "TopK", "NonZero", "Loop"),
)


def sound(rng: random.Random) -> onnx.ModelProto:
    """A small model of layers, shape arithmetic, a branch and a function."""
    generator = np.random.default_rng(rng.randrange(1 << 30))

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("act", ["r"], ["f"], "call", domain="own"),
        helper.make_node("Shape", ["f"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["to"], axis=0),
        helper.make_node("Reshape", ["f", "to"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w1"], ["m"], "product"),
        helper.make_node("Add", ["m", "b1"], ["y"], "sum"),
    ]
    weights = [weight("w0", 8, 3, 3, 3), weight("b0", 8), weight("w1", 128, 10), weight("b1", 10),
               numpy_helper.from_array(np.array([0], np.int64), "zero"),
               numpy_helper.from_array(np.array([-1], np.int64), "rest")]  # fmt: skip
    inner = [helper.make_node("Sigmoid", ["a"], ["b"])]
    function = helper.make_function("own", "act", ["a"], ["b"], inner, [helper.make_opsetid("", 17)])
    graph = helper.make_graph(nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 4, 4])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])], weights)  # fmt: skip
    return helper.make_model(graph, ir_version=8, functions=[function],
                             opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("own", 1)])  # fmt: skip


def changed(data: bytes, rng: random.Random) -> bytes:
    """The bytes with a few of them flipped, cut, doubled or replaced."""
    text = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(text) + 1)
        match rng.randrange(5):
            case 0 if text:
                text[at % len(text)] ^= 1 << rng.randrange(8)
            case 1:
                del text[at : at + rng.choice((1, 4, 64))]
            case 2:
                text[at:at] = text[at : at + rng.choice((1, 8, 256))]
            case 3:
                text[at : at + 1] = rng.randbytes(rng.choice((1, 2, 9)))
            case 4 if rng.random() < 0.2:
                del text[at:]
    return bytes(text)


def mutated(model: onnx.ModelProto, rng: random.Random) -> None:
    """Change some fields of a model to what a hostile exporter could write."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        graph = model.graph
        node = rng.choice(graph.node)
        tensor = rng.choice(graph.initializer)
        match rng.randrange(13):
            case 0:
                node.op_type = rng.choice(OPS)
            case 1 if node.input:
                names = [*(name for one in graph.node for name in one.output), *NAMES]
                node.input[rng.randrange(len(node.input))] = rng.choice(names)
            case 2:
                node.name = node.output[0] = rng.choice(NAMES)
            case 3:
                name = rng.choice(("axis", "pads", "group", "to", "perm", "strides"))
                value = rng.choice((rng.choice(NUMBERS), [rng.choice(NUMBERS)] * 4))
                node.attribute.append(helper.make_attribute(name, value))
            case 4:
                tensor.dims[:] = [rng.choice(NUMBERS) for _ in range(rng.randrange(5))]
            case 5:
                tensor.data_type = rng.randrange(30)
            case 6:
                tensor.ClearField("raw_data")
                tensor.data_location = TensorProto.EXTERNAL
                tensor.external_data.add(key="location", value=rng.choice((*NAMES, "m.onnx")))
                tensor.external_data.add(key="offset", value=str(rng.choice(NUMBERS)))
            case 7:
                size = graph.input[0].type.tensor_type.shape.dim.add()
                size.dim_value = rng.choice(NUMBERS)
            case 8:
                size = rng.choice(graph.input[0].type.tensor_type.shape.dim)
                size.dim_param = rng.choice((*NAMES, "N*N*N", "(" * 90, "a//0"))
            case 9:
                numbers = [rng.choice(NUMBERS) for _ in range(rng.randrange(5))]
                tensor.CopyFrom(numpy_helper.from_array(np.array(numbers, np.int64)))
                tensor.name = rng.choice(("rest", "zero", "w1"))
            case 10:
                graph.node.extend([rng.choice(graph.node)])
            case 11:
                model.functions[0].node[0].op_type = rng.choice(("act", *OPS))
                model.functions[0].node[0].domain = rng.choice(("own", ""))
            case 12:
                sparse = graph.sparse_initializer.add()
                sparse.values.CopyFrom(numpy_helper.from_array(np.ones(2, np.float32), rng.choice(("w0", "new", "w1"))))
                sparse.indices.CopyFrom(numpy_helper.from_array(np.array([rng.choice(NUMBERS)] * 2, np.int64), "i"))
                sparse.dims[:] = [rng.choice(NUMBERS) for _ in range(2)]


def stored(model: onnx.ModelProto, folder: Path, rng: random.Random) -> None:
    """Store a weight in another way: in four bits, as a sparse tensor, in a file of its own."""
    graph = model.graph
    (weight,) = (one for one in graph.initializer if one.name == "w1")
    match rng.randrange(4):
        case 0:
            codes = numpy_helper.from_array(np.zeros((64, 10), np.int8), "c")
            packed = helper.make_tensor("c", TensorProto.INT4, (128, 10), codes.raw_data, raw=True)
            scale = numpy_helper.from_array(np.full(10, 0.1, np.float32), "s")
            graph.initializer.remove(weight)
            graph.initializer.extend([packed, scale])
            graph.node.insert(0, helper.make_node("DequantizeLinear", ["c", "s"], ["w1"], axis=1))
            model.opset_import[0].version = 21
        case 1:
            graph.initializer.remove(weight)
            where = numpy_helper.from_array(np.array([rng.choice((0, 5, 1279, 1280, -1)), 7], np.int64), "i")
            values = numpy_helper.from_array(np.ones(2, np.float32), "w1")
            graph.sparse_initializer.append(helper.make_sparse_tensor(values, where, [128, 10]))
        case 2:
            (folder / "m.data").write_bytes(weight.raw_data)
            weight.ClearField("raw_data")
            weight.data_location = TensorProto.EXTERNAL
            length = rng.choice((5120, 5120, 5119, 1 << 40, -1, 0))
            for key, value in {"location": "m.data", "offset": rng.choice((0, 0, 8, -8)), "length": length}.items():
                weight.external_data.add(key=key, value=str(value))


@functools.cache
def bases() -> tuple[Path, ...]:
    """The models of the ONNX backend suite."""
    return tuple(sorted((Path(onnx.__file__).parent / "backend" / "test" / "data").glob("*/*/model.onnx")))


def write_model(folder: Path, rng: random.Random, *, hostile: bool = True) -> None:
    if hostile and rng.random() < 0.5:
        data = rng.choice(bases()).read_bytes()
        (folder / "m.onnx").write_bytes(changed(data, rng))
        return
    model = sound(rng)
    if hostile and rng.random() < 0.4:
        stored(model, folder, rng)
    if hostile and rng.random() < 0.7:
        with contextlib.suppress(TypeError, ValueError, IndexError):
            mutated(model, rng)
    data = model.SerializeToString()
    (folder / "m.onnx").write_bytes(changed(data, rng) if hostile and rng.random() < 0.4 else data)


def read_alone(folder: Path, rng: random.Random) -> Case:
    write_model(folder, rng)
    return Case(folder, ["m.onnx"], "model")


def models(folder: Path, rng: random.Random) -> Case:
    write_model(folder, rng)
    words = rng.choice((
        ["inspect", "m.onnx"],
        ["inspect", "m.onnx", "--json"],
        ["m.onnx", "--passes", "clean", "--no-check", "-o", "out.onnx"],
        ["m.onnx", "--passes", "clean", "-o", "out.onnx", "--samples", "2"],
        ["m.onnx", "--passes", "prune,svd,quant", "--samples", "4", "-o", "out.onnx"],
        ["diff", "m.onnx", "m.onnx"],
    ))  # fmt: skip
    return Case(folder, words, "model")


def samples(folder: Path, rng: random.Random) -> Case:
    write_model(folder, rng, hostile=False)
    x = np.zeros((4, 3, 4, 4), np.float32)
    name = rng.choice(("x.npz", "p.npz", "x.npy", "images", "pb"))
    if name.endswith("npz"):
        (np.savez if name == "x.npz" else np.savez_compressed)(folder / name, x=x)
    elif name == "x.npy":
        np.save(folder / name, x)
    else:
        (folder / name).mkdir()
        if name == "pb":
            tensor = numpy_helper.from_array(x, "x")
            if rng.random() < 0.3:
                tensor.ClearField("raw_data")
                tensor.data_location = TensorProto.EXTERNAL
                tensor.external_data.add(key="location", value="../m.onnx")
            (folder / "pb" / "input_0.pb").write_bytes(changed(tensor.SerializeToString(), rng))
        else:
            from PIL import Image

            kind = rng.choice(("png", "jpeg", "bmp", "gif", "tiff", "webp", "ppm"))
            file = io.BytesIO()
            Image.fromarray(np.zeros((5, 5, 3), np.uint8)).save(file, kind)
            (folder / "images" / f"0.{kind}").write_bytes(changed(file.getvalue(), rng))
    path = folder / name
    if path.is_file():
        path.write_bytes(changed(path.read_bytes(), rng))
    return Case(folder, ["m.onnx", "--passes", "clean", "-o", "out.onnx", "--data", name], "samples")


CONFIG = """passes = "prune:ratio=0.3"
samples = 4
output = "{name}.out.onnx"
budget = "size=90%"

[[model]]
path = "m.onnx"
name = "m"
"""


def configurations(folder: Path, rng: random.Random) -> Case:
    write_model(folder, rng, hostile=False)
    text = CONFIG.encode()
    if rng.random() < 0.5:
        words = (*NAMES, *map(str, NUMBERS), "[" * 3000, "{a = " * 200, "'''", "[[model]]")
        place = rng.choice((b'"m"', b"4", b"prune", b"m.onnx", b"size=90%"))
        text = text.replace(place, rng.choice(words).encode())
    (folder / "optc.toml").write_bytes(changed(text, rng) if rng.random() < 0.6 else text)
    return Case(folder, ["m.onnx", "--config", "optc.toml", "--no-check", "-o", "out.onnx"], "configuration")


def caches(folder: Path, rng: random.Random) -> Case:
    write_model(folder, rng, hostile=False)
    words = ["m.onnx", "--passes", "clean", "--no-check", "-o", "out.onnx", "--cache", "cache", "--lock", "optc.lock"]
    attempt(words, folder)
    files = [path for path in (folder / "cache").rglob("*") if path.is_file()]
    if rng.random() < 0.3:
        files = [path for path in (folder / "optc.lock",) if path.exists()]
    for path in rng.sample(files, min(len(files), rng.choice((1, 3)))):
        path.write_bytes(changed(path.read_bytes(), rng) if rng.random() < 0.8 else b"[" * 100_000)
    if rng.random() < 0.3:
        words.append("--locked")
    return Case(folder, words, "cache", {"out.onnx", "optc.lock", "cache"})


def archives(folder: Path, rng: random.Random) -> Case:
    write_model(folder, rng, hostile=False)
    machine = {"triple": "x86_64-linux-gnu", "features": []}
    inputs = [{"name": "x", "dtype": "<f4", "shape": ["N", 3, 4, 4]}]
    manifest = {"schema": "optc.library/1", "target": "host", "machine": machine, "inputs": inputs, "outputs": []}
    manifest["files"] = {}
    text = json.dumps(manifest).encode()
    with tarfile.open(folder / "a.tar", "w") as tar:
        for name, data in (("manifest.json", changed(text, rng)), (rng.choice((*NAMES[1:8], "model.so")), b"\x7fELF")):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.type = rng.choice((tarfile.REGTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.GNUTYPE_SPARSE))
            entry.linkname = "/etc/passwd"
            tar.addfile(entry, io.BytesIO(data))
    (folder / "a.tar").write_bytes(changed((folder / "a.tar").read_bytes(), rng))
    np.savez(folder / "x.npz", x=np.zeros((1, 3, 4, 4), np.float32))
    return Case(folder, ["run", "a.tar", "--data", "x.npz"], "archive", set())


def depfiles(folder: Path, rng: random.Random) -> Case:
    name = rng.choice([one for one in NAMES if one and "/" not in one and "\0" not in one and len(one) < 200])
    write_model(folder, rng, hostile=False)
    (folder / "m.onnx").rename(folder / f"{name}.onnx")
    words = [f"./{name}.onnx", "--passes", "clean", "--no-check", "-o", "out.onnx", "--depfile", "out.d"]
    return Case(folder, words, "depfile", {"out.onnx", "out.d"})


def records(folder: Path, rng: random.Random) -> Case:
    write_model(folder, rng, hostile=False)
    words = ["m.onnx", "--passes", "prune", "--samples", "4", "--no-check", "-o", "out.onnx"]
    attempt([*words, "--report", "r.json"], folder)
    path = folder / "r.json"
    text = path.read_bytes() if path.exists() else b"{}"
    path.write_bytes(changed(text, rng) if rng.random() < 0.9 else b'{"a":' * 100_000)
    return Case(folder, ["explain", "r.json", "conv"], "record", set())


def matrices(folder: Path, rng: random.Random) -> Case:
    write_model(folder, rng, hostile=rng.random() < 0.3)
    text = CONFIG.encode() + b'\n[[model]]\npath = "m.onnx"\nname = "n"\npasses = "clean"\n'
    (folder / "optc.toml").write_bytes(changed(text, rng) if rng.random() < 0.5 else text)
    words = ["build", "--jobs", "1"]
    return Case(folder, words, "matrix", {"m.out.onnx", "n.out.onnx", "optc.lock"})


def libraries(folder: Path, rng: random.Random) -> Case:
    write_model(folder, rng)
    target = rng.choice(("host", "opencl", "arm64", "onnx"))
    words = ["m.onnx", "--passes", "clean", "--target", target, "--no-check", "-o", "out.tar"]
    return Case(folder, words, "library", {"out.tar"})


def peers(folder: Path, rng: random.Random) -> Case:
    """A device that greets, or not, and then says what it likes."""
    library = folder.parent / "library.tar"
    if not library.exists():
        write_model(folder, random.Random(0), hostile=False)
        attempt(["m.onnx", "--passes", "clean", "--target", "host", "--no-check", "-q", "-o", str(library)], folder)
    if library.exists():
        shutil.copy(library, folder / "a.tar")
    np.savez(folder / "x.npz", x=np.zeros((1, 3, 4, 4), np.float32))
    listening = socket.create_server(("127.0.0.1", 0))
    if os.fork() == 0:
        with contextlib.suppress(OSError):
            listening.settimeout(30)
            one, _ = listening.accept()
            one.settimeout(5)
            greeting = struct.pack("<ii", 0xFF271, 7) + b"server:"
            one.sendall(greeting if rng.random() < 0.8 else changed(greeting, rng))
            while one.recv(1 << 16):
                size = rng.choice((0, 8, 16, 24, 64, 1 << 40))
                one.sendall(struct.pack("<Q", size) + rng.randbytes(min(size, 256)))
        os._exit(0)
    words = ["run", "a.tar", "--data", "x.npz", "--rpc", f"127.0.0.1:{listening.getsockname()[1]}"]
    listening.close()
    return Case(folder, words, "peer", set())


KINDS: tuple[Callable[[Path, random.Random], Case], ...] = (
    *(models, models, models, models, models, models, models, models, samples, samples, samples, samples),
    *(configurations, configurations, caches, caches, archives, archives, depfiles, records, records, matrices),
)


SLOW = (libraries, peers)
"""Each takes seconds: tried where `--libraries` asks for it."""
