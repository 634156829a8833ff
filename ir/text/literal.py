"""Literals in the text of a graph, both ways: names, strings, types, tensors."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ...errors import nearest
from ..tensor import ArrayTensor, BroadcastTensor, FillTensor, SparseTensor, Tensor, pack, unpack
from ..types import DType, MapType, OpaqueType, OptionalType, SequenceType, TensorType, Type
from .scan import WORD, Scanner

RESERVED = frozenset({"by", "doc", "extra", "from", "metadata", "name", "opset"})
"""Words that stand after a node, a value or a graph; as names they are quoted."""
SPELLED = 64
"""Tensors of up to this many elements are written as elements, larger ones as base64."""
DTYPES = {dtype.text: dtype for dtype in DType}

_ELEMENT = re.compile(r"[-+\w.]+", re.ASCII)
_BOOLS = {"true": True, "false": False, "1": True, "0": False}


def quote(text: str | bytes) -> str:
    """A JSON string; bytes are `b"..."` with one character a byte."""
    return f"b{json.dumps(text.decode('latin-1'))}" if isinstance(text, bytes) else json.dumps(text)


def _readable(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def name_text(name: str) -> str:
    return name if WORD.fullmatch(name) and name != "_" and name not in RESERVED else quote(name)


def base64_text(data: bytes) -> str:
    return f'base64"{base64.b64encode(data).decode()}"'


def type_text(type: Type | None) -> str:
    """`float[N, 3]`, `float` (unknown rank), `seq(float[])`, `?` (unknown)."""
    if type is None:
        return "?"
    if isinstance(type, SequenceType):
        return f"seq({type_text(type.element)})"
    if isinstance(type, OptionalType):
        return f"optional({type_text(type.element)})"
    if isinstance(type, MapType):
        return f"map({type.key.text}, {type_text(type.value)})"
    if isinstance(type, OpaqueType):
        return f"opaque({quote(type.domain)}, {quote(type.name)})"
    text = ("sparse " if type.sparse else "") + type.dtype.text
    if type.shape is not None:
        sizes = ("?" if d is None else str(d) if isinstance(d, int) else name_text(d) for d in type.shape)
        text += f"[{', '.join(sizes)}]"
    if type.denotation or type.axes:
        text += f"<{quote(type.denotation)}{''.join(f', {quote(axis)}' for axis in type.axes)}>"
    return text


def tensor_text(tensor: Tensor, limit: float = math.inf, aside: Callable[[Tensor], int] | None = None) -> str:
    """`float[2] {1, 2}`; the data of more than `limit` elements is elided to its checksum.

    What would be spelled in base64 is handed to `aside` where that is given, and the text holds the number it returns.
    """
    sizes = ", ".join(map(str, tensor.shape))
    if isinstance(tensor, SparseTensor):
        parts = (tensor_text(part, limit, aside) for part in (tensor.values, tensor.indices))
        return f"sparse[{sizes}]({', '.join(parts)})"
    if isinstance(tensor, BroadcastTensor) and tensor.size <= limit:
        return f"broadcast[{sizes}]({tensor_text(tensor.core, limit, aside)})"
    head = f"{tensor.dtype.text}[{sizes}]"
    if isinstance(tensor, FillTensor):
        element = _data(tensor.element)
        return f"{head} {element[:-1]}, ...}}" if element.endswith("}") else f"{head} {element} ..."
    if tensor.size > limit:
        return f"{head} {{... {_checksum(tensor):08x}}}"
    if aside is not None and tensor.size > SPELLED and tensor.dtype is not DType.STRING:
        return f"{head} aside {aside(tensor)}"
    return f"{head} {_data(tensor)}"


def _data(tensor: Tensor) -> str:
    """`{1, 2, 3}`, or base64 where the tensor is large or its numbers would not read back to the same bytes."""
    array = tensor.numpy()
    if tensor.dtype is DType.STRING:
        return "{" + ", ".join(quote(_readable(item)) for item in array.reshape(-1).tolist()) + "}"
    data = None
    if tensor.size <= SPELLED:
        texts = [_number(str(item)) for item in array.reshape(-1)]
        data = pack(array, tensor.dtype)
        if pack(_elements(texts, tensor.dtype), tensor.dtype) == data:
            return f"{{{', '.join(texts)}}}"
    return base64_text(pack(array, tensor.dtype) if data is None else data)


def _number(text: str) -> str:
    if text in ("True", "False"):
        return text.lower()
    return text.strip("()").removesuffix(".0")


def _checksum(tensor: Tensor) -> int:
    if tensor.dtype is DType.STRING:
        return zlib.crc32(b"\0".join(tensor.numpy().reshape(-1).tolist()))
    sink = _Checksum()
    tensor.write(sink)
    return sink.crc


class _Checksum(io.BytesIO):
    """A file that keeps nothing but the checksum of what is written to it."""

    crc = 0

    def write(self, data, /) -> int:  # type: ignore[no-untyped-def]
        self.crc = zlib.crc32(data, self.crc)
        return len(data)


def _elements(texts: Sequence[str | bytes], dtype: DType) -> npt.NDArray[np.generic]:
    """The elements (n,) that `texts` spell. Raises `ValueError` or `KeyError` for one that is none of `dtype`."""
    if dtype is DType.STRING:
        strings: npt.NDArray[np.generic] = np.empty(len(texts), object)
        strings[:] = texts
        return strings
    if dtype is DType.BOOL:
        return np.array([_BOOLS[str(text)] for text in texts], bool)
    if dtype.is_integer:
        numbers = [int(text) for text in texts]
        signed = not dtype.name.startswith("U")
        low, high = (-(1 << dtype.bits - 1), (1 << dtype.bits - 1) - 1) if signed else (0, (1 << dtype.bits) - 1)
        for number in numbers:
            if not low <= number <= high:
                raise ValueError(f"{number} is no {dtype.text} ({low} to {high})")
        return np.array(numbers, np.uint64 if dtype is DType.UINT64 else np.int64).astype(dtype.numpy)
    if dtype.is_float:
        with np.errstate(over="ignore", invalid="ignore"):
            return np.array([float(text) for text in texts], np.float64).astype(dtype.numpy)
    return np.array([complex(str(text)) for text in texts], np.complex128).astype(dtype.numpy)


def _from_bytes(raw: bytes, dtype: DType, shape: list[int], fill: bool) -> Tensor:
    sizes: list[int] = [] if fill else shape
    if dtype.bits % 8 == 0:
        array: npt.NDArray[np.generic] = np.frombuffer(raw, dtype.numpy).reshape(sizes)
    else:
        array = unpack(np.frombuffer(raw, np.uint8), dtype, sizes)
    return FillTensor(array, shape, dtype) if fill else ArrayTensor(array, dtype)


class LiteralScanner(Scanner):
    """Takes types and tensors; `aside` gives the tensors that the text holds only a number of."""

    def __init__(self, text: str, aside: Callable[[int, DType, Sequence[int]], Tensor] | None = None) -> None:
        super().__init__(text)
        self.aside = aside

    def value_type(self) -> Type | None:
        if self.take("?"):
            return None
        start = self.at
        word = self.word()
        if word in ("seq", "optional"):
            self.expect("(")
            element = self.value_type()
            self.expect(")")
            return SequenceType(element) if word == "seq" else OptionalType(element)
        if word == "map":
            self.expect("(")
            key = self.dtype()
            self.expect(",")
            value = self.value_type()
            self.expect(")")
            return MapType(key, value)
        if word == "opaque":
            self.expect("(")
            domain = self.string()
            self.expect(",")
            name = self.string()
            self.expect(")")
            return OpaqueType(domain, name)
        if word != "sparse":
            self.at = start
        dtype = self.dtype()
        shape = tuple(self.items(self._dim, "]")) if self.take("[") else None
        labels = self.items(self.string, ">") if self.take("<") else [""]
        return TensorType(dtype, shape, word == "sparse", labels[0], tuple(labels[1:]))

    def _dim(self) -> int | str | None:
        if self.take("?"):
            return None
        return self.whole() if self.ahead().isdigit() or self.ahead() == "-" else self.name()

    def dtype(self) -> DType:
        start = self.at
        word = self.word()
        if word not in DTYPES:
            self.fail(f"'{word}' is no type.{nearest(word, DTYPES)}", start)
        return DTYPES[word]

    def tensor(self) -> Tensor:
        if self.take("sparse"):
            self.expect("[")
            sizes = self.items(self.whole, "]")
            self.expect("(")
            values = self.tensor()
            self.expect(",")
            indices = self.tensor()
            self.expect(")")
            return SparseTensor(values, indices, sizes)
        if self.take("broadcast"):
            self.expect("[")
            sizes = self.items(self.whole, "]")
            self.expect("(")
            core = self.tensor()
            self.expect(")")
            return BroadcastTensor(core.numpy(), sizes, core.dtype)
        dtype = self.dtype()
        self.expect("[")
        shape = self.items(self.whole, "]")
        start = self.at
        try:
            if self.word_ahead() == "base64":
                raw = self.base64()
                return _from_bytes(raw, dtype, shape, self.take("..."))
            if self.aside is not None and self.take("aside"):
                return self.aside(self.whole(), dtype, shape)
            self.expect("{")
            if self.take("..."):
                self.fail('the data of this tensor was elided; dump with tensors="inline" to read it back', start)
            spelled = self.items(self._element, "}")
            fill = len(spelled) == 2 and spelled[1] is None
            items = [item for item in spelled if item is not None]
            if not fill and len(items) != len(spelled):
                self.fail("'...' stands after one element, and last", start)
            array = _elements(items, dtype)
            return FillTensor(array, shape, dtype) if fill else ArrayTensor(array.reshape(shape), dtype)
        except (ValueError, KeyError) as error:
            self.fail(f"these are no elements of {dtype.text}{shape}: {error}", start)

    def _element(self) -> str | bytes | None:
        """An element, or `None` for `...`."""
        if self.take("..."):
            return None
        if self.ahead() == '"':
            return self.string()
        if self.text.startswith('b"', self.at):
            return self.octets()
        return self.match(_ELEMENT, "an element or '}'")
