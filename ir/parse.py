"""The inverse of `text.dump`; the syntax is described there.

Written by hand, most of it may be left out: the header (`ir_version 10`, `opset 21`), types, names of nodes, sizes
of outputs. Nodes may stand in any order. A value returned as an output without a type of its own has the output's.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import ModelError, nearest
from .attributes import Attribute, AttributeKind, AttributeValue
from .graph import Function, Graph, Node, Output, Value
from .origin import Origin
from .tensor import ArrayTensor, FillTensor, SparseTensor, Tensor, unpack
from .text import WORD, own_origin
from .types import DType, MapType, OpaqueType, OptionalType, SequenceType, TensorType, Type

DEFAULT_OPSET = 21
"""What a text that imports no operator set means; a text that says `opset none` means none."""

_T = TypeVar("_T")
_SPACE = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_STRING = re.compile(r'"[^"\\\n]*(?:\\.[^"\\\n]*)*"')
_NUMBER = re.compile(r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|inf\b|nan\b)")
_DTYPES = {dtype.text: dtype for dtype in DType}
_KINDS = {kind.name.lower(): kind for kind in AttributeKind}


def parse(text: str) -> Graph:
    """The graph that `text` describes. Raises `ModelError` with the line and a caret under the place."""
    return _Parser(text).model()


def elements(texts: Sequence[str], dtype: DType) -> npt.NDArray[np.generic]:
    """The elements (n,) that `texts` spell. Raises `ValueError` for one that is none of `dtype`."""
    if dtype is DType.BOOL:
        return np.array([_BOOLS[text] if text in _BOOLS else int(text) == 1 for text in texts], bool)
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
    return np.array([complex(text.replace(" ", "")) for text in texts], np.complex128).astype(dtype.numpy)


_BOOLS = {"true": True, "false": False}


@dataclass(slots=True)
class _Scope:
    """The names that one graph defines, and the scope around it."""

    parent: _Scope | None = None
    values: dict[str, Value] = field(default_factory=dict)

    def find(self, name: str) -> Value | None:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.parent
        return None


@dataclass(slots=True)
class _Notes:
    """What may follow a value, a node or a graph."""

    doc: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    extra: bytes = b""
    opsets: dict[str, int] | None = None
    name: str | None = None
    origin: Origin | None = None


@dataclass(slots=True)
class _Declared:
    """An output as declared; its value is looked up when all values of the model are known."""

    name: str
    type: Type | None
    notes: _Notes
    typed: bool
    value: str
    at: int


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.later: list[Callable[[], None]] = []
        self._skip()

    # -- the model

    def model(self) -> Graph:
        header = Graph().header
        opsets: dict[str, int] | None = None
        functions: list[Function] = []
        graph: Graph | None = None
        while self.at < len(self.text):
            start = self.at
            word = self._word()
            if word == "graph" and graph is None:
                graph = self._graph(None)
            elif word == "function":
                functions.append(self._function())
            elif word == "opset":
                opsets = self._opset(opsets)
            elif word == "ir_version":
                header = replace(header, ir_version=self._int())
            elif word == "producer":
                header = replace(header, producer_name=self._string(), producer_version=self._string())
            elif word == "domain":
                header = replace(header, domain=self._string())
            elif word == "model_version":
                header = replace(header, model_version=self._int())
            elif word == "doc":
                header = replace(header, doc=self._string())
            elif word == "metadata":
                header = replace(header, metadata=self._pairs())
            elif word == "extra":
                header = replace(header, extra=self._base64())
            else:
                known = "ir_version, producer, domain, model_version, doc, metadata, extra, opset, graph, function"
                self._fail(f"'{word}' cannot stand here; a model is made of {known}, and of one graph", start)
        if graph is None:
            self._fail("the text ends without a graph")
        for resolve in self.later:
            resolve()
        graph.header = header
        graph.opsets = {"": DEFAULT_OPSET} if opsets is None else opsets
        for function in functions:
            graph.functions[function.domain, function.name, function.overload] = function
        return graph

    def _function(self) -> Function:
        domain, name, overload = self._operator()
        required: list[str] = []
        defaults: dict[str, Attribute] = {}

        def attribute() -> None:
            key = self._name()
            if self._next() in "=:":
                defaults[key] = self._attribute(_Scope())
            else:
                required.append(key)

        if self._take("<"):
            self._list(attribute, ">")
        graph = self._graph(None, name)
        return Function(domain, name, overload, graph, tuple(required), defaults)

    def _graph(self, around: _Scope | None, name: str | None = None) -> Graph:
        if name is None:
            name = "" if self._next() == "(" else self._name()
        graph = Graph(name)
        scope = _Scope(around)
        self._expect("(")
        self._list(lambda: self._input(graph, scope), ")")
        self._expect("->")
        self._expect("(")
        outputs = self._list(self._output, ")")
        notes = self._notes()
        graph.doc, graph.metadata, graph.extra = notes.doc, dict(notes.metadata), notes.extra
        graph.opsets = notes.opsets or {}
        graph.name = graph.name if notes.name is None else notes.name
        declared = {o.value: o.type for o in reversed(outputs) if o.typed}
        self._expect("{")
        while not self._take("}"):
            self._statement(graph, scope, declared)
        self.later.append(lambda: self._return(graph, scope, outputs))
        return graph

    def _input(self, graph: Graph, scope: _Scope) -> None:
        start = self.at
        name = self._name()
        type = self._type() if self._take(":") else None
        notes = self._notes()
        value = graph.add_input(name, type, default=self._tensor() if self._take("=") else None)
        self._define(scope, name, value, start, notes)

    def _output(self) -> _Declared:
        start = self.at
        name = self._name()
        typed = self._take(":")
        type = self._type() if typed else None
        notes = self._notes()
        return _Declared(name, type, notes, typed, self._name() if self._take("=") else name, start)

    def _return(self, graph: Graph, scope: _Scope, outputs: list[_Declared]) -> None:
        for declared in outputs:
            made: Output = graph.add_output(self._find(scope, declared.value, declared.at), declared.name)
            if declared.typed:
                made.type = declared.type
            made.doc = declared.notes.doc
            made.metadata = dict(declared.notes.metadata) or None

    def _statement(self, graph: Graph, scope: _Scope, declared: dict[str, Type | None]) -> None:
        made: list[tuple[int, str, Type | None, _Notes]] = []
        while not self._take("="):
            if made:
                self._expect(",")
            start = self.at
            name = self._name(blank=True)
            type = self._type() if self._take(":") else _UNTYPED
            made.append((start, name, type, self._notes()))
        if re.match(r"(sparse|\w+) *\[", self.text[self.at : self.at + 32]) and self._peek_word() in _LITERALS:
            if len(made) != 1:
                self._fail("one constant has one name")
            start, name, type, notes = made[0]
            constant = graph.constant(self._tensor(), name)
            if type is not _UNTYPED:
                constant.type = type
            self._define(scope, name, constant, start, notes)
            return
        domain, op, overload = self._operator()
        attributes: dict[str, Attribute] = {}

        def attribute() -> None:
            start = self.at
            key = self._name()
            if key in attributes:
                self._fail(f"attribute '{key}' is given twice", start)
            attributes[key] = self._attribute(scope)

        if self._take("<"):
            self._list(attribute, ">")
        self._expect("(")
        reads = self._list(lambda: (self.at, self._name(blank=True)), ")")
        name = self._name() if self._take("@") else ""
        notes = self._notes()
        types = [declared.get(value) if type is _UNTYPED else type for _, value, type, _ in made]
        node = graph.add(
            op, (), attributes, outputs=[value for _, value, _, _ in made], types=types, name=name, domain=domain
        )
        node.overload, node.doc, node.extra = overload, notes.doc, notes.extra
        node.metadata = dict(notes.metadata) or None
        node.origin = own_origin(name) if notes.origin is None else notes.origin
        for (start, value, _, value_notes), output in zip(made, node.outputs, strict=True):
            self._define(scope, value, output, start, value_notes)
        self.later.append(lambda: self._read(node, scope, reads))

    def _read(self, node: Node, scope: _Scope, reads: list[tuple[int, str]]) -> None:
        node.set_inputs([self._find(scope, name, at) if name else None for at, name in reads])

    def _define(self, scope: _Scope, name: str, value: Value, at: int, notes: _Notes) -> None:
        if name in scope.values:
            self._fail(f"'{name}' is defined twice; every value is made once", at)
        if name:
            scope.values[name] = value
        value.doc, value.metadata = notes.doc, dict(notes.metadata) or None

    def _find(self, scope: _Scope, name: str, at: int) -> Value:
        value = scope.find(name)
        if value is None:
            self._fail(f"nothing here is called '{name}'.{nearest(name, scope.values)}", at)
        return value

    def _notes(self) -> _Notes:
        notes = _Notes()
        while True:
            match = WORD.match(self.text, self.at)
            word = match.group() if match else ""
            if word not in ("doc", "metadata", "extra", "opset", "name", "from", "by"):
                return notes
            self._word()
            if word == "doc":
                notes.doc = self._string()
            elif word == "metadata":
                notes.metadata = self._pairs()
            elif word == "extra":
                notes.extra = self._base64()
            elif word == "opset":
                notes.opsets = self._opset(notes.opsets)
            elif word == "name":
                notes.name = self._string()
            else:
                self._expect("(")
                names = tuple(self._list(self._name, ")"))
                origin = notes.origin or Origin()
                notes.origin = replace(origin, nodes=names) if word == "from" else replace(origin, passes=names)

    # -- attributes, types, tensors

    def _attribute(self, scope: _Scope) -> Attribute:
        kind = None
        if self._take(":"):
            start = self.at
            word = self._word()
            if word not in _KINDS:
                self._fail(f"'{word}' is no kind of attribute.{nearest(word, _KINDS)}", start)
            kind = _KINDS[word]
        self._expect("=")
        start = self.at
        if self._take("@"):
            if kind is None:
                self._fail("an attribute that refers to another one needs its kind: `alpha: float = @alpha`", start)
            return Attribute(kind, None, self._name(), self._notes().doc)
        value: AttributeValue
        if self._peek_word() == "none":
            self._word()
            value = None
        elif self._take("["):
            literal = self._type if kind is AttributeKind.TYPE_PROTOS else lambda: self._literal(scope)
            value = tuple(self._list(literal, "]"))  # type: ignore[arg-type]
        else:
            value = self._type() if kind is AttributeKind.TYPE_PROTO else self._literal(scope)
        try:
            found = Attribute.of(value) if kind is None and value is not None else None
        except (TypeError, ValueError):
            self._fail("the kind of this attribute cannot be told; write it: `axes: ints = []`", start)
        if found is not None:
            return replace(found, doc=self._notes().doc)
        if kind is None:
            self._fail("an attribute without a value needs its kind: `alpha: float = none`", start)
        if kind is AttributeKind.FLOAT and isinstance(value, int):
            value = float(value)
        if kind is AttributeKind.FLOATS and isinstance(value, tuple):
            value = tuple(float(item) if isinstance(item, int) else item for item in value)  # type: ignore[assignment]
        return Attribute(kind, value, "", self._notes().doc)

    def _literal(self, scope: _Scope) -> int | float | str | bytes | Tensor | Graph:
        word = self._peek_word()
        if word == "graph":
            self._word()
            return self._graph(scope)
        if word in _LITERALS:
            return self._tensor()
        if word in ("b", "") and self._next() in '"b':
            return self._bytes() if word else self._string()
        start = self.at
        match = _NUMBER.match(self.text, self.at)
        if match is None:
            self._fail('expected a value: a number, "text", [a list], a tensor such as float[2] {1, 2}, or a graph')
        self.at = match.end()
        number = match.group()
        if number == "nan" and self._take("("):
            bits = self._until(")", start)
            try:
                payload: float = struct.unpack(">d", bytes.fromhex(bits))[0]
            except (ValueError, struct.error):
                self._fail("nan(...) holds the 16 hexadecimal digits of a double", start)
            return payload
        self._skip()
        return int(number) if number.lstrip("+-").isdigit() else float(number)

    def _type(self) -> Type | None:
        if self._take("?"):
            return None
        start = self.at
        word = self._word()
        if word in ("seq", "optional"):
            self._expect("(")
            element = self._type()
            self._expect(")")
            return SequenceType(element) if word == "seq" else OptionalType(element)
        if word == "map":
            self._expect("(")
            key = self._dtype()
            self._expect(",")
            value = self._type()
            self._expect(")")
            return MapType(key, value)
        if word == "opaque":
            self._expect("(")
            domain = self._string()
            self._expect(",")
            name = self._string()
            self._expect(")")
            return OpaqueType(domain, name)
        if word != "sparse":
            self.at = start
        dtype = self._dtype()
        shape = tuple(self._list(self._dim, "]")) if self._take("[") else None
        labels = self._list(self._string, ">") if self._take("<") else [""]
        return TensorType(dtype, shape, word == "sparse", labels[0], tuple(labels[1:]))

    def _dim(self) -> int | str | None:
        if self._take("?"):
            return None
        return self._int() if self._next().isdigit() or self._next() == "-" else self._name()

    def _dtype(self) -> DType:
        start = self.at
        word = self._word()
        if word not in _DTYPES:
            self._fail(f"'{word}' is no type.{nearest(word, _DTYPES)}", start)
        return _DTYPES[word]

    def _tensor(self) -> Tensor:
        start = self.at
        if self._peek_word() == "sparse":
            self._word()
            self._expect("[")
            sizes = self._list(self._int, "]")
            self._expect("(")
            values = self._tensor()
            self._expect(",")
            indices = self._tensor()
            self._expect(")")
            return SparseTensor(values, indices, sizes)
        dtype = self._dtype()
        self._expect("[")
        shape = self._list(self._int, "]")
        data = self.at
        try:
            if self._peek_word() == "base64":
                raw = self._base64()
                fill = self._take("...")
                return _from_bytes(raw, dtype, shape, fill)
            self._expect("{")
            items: list[str] | list[str | bytes]
            if dtype is DType.STRING:
                items = self._list(self._element, "}")
            else:
                items = [item.strip() for item in self._until("}", start).split(",")]
                items = [] if items == [""] else items
            fill = len(items) == 2 and items[1] == "..."
            if items and str(items[0]).startswith("..."):
                self._fail('the data of this tensor was elided; dump with tensors="inline" to read it back', data)
            if dtype is DType.STRING:
                array = np.empty(len(items) - fill, object)
                array[:] = items[: len(items) - fill]
            else:
                array = elements([str(item) for item in items[: len(items) - fill]], dtype)
            return FillTensor(array, shape, dtype) if fill else ArrayTensor(array.reshape(shape), dtype)
        except (ValueError, KeyError) as error:
            self._fail(f"these are no elements of {dtype.text}{shape}: {error}", data)

    def _element(self) -> str | bytes:
        if self._take("..."):
            return "..."
        return self._bytes() if self._next() == "b" else self._string()

    # -- words

    def _operator(self) -> tuple[str, str, str]:
        if self._next() != '"':
            domain, _, op = self._word().rpartition(".")
        else:
            domain, op = "", self._string()
            if self._take("."):
                domain, op = op, self._string()
        return domain, op, self._name() if self._take(":") else ""

    def _opset(self, opsets: dict[str, int] | None) -> dict[str, int]:
        if self._peek_word() == "none":
            self._word()
            return {}
        domain = "" if self._next().isdigit() else self._name()
        return {**(opsets or {}), domain: self._int()}

    def _pairs(self) -> tuple[tuple[str, str], ...]:
        def pair() -> tuple[str, str]:
            key = self._string()
            self._expect(":")
            return key, self._string()

        self._expect("{")
        return tuple(self._list(pair, "}"))

    def _base64(self) -> bytes:
        start = self.at
        if self._word() != "base64":
            self._fail('expected base64"..."', start)
        try:
            return base64.b64decode(self._string(), validate=True)
        except binascii.Error as error:
            self._fail(f"this is no base64: {error}", start)

    def _list(self, item: Callable[[], _T], end: str) -> list[_T]:
        """Items parted by commas, up to `end`."""
        found: list[_T] = []
        while not self._take(end):
            if found:
                self._expect(",")
            found.append(item())
        return found

    def _name(self, *, blank: bool = False) -> str:
        if self._next() == '"':
            return self._string()
        start = self.at
        word = self._word()
        if word == "_":
            if not blank:
                self._fail("'_' stands for a value left out; a name is needed here", start)
            return ""
        return word

    def _word(self) -> str:
        match = WORD.match(self.text, self.at)
        if match is None:
            self._fail("expected a name; one that is no plain word is quoted")
        self.at = match.end()
        self._skip()
        return match.group()

    def _peek_word(self) -> str:
        match = re.compile(r"\w*", re.ASCII).match(self.text, self.at)
        return match.group() if match else ""

    def _string(self) -> str:
        match = _STRING.match(self.text, self.at)
        if match is None:
            self._fail('expected "text"')
        try:
            text = json.loads(match.group())
        except json.JSONDecodeError as error:
            self._fail(f"this is no JSON string: {error.msg}")
        self.at = match.end()
        self._skip()
        return str(text)

    def _bytes(self) -> bytes:
        start = self.at
        self.at += 1
        try:
            return self._string().encode("latin-1")
        except UnicodeEncodeError:
            self._fail('b"..." holds one character a byte, up to \\u00ff', start)

    def _int(self) -> int:
        match = re.compile(r"-?\d+").match(self.text, self.at)
        if match is None:
            self._fail("expected a whole number")
        self.at = match.end()
        self._skip()
        return int(match.group())

    def _until(self, end: str, start: int) -> str:
        stop = self.text.find(end, self.at)
        if stop < 0:
            self._fail(f"'{end}' is missing", start)
        piece = self.text[self.at : stop]
        self.at = stop + 1
        self._skip()
        return piece

    def _next(self) -> str:
        """The character that comes next, `"\\0"` at the end."""
        return self.text[self.at] if self.at < len(self.text) else "\0"

    def _take(self, token: str) -> bool:
        if not self.text.startswith(token, self.at):
            return False
        self.at += len(token)
        self._skip()
        return True

    def _expect(self, token: str) -> None:
        if not self._take(token):
            self._fail(f"expected '{token}'")

    def _skip(self) -> None:
        match = _SPACE.match(self.text, self.at)
        if match is not None:
            self.at = match.end()

    def _fail(self, message: str, at: int | None = None) -> NoReturn:
        at = self.at if at is None else at
        start = self.text.rfind("\n", 0, at) + 1
        stop = self.text.find("\n", at)
        line = self.text[start : len(self.text) if stop < 0 else stop]
        first = max(0, at - start - 60)
        shown = line[first : first + 120]
        raise ModelError(
            f"line {self.text.count(chr(10), 0, at) + 1}: {message}\n  {shown}\n  {' ' * (at - start - first)}^"
        )


_UNTYPED = OpaqueType("", "untyped")
_LITERALS = frozenset(_DTYPES) | {"sparse"}


def _from_bytes(raw: bytes, dtype: DType, shape: list[int], fill: bool) -> Tensor:
    sizes: list[int] = [] if fill else shape
    if dtype.bits % 8 == 0:
        array: npt.NDArray[np.generic] = np.frombuffer(raw, dtype.numpy).reshape(sizes)
    else:
        array = unpack(np.frombuffer(raw, np.uint8), dtype, sizes)
    return FillTensor(array, shape, dtype) if fill else ArrayTensor(array, dtype)
