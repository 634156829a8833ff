"""Commands that take options of a compilation, as these are declared."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from ..compiler.option import DeclaredOption, OptionKind, declared
from ..compiler.options import AGAIN, DEVICE, HOW_READ, RUN, SAMPLES, Options

if TYPE_CHECKING:
    from ..compiler.data import Data
    from ..compiler.fixed_sizes import Fixed
    from ..runtime.samples import Samples

GROUPS = {name: Group(name, sort_key=i) for i, name in enumerate((SAMPLES, RUN, DEVICE, AGAIN), start=1)}

READING = ("data", "mean", "std", "layout", "resize", "samples", "shapes", "dims")
"""What every command takes that reads samples."""


@dataclass(frozen=True, slots=True)
class OptionValues:
    """The options that a command line gives: their `values` by name, and the `words` that were typed, by parameter."""

    values: Mapping[str, Any] = field(default_factory=dict)
    words: Mapping[str, Any] = field(default_factory=dict)

    def get(self, name: str, default: Any = None) -> Any:
        """The value of an option, or what stands for it where it is not given."""
        return self.values.get(name, default)

    @property
    def data(self) -> Data | Samples:
        """The samples that are named, and how they are read."""
        return Options(**{name: value for name, value in self.values.items() if name in ("data", *HOW_READ)}).source

    @property
    def fixed(self) -> Fixed:
        """The sizes that are to be fixed."""
        return Options(shapes=self.get("shapes"), dims=self.get("dims")).fixed


def takes(*names: str, **helps: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Let a command take the options `names`, which it gets as one `OptionValues` in its parameter `options`. `helps`
    are what an option means to this command, where that is not what it means to a compilation.

    A value that does not parse raises `SpecError`.
    """
    declarations = declared(Options)
    parameters = {declarations[name].flag.replace("-", "_"): declarations[name] for name in names}

    def spread(command: Callable[..., int]) -> Callable[..., int]:
        def call(*args: Any, **kwargs: Any) -> int:
            words = {word: value for word in parameters if (value := kwargs.pop(word, None)) is not None}
            chosen = {parameters[word]: value for word, value in words.items()}
            values = {one.name: one.kind.parse(value, f"--{one.flag}") for one, value in chosen.items()}
            return command(*args, options=OptionValues(values, words), **kwargs)

        added = {word: _annotation(one, helps.get(one.name, one.help)) for word, one in parameters.items()}
        signature, hints = inspect.signature(command), get_type_hints(command, include_extras=True)
        own = [p.replace(annotation=hints[p.name]) for p in signature.parameters.values() if p.name != "options"]
        more = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in added.items()
        ]
        call.__name__, call.__doc__, call.__module__ = command.__name__, command.__doc__, command.__module__
        call.__signature__ = signature.replace(parameters=_placed(own, more))  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in [*own, *more]} | {"return": int}
        return call

    return spread


def _placed(own: list[inspect.Parameter], more: list[inspect.Parameter]) -> list[inspect.Parameter]:
    """The options behind what a command says first: its own arguments."""
    first = [p for p in own if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    return [*first, *more, *(p for p in own if p.kind is inspect.Parameter.KEYWORD_ONLY)]


def _annotation(one: DeclaredOption, help: str) -> object:
    kind, group = one.kind, GROUPS[one.group] if one.group else None
    names = [f"--{one.flag}", *(["-o"] if one.name == "output" else [])]
    parameter = Parameter(name=names, help=help, group=group, validator=_bounds(kind))
    if kind.argument is not bool:
        parameter = Parameter.combine(parameter, Parameter(negative=()))
    argument: Any = Literal[kind.choices] if kind.choices else kind.argument
    return Annotated[argument | None, parameter]


def _bounds(kind: OptionKind) -> Number | None:
    return None if kind.low is None and kind.high is None else Number(gte=kind.low, lte=kind.high)
