"""The protobuf wire format, as far as weights need it: cut them out of a file, splice them into one.

A model is a nest of messages, each field a tag (`number << 3 | wire type`, a varint) and a payload; a payload of wire
type 2 is a varint length and so many bytes. `cut` walks a serialised ModelProto without parsing it, enters only
messages that are large, and replaces the large `raw_data` of every tensor by a marker; what is left is small, whatever
the weights weigh, and goes to the protobuf parser. Its marker is a field that ONNX defines, never used and no longer
allows: `TensorProto.segment { begin, end }`.

`splice` is the inverse for writing: it finds stand-ins for `raw_data` and gives the pieces of the file, the weights'
places among them, with the lengths of all the messages around mended.

Source: protobuf.dev, "Encoding". Field numbers: onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

Buffer: TypeAlias = "bytes | mmap.mmap"

DEEPEST = 100
"""Protobuf's own limit on nested messages."""


class WireError(ValueError):
    """The bytes are not a protobuf message; `at` is the offset of the field that is wrong."""

    def __init__(self, what: str, at: int) -> None:
        super().__init__(f"{what} at byte {at}")
        self.at = at


def _tag(number: int) -> int:
    return number << 3 | 2


_Message: TypeAlias = "Mapping[int, _Message]"
_TENSOR: _Message = {}
_SPARSE: _Message = {_tag(1): _TENSOR, _tag(2): _TENSOR}
_GRAPH: dict[int, _Message] = {}
_ATTRIBUTE: _Message = {
    _tag(5): _TENSOR,
    _tag(6): _GRAPH,
    _tag(10): _TENSOR,
    _tag(11): _GRAPH,
    _tag(22): _SPARSE,
    _tag(23): _SPARSE,
}
_NODE: _Message = {_tag(5): _ATTRIBUTE}
_GRAPH.update({_tag(1): _NODE, _tag(5): _TENSOR, _tag(15): _SPARSE})
_FUNCTION: _Message = {_tag(7): _NODE, _tag(11): _ATTRIBUTE}
_MODEL: _Message = {_tag(7): _GRAPH, _tag(25): _FUNCTION}

_SEGMENT = _tag(3)
_RAW_DATA = _tag(9)
_PAYLOADS = (_RAW_DATA, _tag(4), _tag(10))
"""raw_data, and float_data and double_data, which are packed as the same bytes."""


def cut(data: Buffer, threshold: int, passed: Callable[[], object] = lambda: None) -> tuple[Buffer, dict[int, int]]:
    """A serialised ModelProto with every weight of `threshold` bytes or more replaced by a marker.

    Returns the smaller message (`data` itself where nothing was cut) and offset -> length, in `data`, of what was cut;
    the marker holds offset and length. `passed` is called after each weight: the kernel maps pages far around the few
    bytes that are looked at, and a mapped file can let go of them again. Raises `WireError`.
    """
    cuts: dict[int, int] = {}
    try:
        smaller = _cut(data, 0, len(data), _MODEL, threshold, cuts, passed, 0)
    except IndexError:
        raise WireError("the data ends inside a field", len(data)) from None
    return (data if smaller is None else smaller), cuts


def _cut(
    data: Buffer,
    start: int,
    end: int,
    message: _Message,
    threshold: int,
    cuts: dict[int, int],
    passed: Callable[[], object],
    depth: int,
) -> bytes | None:
    """`data[start:end]`, a message, with its large weights cut out; `None` where it has none."""
    if depth > DEEPEST:
        raise WireError("messages are nested too deep", start)
    sizes: dict[int, int] = {}
    out = bytearray()
    kept = start
    for field, tag, content, stop in _fields(data, start, end):
        if stop - content < threshold or tag & 7 != 2:
            continue
        if message is _TENSOR:
            if tag not in _PAYLOADS:
                continue
            sizes[content] = stop - content
            body, tag = b"\x08" + varint(content) + b"\x10" + varint(stop - content), _SEGMENT
        else:
            inner = message.get(tag)
            smaller = None if inner is None else _cut(data, content, stop, inner, threshold, cuts, passed, depth + 1)
            if smaller is None:
                continue
            body = smaller
        out += data[kept:field]
        out += varint(tag) + varint(len(body)) + body
        kept = stop
    if kept == start or len(sizes) > 1:  # data that came in several pieces is left to the parser
        return None
    cuts.update(sizes)
    if sizes:
        passed()
    out += data[kept:end]
    return bytes(out)


def text(field: str) -> str:
    """A string field: the Python protobuf gives bytes where it is not UTF-8, and takes none back."""
    return field if isinstance(field, str) else bytes(field).decode(errors="backslashreplace")


def varint(number: int) -> bytes:
    """A non-negative number, seven bits a byte, lowest first."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


STAND_IN = b"optc:weight held back:"


def stand_in(index: int) -> bytes:
    """The `raw_data` that `splice` takes for weight `index`. No other `raw_data` may begin with `STAND_IN`."""
    return STAND_IN + b"%d" % index


def splice(data: bytes, sizes: Sequence[int]) -> tuple[list[memoryview | int], int]:
    """The pieces of a serialised ModelProto in which stand-in `i` gives way to `sizes[i]` bytes.

    Returns the pieces in order, `i` standing for weight `i`, and the length of them all.
    """
    pieces: list[memoryview | int] = []
    length = _splice(data, memoryview(data), 0, len(data), _MODEL, sizes, pieces)
    return pieces, length


def _splice(
    data: bytes,
    view: memoryview,
    start: int,
    end: int,
    message: _Message,
    sizes: Sequence[int],
    pieces: list[memoryview | int],
) -> int:
    kept = start
    length = 0
    for field, tag, content, stop in _fields(data, start, end):
        if message is _TENSOR:
            if tag != _RAW_DATA or not data.startswith(STAND_IN, content):
                continue
            index = int(data[content + len(STAND_IN) : stop])
            inner: list[memoryview | int] = [index]
            size = sizes[index]
        else:
            below = message.get(tag)
            if below is None or data.find(STAND_IN, content, stop) < 0:
                continue
            inner = []
            size = _splice(data, view, content, stop, below, sizes, inner)
        head = varint(tag) + varint(size)
        pieces += (view[kept:field], memoryview(head), *inner)
        length += field - kept + len(head) + size
        kept = stop
    pieces.append(view[kept:end])
    return length + end - kept


def _fields(data: Buffer, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The fields of a message: offset of the tag, the tag, and where its content begins and ends."""
    at = start
    while at < end:
        field = at
        tag = data[at]
        at += 1
        if tag > 127:
            tag, at = _varint(data, field)
        wire = tag & 7
        if wire == 2:
            size = data[at]
            at += 1
            if size > 127:
                size, at = _varint(data, at - 1)
            stop = at + size
        elif wire == 0:
            _, stop = _varint(data, at)
        elif wire == 5:
            stop = at + 4
        elif wire == 1:
            stop = at + 8
        else:
            raise WireError(f"a field of unknown kind {wire}", field)
        if stop > end:
            raise WireError("a field reaches past the end of its message", field)
        yield field, tag, at, stop
        at = stop


def _varint(data: Buffer, at: int) -> tuple[int, int]:
    """The number at `at`, and the offset after it."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
        if shift > 63:
            raise WireError("a number of more than 64 bits", at)
