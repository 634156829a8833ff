"""Whatever is wrong with a file, the reader says so in one `ModelError` that names the place, and nothing else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from everything import everything
from onnx import TensorProto, helper, numpy_helper

from optc.errors import ModelError
from optc.ir.onnx import wire
from optc.ir.onnx.reader import from_bytes, from_proto, load
from optc.ir.onnx.writer import to_bytes
from optc.ir.shapes.infer import infer

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])


def sound(weight: int = 4) -> onnx.ModelProto:
    w = numpy_helper.from_array(np.arange(weight, dtype=np.float32), "w")
    nodes = [helper.make_node("Add", ["x", "w"], ["h"], "add"), helper.make_node("Relu", ["h"], ["y"], "relu")]
    graph = helper.make_graph(nodes, "net", [X], [Y], [w])
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])


def one_line(error: pytest.ExceptionInfo[ModelError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# -- files that are no models


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\x00", "not an ONNX model"),
        (b"<html><body>404</body></html>", "not an ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 13\n", "git lfs pull"),
        (b"\x08\x0a", "no graph"),
        (np.random.default_rng(0).bytes(3 << 20), "not an ONNX model"),
        (bytes(3 << 20), "not an ONNX model"),
    ],
    ids=["empty", "zero", "html", "pointer", "no-graph", "random", "zeros"],
)
def test_what_is_no_model(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError) as error:
        load(path)
    assert str(path) in one_line(error)
    assert words in str(error.value)


def test_a_folder_and_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a folder"):
        load(tmp_path)
    with pytest.raises(ModelError, match="No such file"):
        load(tmp_path / "none.onnx")


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(sound().SerializeToString())
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(ModelError, match="cannot be read"):
        load(path)


@pytest.mark.parametrize("weight", [4, 1 << 20], ids=["small", "large"])
def test_a_file_cut_off_anywhere(tmp_path: Path, weight: int) -> None:
    proto = sound(weight)
    proto.graph.initializer[0].dims[:] = [weight]
    data = proto.SerializeToString()
    path = tmp_path / "m.onnx"
    cuts = range(1, len(data)) if weight == 4 else [*range(1, 120), *range(200, len(data), len(data) // 20)]
    for length in cuts:
        path.write_bytes(data[:length])
        with pytest.raises(ModelError) as error:
            load(path)
        one_line(error)


@pytest.mark.parametrize("weight", [4, 1 << 19], ids=["small", "large"])
def test_a_file_with_any_byte_changed_is_read_or_refused(tmp_path: Path, weight: int) -> None:
    data = sound(weight).SerializeToString()
    random = np.random.default_rng(0)
    head = data if weight == 4 else data[:60] + data[-60:]
    path = tmp_path / "m.onnx"
    refused = 0
    for at in range(len(head)):
        place = at if at < 60 or weight == 4 else len(data) - 120 + at
        changed = bytearray(data)
        changed[place] = random.integers(0, 256)
        path.write_bytes(changed)
        with contextlib.suppress(ModelError):
            load(path)
            refused -= 1
        refused += 1
    assert refused > len(head) // 4


@pytest.mark.parametrize("byte", [0x00, 0x02, 0x7F, 0x80, 0xFF])
def test_a_model_with_any_byte_changed_is_written_again_or_refused(byte: int) -> None:
    """Whatever the reader takes, the writer can write."""
    data = everything().SerializeToString()
    written = 0
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] = byte
        with contextlib.suppress(wire.WireError):
            wire.cut(bytes(changed), 8)
        with contextlib.suppress(ModelError):
            to_bytes(from_bytes(bytes(changed)))
            written += 1
    assert 100 < written < len(data) - 100


def test_a_name_that_is_no_text_is_refused_and_a_comment_that_is_none_is_mended() -> None:
    data = everything().SerializeToString()
    for name, changed in {
        b"every": b"ever\xff",
        b"inner": b"inn\xfer",
        b"own": b"ow\x80",
        b"slope": b"slo\xffe",
    }.items():
        with pytest.raises(ModelError, match="not UTF-8") as error:
            from_bytes(data.replace(name, changed))
        one_line(error)
    graph = from_bytes(data.replace(b"a model", b"a m\xffdel").replace(b"the graph", b"the gr\xffph"))
    assert graph.header.doc == "a m\\xffdel"
    assert from_bytes(to_bytes(graph)).doc == "the gr\\xffph"


@pytest.mark.parametrize("word", [b"location", b"data.bin", b"offset", b"4096"])
def test_where_data_lies_may_be_no_text(tmp_path: Path, word: bytes) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="data.bin")
    tensor.external_data.add(key="offset", value="4096")
    (tmp_path / "data.bin").write_bytes(bytes(4112))
    path = tmp_path / "m.onnx"
    nodes = [helper.make_node("Relu", ["w"], ["y"])]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    model = helper.make_model(helper.make_graph(nodes, "g", [], [output], [tensor])).SerializeToString()
    path.write_bytes(model)
    assert len(load(path)) == 1
    path.write_bytes(model.replace(word, b"\xff" + word[1:]))
    with pytest.raises(ModelError, match="not UTF-8") as error:
        load(path)
    one_line(error)


def test_messages_nested_without_end_are_refused(tmp_path: Path) -> None:
    data = numpy_helper.from_array(np.zeros(1 << 19, np.float32)).SerializeToString()
    for tag in [0x2A, *[0x32, 0x2A, 0x0A] * 60, 0x3A]:  # a graph in an attribute in a node in a graph, and so on
        data = bytes([tag]) + _varint(len(data)) + data
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x0a" + data)
    with pytest.raises(ModelError, match="nested too deep"):
        load(path)


def _varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + _varint(number >> 7)


# -- models that are broken


def change(edit: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    proto = sound()
    edit(proto)
    return proto


def _cycle(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[1] = "y"


def _no_external(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].data_location = TensorProto.EXTERNAL


def _short(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].raw_data = b"1234"


def _typed(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].ClearField("raw_data")
    proto.graph.initializer[0].float_data.extend([1, 2])


def _segment(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].segment.end = 3


BROKEN: dict[str, tuple[Callable[[onnx.ModelProto], object], tuple[str, ...]]] = {
    "dangling input": (
        lambda p: p.graph.node[1].input.__setitem__(0, "lost"),
        ("graph 'net'", "node 'relu' (Relu)", "'lost'", "input 0"),
    ),
    "dangling output": (lambda p: setattr(p.graph.output[0], "name", "lost"), ("graph 'net'", "output 0", "'lost'")),
    "value made twice": (
        lambda p: p.graph.node[1].output.__setitem__(0, "h"),
        ("graph 'net'", "node 'relu' (Relu)", "'h'", "unique"),
    ),
    "node makes an input": (
        lambda p: p.graph.node[1].output.__setitem__(0, "x"),
        ("graph 'net'", "node 'relu'", "'x'"),
    ),
    "initializer twice": (lambda p: p.graph.initializer.append(p.graph.initializer[0]), ("graph 'net'", "'w'")),
    "input twice": (lambda p: p.graph.input.append(p.graph.input[0]), ("graph 'net'", "'x'")),
    "initializer without a name": (lambda p: p.graph.initializer[0].ClearField("name"), ("graph 'net'", "no name")),
    "cycle": (_cycle, ("graph 'net'", "cycle", "'add'")),
    "no graph": (lambda p: p.ClearField("graph"), ("no graph",)),
    "IR version of the future": (lambda p: setattr(p, "ir_version", 99), ("IR version 99",)),
    "no IR version": (lambda p: p.ClearField("ir_version"), ("IR version 0",)),
    "opset of the future": (lambda p: setattr(p.opset_import[0], "version", 99), ("opset 99", "knows 1 to")),
    "no opset": (lambda p: setattr(p.opset_import[0], "version", 0), ("opset 0",)),
    "two opsets": (
        lambda p: p.opset_import.append(helper.make_opsetid("ai.onnx", 7)),
        ("two versions", "ai.onnx"),
    ),
    "no opset import": (lambda p: p.ClearField("opset_import"), ("no opset",)),
    "function twice": (
        lambda p: p.functions.extend([helper.make_function("d", "F", [], [], [], [helper.make_opsetid("", 21)])] * 2),
        ("function 'F'", "'d'", "twice"),
    ),
    "unknown element type": (lambda p: setattr(p.graph.initializer[0], "data_type", 77), ("tensor 'w'", "77")),
    "no element type": (lambda p: setattr(p.graph.initializer[0], "data_type", 0), ("tensor 'w'", "type 0")),
    "negative size": (lambda p: p.graph.initializer[0].dims.__setitem__(0, -4), ("tensor 'w'", "-4")),
    "too little raw data": (_short, ("tensor 'w'", "4 bytes", "takes 16")),
    "too little typed data": (_typed, ("tensor 'w'", "2 elements", "[4]")),
    "a segment": (_segment, ("tensor 'w'", "segments")),
    "external data nowhere": (_no_external, ("tensor 'w'",)),
    "attribute without a kind": (
        lambda p: p.graph.node[0].attribute.add(name="mystery"),
        ("graph 'net'", "node 'add'", "'mystery'"),
    ),
    "unknown attribute kind": (
        lambda p: p.graph.node[0].attribute.append(onnx.AttributeProto.FromString(b"\x0a\x01a\xa0\x01\x63")),
        ("graph 'net'", "node 'add'", "'a'"),
    ),
    "unknown value type": (
        lambda p: setattr(p.graph.input[0].type.tensor_type, "elem_type", 77),
        ("'x'", "77"),
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model(tmp_path: Path, name: str) -> None:
    edit, words = BROKEN[name]
    proto = change(edit)
    with pytest.raises(ModelError) as error:
        from_proto(proto)
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError) as stored:
        load(path)
    text = one_line(stored)
    assert text.startswith(f"{path}: ")
    assert text.count(str(path)) == 1
    assert [word for word in words if word not in text] == []
    assert [word for word in words if word not in one_line(error)] == []


def test_the_model_that_the_broken_ones_come_from_is_sound() -> None:
    assert len(from_bytes(sound().SerializeToString())) == 2


# -- external data


def outside(tmp_path: Path, **entries: object) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(64))
    (folder / "w.bin").write_bytes(np.arange(8, dtype=np.float32).tobytes())
    proto = sound()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    path = folder / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({}, "refused"),
        ({"location": "missing.bin"}, "missing"),
        ({"location": "../secret.bin"}, "refused"),
        ({"location": "./../secret.bin"}, "refused"),
        ({"location": "..\\secret.bin"}, "refused"),
        ({"location": "/etc/passwd"}, "refused"),
        ({"location": "C:\\secret.bin"}, "refused"),
        ({"location": "link.bin"}, "refused"),
        ({"location": "folder/secret.bin"}, "refused"),
        ({"location": "."}, "missing"),
        ({"location": "w.bin", "length": 12}, "12 bytes"),
        ({"location": "w.bin", "offset": 20}, "past the end"),
        ({"location": "w.bin", "offset": -4}, "past the end"),
        ({"location": "w.bin", "offset": "four"}, "not a number"),
        ({"location": "w.bin", "length": "1e3"}, "not a number"),
    ],
    ids=str,
)
def test_bad_external_data(tmp_path: Path, entries: dict[str, object], words: str) -> None:
    path = outside(tmp_path, **entries)
    (path.parent / "link.bin").symlink_to("../secret.bin")
    (path.parent / "folder").symlink_to("..", target_is_directory=True)
    with pytest.raises(ModelError) as error:
        load(path)
    text = one_line(error)
    assert words in text
    assert "tensor 'w'" in text
    assert str(entries.get("location", "''")) in text.replace("\\\\", "\\")


@pytest.mark.parametrize("location", ["w.bin", "./w.bin", "folder/w.bin", "link.bin"])
def test_good_external_data(tmp_path: Path, location: str) -> None:
    path = outside(tmp_path, location=location, offset=4, length=16, checksum="0" * 40)
    (path.parent / "folder").symlink_to(".", target_is_directory=True)
    (path.parent / "link.bin").symlink_to("w.bin")
    (value,) = load(path).constants
    np.testing.assert_array_equal(value.numpy(), np.float32([1, 2, 3, 4]))


# -- control characters


@pytest.mark.parametrize("bad", ["\n", "\n\ttouch pwned", "\x1b[2J", "\x00", "\x7f", "\x9b2J", "\u202e"])
def test_control_characters_in_names_are_refused(bad: str) -> None:
    def node(model: onnx.ModelProto) -> onnx.NodeProto:
        return model.graph.node[0]

    places: list[Callable[[onnx.ModelProto], None]] = [
        lambda m: setattr(node(m), "name", f"a{bad}"),
        lambda m: setattr(node(m), "op_type", f"a{bad}"),
        lambda m: setattr(node(m), "domain", f"a{bad}"),
        lambda m: node(m).output.__setitem__(0, f"h{bad}"),
        lambda m: setattr(m.graph.input[0], "name", f"x{bad}"),
        lambda m: setattr(m.graph.output[0], "name", f"y{bad}"),
        lambda m: setattr(m.graph.initializer[0], "name", f"w{bad}"),
        lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[0], "dim_param", f"N{bad}"),
        lambda m: setattr(node(m).attribute.add(name=f"a{bad}", type=onnx.AttributeProto.INT), "i", 1),
        lambda m: m.functions.add(name=f"f{bad}", domain="d").opset_import.add(version=21).ClearField("domain"),
    ]
    for change in places:
        model = sound()
        change(model)
        with pytest.raises(ModelError) as error:
            from_bytes(model.SerializeToString())
        assert bad not in str(error.value)


@pytest.mark.parametrize("location", ["w\nbin", "a:\n\ttouch pwned", "w\x00bin", "\x1b[2J"])
def test_control_characters_in_locations_are_refused(location: str, tmp_path: Path) -> None:
    model = sound()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    with contextlib.suppress(ValueError):  # what no file can be called
        (tmp_path / location).write_bytes(bytes(16))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="control character"):
        load(tmp_path / "m.onnx")


def test_a_size_that_is_no_whole_number_is_refused() -> None:
    """Repeats of a Tile as floats: the product with a size is no size."""
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2, 10] x) => (y) <float[2] n = {1.5, 2}> { y = Tile (x, n) }'
    )
    graph = from_proto(onnx.parser.parse_model(text))
    with pytest.raises(ModelError, match="a size is no whole number"):
        infer(graph)


def test_shapes_that_no_array_can_have_are_refused() -> None:
    for dims in ([2] * 1000, [0, 1 << 62, 1 << 62], [1 << 40, 1 << 40]):
        model = sound()
        sparse = model.graph.sparse_initializer.add()
        sparse.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "s"))
        sparse.indices.CopyFrom(numpy_helper.from_array(np.zeros(1, np.int64), "i"))
        sparse.dims[:] = dims
        with pytest.raises(ModelError, match="'s': has more axes, or more elements, than any array") as error:
            from_proto(model)
        one_line(error)
        model = sound()
        model.graph.initializer[0].dims[:] = dims
        with pytest.raises(ModelError, match="'w'") as error:
            from_proto(model)
        one_line(error)
        model = sound()
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, dims))
        with pytest.raises(ModelError, match="any array can have") as error:
            from_proto(model)
        one_line(error)
    model = sound()
    shape = numpy_helper.from_array(np.array([1 << 40, 1 << 40], np.int64), "shape")
    model.graph.initializer.append(shape)
    model.graph.node.append(helper.make_node("ConstantOfShape", ["shape"], ["large"], "fill"))
    with pytest.raises(ModelError, match=r"'fill'.*any array can have"):
        infer(from_proto(model))


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (helper.make_sequence_type_proto(X.type), "recorded as a sequence but the operator makes a tensor"),
        (helper.make_optional_type_proto(X.type), "recorded as an optional but the operator makes a tensor"),
        (helper.make_map_type_proto(TensorProto.INT64, X.type), "recorded as a map but the operator makes a tensor"),
    ],
)
def test_an_output_that_is_declared_another_kind_than_its_value(declared: onnx.TypeProto, words: str) -> None:
    model = sound()
    model.graph.output[0].type.CopyFrom(declared)
    with pytest.raises(ModelError, match=words) as error:
        infer(from_proto(model))
    assert "node 'relu' (Relu)" in one_line(error)


def test_a_sequence_that_is_declared_a_tensor() -> None:
    model = sound()
    model.graph.node.append(helper.make_node("SequenceConstruct", ["y"], ["s"], "list"))
    model.graph.output[0].name = "s"
    with pytest.raises(ModelError, match=r"'list' .* recorded as a tensor but the operator makes a sequence"):
        infer(from_proto(model))
