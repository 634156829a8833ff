"""What a caller of the library gives, looked at before anything is done with it.

Text from the command line is parsed, and says where it is wrong; values from Python come as they are. A wrong one ends
here in one line, and not in what Python says of some inner line that it reached.
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ..errors import DataError, ModelError, OptcError, OutputError, SpecError, expect
from ..ir.graph import Graph
from ..passes.base import Override, Pass, Progress
from ..passes.observers import Observer
from ..passes.pipeline import Pipeline
from ..report.budget import Budget
from ..runtime.samples import Samples
from ..targets.base import Target
from ..targets.tuning import Device
from .locked import Locked

PATH = (str, os.PathLike)
WHOLE = numbers.Integral
NUMBER = numbers.Real
SWITCHES = ("freeze", "clean", "guard", "check", "trail")
_OPTIONAL: dict[str, tuple[type | tuple[type, ...], str, type[OptcError]]] = {
    "output": (PATH, "a path", OutputError),
    "min_agreement": (NUMBER, "a share from 0 to 1", SpecError),
    "budget": ((str, Budget), "text such as 'size=4MB', or a Budget", SpecError),
    "latency_table": (PATH, "a path", SpecError),
    "tune": (NUMBER, "a number of seconds", SpecError),
    "tune_records": (PATH, "a path", SpecError),
    "device": (Device, "a Device", SpecError),
    "cache": (PATH, "a path", SpecError),
    "lock": ((Locked, Mapping), "a Locked, or a mapping of them", SpecError),
    "progress": (Progress, "a Progress", SpecError),
    "shapes": (Mapping, "a mapping from inputs to sizes", SpecError),
}
"""Arguments that may be `None`: what else they are."""


def check_arguments(given: Mapping[str, Any]) -> None:
    """Raise what `compile` raises of arguments, by name, that are of no kind that it takes."""
    check_model(given["model"])
    check_items("passes", given["passes"], (str, Pipeline, Pass), "text, a Pass, or several")
    check_items("target", given["target"], (str, Target), "text, a Target, or several")
    for name, (kinds, words, error) in _OPTIONAL.items():
        if given[name] is not None:
            expect(given[name], kinds, f"'{name}' is {words}", error)
    for name in ("seed", "threads"):
        expect(given[name], WHOLE, f"'{name}' is a whole number", SpecError)
        if given[name] < 0:
            raise SpecError(f"'{name}' is 0 or more, not {given[name]}")
    for name in SWITCHES:
        expect(given[name], bool, f"'{name}' is True or False", SpecError)
    share = given["min_agreement"]
    if share is not None and not 0 <= share <= 1:
        raise SpecError(f"'min_agreement' is a share from 0 to 1, not {share}")
    for name, sizes in (given["shapes"] or {}).items():
        expect(sizes, Collection, f"the shape of '{name}' is several whole numbers", SpecError)
        for size in () if isinstance(sizes, str) else sizes:
            expect(size, WHOLE, f"a size of '{name}' is a whole number", SpecError)
        if isinstance(sizes, str) or any(size < 1 for size in sizes):
            raise SpecError(f"the shape of '{name}' is several whole numbers, none below 1, not {sizes!r}")
    for name, kind in (("overrides", Override), ("observers", Observer)):
        check_items(name, given[name], (kind,), f"a list of {kind.__name__}", single=False)
    check_data(given["data"])


def check_model(model: object) -> None:
    """Raises `ModelError` where no model can be read out of `model`."""
    import onnx

    if not type(model).__module__.startswith("onnx_graphsurgeon"):
        words = "a model is a path, zoo:NAME, bytes, a ModelProto, a graphsurgeon graph or a Graph"
        expect(model, (*PATH, bytes, Graph, onnx.ModelProto), words, ModelError)


def check_items(name: str, items: object, kinds: tuple[type, ...], words: str, *, single: bool = True) -> None:
    """Raises `SpecError` where `items` is none of `kinds` (where one may stand `single`), nor several of them."""
    if single and isinstance(items, kinds):
        return
    several = isinstance(items, Iterable) and not isinstance(items, str | bytes | Mapping)
    each: Iterable[object] = items if isinstance(items, Iterable) and several else (items,)
    for one in each:
        if isinstance(one, type) and issubclass(one, kinds):
            raise SpecError(f"'{name}' is {words}; {one.__name__} is a class: call it, {one.__name__}()")
        expect(one, kinds if several else (), f"'{name}' is {words}", SpecError)


def check_data(data: object) -> None:
    """Raises `DataError` where `data` is nothing that samples can be drawn from."""
    from .data import Data

    words = "samples are a path, an array, a mapping from inputs to arrays, an iterable of such, Data or Samples"
    source = data.source if isinstance(data, Data) else data
    if source is not None:
        expect(source, (*PATH, Samples, Iterable), words, DataError)
        if isinstance(source, bytes):
            raise DataError(f"{words}, not bytes")
