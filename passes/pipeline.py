"""Pipelines as text and back: `prune,svd:ratio=0.5,quant:weights=int4`.

An item is a pass's word and its options, `word:option=value:option=value`, or a user's own function over an
onnx-graphsurgeon graph, `path/to/file.py:function`. Items are parted by commas; a value that holds a comma, a colon or
a space is quoted. There are no braces, because a shell would expand them. `str(pipeline)` parses back to an equal
pipeline and names only the options that differ from their defaults.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import SpecError, expect
from . import table
from .base import Pass
from .function import FunctionPass
from .spec import Token, items, options_from, text_of


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Passes in the order in which they run."""

    passes: tuple[Pass, ...] = ()

    @staticmethod
    def parse(text: str) -> Pipeline:
        """The pipeline that `text` spells. Raises `SpecError` with a caret under the place that is wrong."""
        expect(text, str, "a pipeline is text, such as 'prune,quant'", SpecError)
        return Pipeline(tuple(_parse(text, item) for item in items(text)))

    @staticmethod
    def of(passes: str | Pipeline | Pass | Sequence[str | Pass]) -> Pipeline:
        """A pipeline from whatever a caller has: text, a pass, several of either, or a pipeline. Raises `SpecError`."""
        if isinstance(passes, Pipeline):
            return passes
        if isinstance(passes, Pass):
            return Pipeline((passes,))
        if isinstance(passes, str):
            return Pipeline.parse(passes)
        if isinstance(passes, type):
            raise SpecError(f"{passes.__name__} is a class; a pass is what it makes: {passes.__name__}()")
        expect(passes, Sequence, "passes are text, a Pass, or several of them", SpecError)
        return Pipeline(tuple(one for item in passes for one in Pipeline.of(item).passes))

    @property
    def lossy(self) -> bool:
        return any(one.lossy for one in self.passes)

    @property
    def needs_samples(self) -> bool:
        return any(one.needs_samples for one in self.passes)

    def __iter__(self) -> Iterator[Pass]:
        return iter(self.passes)

    def __len__(self) -> int:
        return len(self.passes)

    def __str__(self) -> str:
        return ",".join(spec(one) for one in self.passes)


def spec(one: Pass) -> str:
    """The text of one pass: its word and the options that differ from their defaults."""
    return one.spec if isinstance(one, FunctionPass) else text_of(one.name, one)


def _parse(text: str, item: Sequence[Token]) -> Pass:
    head, *rest = item
    if head.text.endswith(".py"):
        if len(rest) != 1 or not rest[0].text.isidentifier():
            at = rest[0].position if rest else head.position + len(head.text)
            raise SpecError(f"'{head.text}' needs one function: {head.text}:function", text=text, position=at)
        return FunctionPass(head.text, rest[0].text)
    cls = table.find(head.text, text=text, position=head.position)
    return cls(**options_from(text, cls, item))
