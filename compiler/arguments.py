"""What a caller of the library gives, looked at before anything is done with it.

Text from the command line is parsed, and says where it is wrong; values from Python come as they are. A wrong one ends
here in one line, and not in what Python says of some inner line that it reached.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import DataError, ModelError, SpecError, expect

PATH = (str, os.PathLike)


def check_model(model: object) -> None:
    """Raises `ModelError` where no model can be read out of `model`."""
    import onnx

    from ..ir.graph import Graph

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


def check_passes(name: str, value: Any) -> None:
    from ..passes.base import Pass
    from ..passes.pipeline import Pipeline

    check_items(name, value, (str, Pipeline, Pass), "text, a Pass, or several")


def check_target(name: str, value: Any) -> None:
    from ..targets.base import Target

    check_items(name, value, (str, Target), "text, a Target, or several")


def check_overrides(name: str, value: Any) -> None:
    from ..passes.base import Override

    check_items(name, value, (Override,), "a list of Override", single=False)


def check_observers(name: str, value: Any) -> None:
    from ..passes.observers import Observer

    check_items(name, value, (Observer,), "a list of Observer", single=False)


def check_provider(name: str, value: Any) -> None:
    """Raises `SpecError` where no such execution provider is installed."""
    from ..runtime.providers import provider_of

    expect(value, str, f"'{name}' is the name of an execution provider", SpecError)
    provider_of(value)


def check_budget(name: str, value: Any) -> None:
    from ..report.budget import Budget

    if value is not None:
        expect(value, (str, Budget), f"'{name}' is text such as 'size=4MB', or a Budget", SpecError)


def check_device(name: str, value: Any) -> None:
    from ..targets.tuning import Device

    if value is not None:
        expect(value, Device, f"'{name}' is a Device", SpecError)


def check_lock(name: str, value: Any) -> None:
    from .locked import Locked

    if value is not None:
        expect(value, (Locked, Mapping), f"'{name}' is a Locked, or a mapping of them", SpecError)


def check_progress(name: str, value: Any) -> None:
    from ..passes.base import Progress

    if value is not None:
        expect(value, Progress, f"'{name}' is a Progress", SpecError)


def check_data(name: str, value: Any) -> None:
    """Raises `DataError` where `value` is nothing that samples can be drawn from."""
    from ..runtime.samples import Samples
    from .data import Data

    words = "samples are a path, an array, a mapping from inputs to arrays, an iterable of such, Data or Samples"
    source = value.source if isinstance(value, Data) else value
    if source is not None:
        expect(source, (*PATH, Samples, Iterable), words, DataError)
        if isinstance(source, bytes):
            raise DataError(f"{words}, not bytes")
        if isinstance(source, dict):
            for key, values in source.items():
                expect(key, str, "the name of an input is text", DataError)
                _check_rows(key, values)


def _check_rows(name: str, values: object) -> None:
    """Raises `DataError` where lists of lists are no array."""
    import numpy as np

    if isinstance(values, list | tuple):
        try:
            np.asarray(values)
        except ValueError:
            raise DataError(
                f"the samples of '{name}' differ in shape, and are no array; give an iterable of feeds"
            ) from None
