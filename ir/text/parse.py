"""The inverse of `text.dump`; the syntax is described there.

Written by hand, most of it may be left out: the header (`ir_version 10`, `opset 21`), types, names of nodes, sizes
of outputs. Nodes may stand in any order. A value returned as an output without a type of its own has the output's.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...errors import nearest
from ..attributes import Attribute, AttributeKind, AttributeValue
from ..graph import Function, Graph, Header, Node, Value
from ..origin import Origin
from ..tensor import Tensor
from ..types import DType, OpaqueType, Type
from .literal import DTYPES, RESERVED, LiteralScanner

DEFAULT_OPSET = 21
"""What a text that imports no operator set means; a text that says `opset none` means none."""

_NUMBER = re.compile(r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|inf\b|nan\b)")
_HEX = re.compile(r"\w+")
_CONSTANT = re.compile(r"\w+\s*\[")
_KINDS = {kind.name.lower(): kind for kind in AttributeKind}


def parse(text: str, *, aside: Callable[[int, DType, Sequence[int]], Tensor] | None = None) -> Graph:
    """The graph that `text` describes. Raises `ModelError` with the line and a caret under the place.

    `aside` gives the tensor behind a number, for a text that was dumped with large tensors aside.
    """
    return _Parser(text, aside).model()


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
    value: str
    at: int


class _Parser(LiteralScanner):
    def __init__(self, text: str, aside: Callable[[int, DType, Sequence[int]], Tensor] | None = None) -> None:
        super().__init__(text, aside)
        self.later: list[Callable[[], None]] = []

    # -- the model

    def model(self) -> Graph:
        fields: dict[str, Callable[[], Any]] = {
            "ir_version": self.whole,
            "domain": self.string,
            "model_version": self.whole,
            "doc": self.string,
            "metadata": self.pairs,
            "extra": self.base64,
        }
        header = Header()
        opsets: dict[str, int] | None = None
        functions: list[Function] = []
        graph: Graph | None = None
        while self.at < len(self.text):
            start = self.at
            word = self.word()
            if word == "graph" and graph is None:
                graph = self._graph(None)
            elif word == "function":
                functions.append(self._function())
            elif word == "opset":
                opsets = self._opset(opsets)
            elif word == "producer":
                header = replace(header, producer_name=self.string(), producer_version=self.string())
            elif word in fields:
                self._refuse_elided()
                header = replace(header, **{word: fields[word]()})
            else:
                listed = ", ".join(fields)
                self.fail(f"'{word}' cannot stand here, only {listed}, producer, opset, function, and one graph", start)
        if graph is None:
            self.fail("the text ends without a graph")
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
            key = self.name()
            if self.ahead() in "=:":
                defaults[key] = self._attribute(_Scope())
            else:
                required.append(key)

        if self.take("<"):
            self.items(attribute, ">")
        graph = self._graph(None, name)
        return Function(domain, name, overload, graph, tuple(required), defaults)

    def _graph(self, around: _Scope | None, name: str | None = None) -> Graph:
        if name is None:
            name = "" if self.ahead() == "(" else self.name()
        graph = Graph(name)
        scope = _Scope(around)
        self.expect("(")
        self.items(lambda: self._input(graph, scope), ")")
        self.expect("->")
        self.expect("(")
        outputs = self.items(self._output, ")")
        notes = self._notes()
        graph.doc, graph.metadata, graph.extra = notes.doc, dict(notes.metadata), notes.extra
        graph.opsets = notes.opsets or {}
        graph.name = graph.name if notes.name is None else notes.name
        declared = {o.value: o.type for o in reversed(outputs) if o.type is not _UNTYPED}
        self.expect("{")
        while not self.take("}"):
            self._statement(graph, scope, declared)
        self.later.append(lambda: self._return(graph, scope, outputs))
        return graph

    def _input(self, graph: Graph, scope: _Scope) -> None:
        start = self.at
        name = self.name()
        type = self.value_type() if self.take(":") else None
        notes = self._notes()
        value = graph.add_input(name, type, default=self.tensor() if self.take("=") else None)
        self._define(scope, name, value, start, notes)

    def _output(self) -> _Declared:
        start = self.at
        name = self.name()
        type = self.value_type() if self.take(":") else _UNTYPED
        notes = self._notes()
        return _Declared(name, type, notes, self.name() if self.take("=") else name, start)

    def _return(self, graph: Graph, scope: _Scope, outputs: list[_Declared]) -> None:
        for declared in outputs:
            output = graph.add_output(self._find(scope, declared.value, declared.at), declared.name)
            if declared.type is not _UNTYPED:
                output.type = declared.type
            output.doc = declared.notes.doc
            output.metadata = dict(declared.notes.metadata) or None

    def _statement(self, graph: Graph, scope: _Scope, declared: dict[str, Type | None]) -> None:
        results: list[tuple[int, str, Type | None, _Notes]] = []
        while not self.take("="):
            if results:
                self.expect(",")
            start = self.at
            name = self.value_name()
            type = self.value_type() if self.take(":") else _UNTYPED
            results.append((start, name, type, self._notes()))
        if self.word_ahead() in _LITERALS and _CONSTANT.match(self.text, self.at):
            if len(results) != 1:
                self.fail("one constant has one name")
            start, name, type, notes = results[0]
            constant = graph.constant(self.tensor(), name)
            if type is not _UNTYPED:
                constant.type = type
            self._define(scope, name, constant, start, notes)
            return
        domain, op, overload = self._operator()
        attributes: dict[str, Attribute] = {}

        def attribute() -> None:
            start = self.at
            key = self.name()
            if key in attributes:
                self.fail(f"attribute '{key}' is given twice", start)
            attributes[key] = self._attribute(scope)

        if self.take("<"):
            self.items(attribute, ">")
        self.expect("(")
        reads = self.items(lambda: (self.at, self.value_name()), ")")
        name = self.name() if self.take("@") else ""
        notes = self._notes()
        types = [declared.get(value) if type is _UNTYPED else type for _, value, type, _ in results]
        node = graph.add(
            op, (), attributes, outputs=[value for _, value, _, _ in results], types=types, name=name, domain=domain
        )
        node.overload, node.doc, node.extra = overload, notes.doc, notes.extra
        node.metadata = dict(notes.metadata) or None
        node.origin = Origin.own(name) if notes.origin is None else notes.origin
        for (start, value, _, value_notes), output in zip(results, node.outputs, strict=True):
            self._define(scope, value, output, start, value_notes)
        self.later.append(lambda: self._read(node, scope, reads))

    def _read(self, node: Node, scope: _Scope, reads: list[tuple[int, str]]) -> None:
        node.set_inputs([self._find(scope, name, at) if name else None for at, name in reads])

    def _define(self, scope: _Scope, name: str, value: Value, at: int, notes: _Notes) -> None:
        if name in scope.values:
            self.fail(f"'{name}' is defined twice; every value is made once", at)
        if name:
            scope.values[name] = value
        value.doc, value.metadata = notes.doc, dict(notes.metadata) or None

    def _find(self, scope: _Scope, name: str, at: int) -> Value:
        value = scope.find(name)
        if value is None:
            self.fail(f"nothing here is called '{name}'.{nearest(name, scope.values)}", at)
        return value

    def _notes(self) -> _Notes:
        notes = _Notes()
        while (word := self.word_ahead()) in RESERVED and self.take(word):
            self._refuse_elided()
            if word == "doc":
                notes.doc = self.string()
            elif word == "metadata":
                notes.metadata = self.pairs()
            elif word == "extra":
                notes.extra = self.base64()
            elif word == "opset":
                notes.opsets = self._opset(notes.opsets)
            elif word == "name":
                notes.name = self.string()
            else:
                self.expect("(")
                names = tuple(self.items(self.name, ")"))
                origin = notes.origin or Origin()
                notes.origin = replace(origin, nodes=names) if word == "from" else replace(origin, passes=names)
        return notes

    def _refuse_elided(self) -> None:
        if self.text.startswith("{...", self.at):
            self.fail('this note was elided; dump with tensors="inline" to read it back')

    # -- attributes, types, tensors

    def _attribute(self, scope: _Scope) -> Attribute:
        kind = None
        if self.take(":"):
            start = self.at
            word = self.word()
            if word not in _KINDS:
                self.fail(f"'{word}' is no kind of attribute.{nearest(word, _KINDS)}", start)
            kind = _KINDS[word]
        self.expect("=")
        start = self.at
        if self.take("@"):
            if kind is None:
                self.fail("an attribute that refers to another one needs its kind: `alpha: float = @alpha`", start)
            return Attribute(kind, None, self.name(), self._notes().doc)
        value: AttributeValue
        if self.word_ahead() == "none":
            self.word()
            value = None
        elif self.take("["):
            literal: Callable[[], object] = lambda: self._literal(scope)  # noqa: E731
            if kind is AttributeKind.TYPE_PROTOS:
                literal = self.value_type
            value = tuple(self.items(literal, "]"))  # type: ignore[assignment]
        else:
            value = self.value_type() if kind is AttributeKind.TYPE_PROTO else self._literal(scope)
        try:
            attribute = Attribute.of(value) if kind is None and value is not None else None
        except (TypeError, ValueError):
            self.fail("the kind of this attribute cannot be told; write it: `axes: ints = []`", start)
        if attribute is not None:
            return replace(attribute, doc=self._notes().doc)
        if kind is None:
            self.fail("an attribute without a value needs its kind: `alpha: float = none`", start)
        if kind is AttributeKind.FLOAT and isinstance(value, int):
            value = float(value)
        if kind is AttributeKind.FLOATS and isinstance(value, tuple):
            value = tuple(float(item) if isinstance(item, int) else item for item in value)  # type: ignore[assignment]
        return Attribute(kind, value, "", self._notes().doc)

    def _literal(self, scope: _Scope) -> int | float | str | bytes | Tensor | Graph:
        word = self.word_ahead()
        if word == "graph":
            self.word()
            return self._graph(scope)
        if word in _LITERALS:
            return self.tensor()
        if word in ("b", "") and self.ahead() in '"b':
            return self.octets() if word else self.string()
        start = self.at
        if self.take("nan("):
            try:
                payload: float = struct.unpack(">d", bytes.fromhex(self.match(_HEX, "hexadecimal digits")))[0]
            except (ValueError, struct.error):
                self.fail("nan(...) holds the 16 hexadecimal digits of a double", start)
            self.expect(")")
            return payload
        number = self.match(_NUMBER, 'a number, "text", [a list], a tensor such as float[2] {1, 2}, or a graph')
        return int(number) if number.lstrip("+-").isdigit() else float(number)

    def _operator(self) -> tuple[str, str, str]:
        if self.ahead() != '"':
            domain, _, op = self.word().rpartition(".")
        else:
            domain, op = "", self.string()
            if self.take("."):
                domain, op = op, self.string()
        return domain, op, self.name() if self.take(":") else ""

    def _opset(self, opsets: dict[str, int] | None) -> dict[str, int]:
        if self.word_ahead() == "none":
            self.word()
            return {}
        domain = "" if self.ahead().isdigit() else self.name()
        return {**(opsets or {}), domain: self.whole()}


_UNTYPED = OpaqueType("", "untyped")
"""Stands for a type that the text leaves out, where `None` is one that it says is unknown."""
_LITERALS = frozenset(DTYPES) | {"sparse", "broadcast"}
