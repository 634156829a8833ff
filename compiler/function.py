"""`optc.compile`: the options of a compilation as the arguments of a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Concatenate, ParamSpec

from .model import Model
from .options import Options
from .result import Build

_P = ParamSpec("_P")


def _with(
    options: Callable[_P, Options],
) -> Callable[[Callable[[Model, Options], Build]], Callable[Concatenate[Model, _P], Build]]:
    """Let a function of a model and options take the arguments that make the options."""

    def spread(function: Callable[[Model, Options], Build]) -> Callable[Concatenate[Model, _P], Build]:
        def compile(model: Model, *args: _P.args, **kwargs: _P.kwargs) -> Build:
            return function(model, options(*args, **kwargs))

        compile.__doc__, compile.__module__ = function.__doc__, function.__module__
        first = inspect.signature(function).parameters["model"]
        rest = inspect.signature(options)
        compile.__signature__ = rest.replace(  # type: ignore[attr-defined]
            parameters=[first, *rest.parameters.values()], return_annotation=Build
        )
        return compile  # type: ignore[return-value]  # the model may be named, too

    return spread


@_with(Options)
def compile(model: Model, options: Options) -> Build:
    """Compile `model` with `passes` for `target`, and write it to `output` where that is given.

    Several targets (`"onnx,arm64"`, or a sequence) are built one after the other, and `output` is then their folder;
    passes run once for all targets of the same facts. `data` are unlabeled samples; without them the samples of a zoo
    model are used, or inputs are made up. Part of them is fitted on, part held out to judge by. A `budget` is judged at
    the end; a result that misses it is written and returned all the same: see `Build.met`. What was measured for tuning
    is kept in `tune_records` and never measured again; where only records are given, they are taken. Every other option
    is as in `optc.Options`.

    Raises `SpecError` for bad text, `ModelError`, `DataError`, `TargetError`, `OutputError`, `LockError`, and
    `PassError` where a pass crashes. A `KeyboardInterrupt` after a lossy pass has finished writes what there is, and is
    raised as `Interrupted`.
    """
    from .compilation import compile_with

    return compile_with(model, options)
