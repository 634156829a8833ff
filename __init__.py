"""`optc`: a static, graph-level compression compiler for ONNX models.

>>> import optc
>>> build = optc.compile("zoo:digits_resnet", passes="quant")  # doctest: +SKIP
>>> build.save("small.onnx")  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import logging
import os
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Builds of ONNX Runtime send events to their maker unless told not to before they are first imported. Whoever wants
# that sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Threads of OpenBLAS wait for their next product by spinning, and take the cores from whatever runs between products.
# Where numpy is not loaded yet they are told to sleep at once: walks take half the time.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

# What the library has to tell goes to the logger `optc`, and nowhere until an application asks for it.
logging.getLogger("optc").addHandler(logging.NullHandler())

if TYPE_CHECKING:
    from .compiler import Build, Data, Options, compile
    from .errors import OptcError
    from .ir.gradient.differentiate import Gradients, differentiate
    from .ir.graph import Graph
    from .ir.onnx.reader import load
    from .ir.onnx.writer import save
    from .passes.base import Context, Pass, Report
    from .passes.pipeline import Pipeline
    from .report.budget import Budget
    from .runtime.samples import Samples
    from .runtime.sources import load_samples
    from .searcher import search

__all__ = [
    "Budget",
    "Build",
    "Context",
    "Data",
    "Gradients",
    "Graph",
    "OptcError",
    "Options",
    "Pass",
    "Pipeline",
    "Report",
    "Samples",
    "compile",
    "differentiate",
    "load",
    "load_samples",
    "save",
    "search",
]

_HOME = {
    "Budget": "report.budget",
    "Build": "compiler",
    "Context": "passes.base",
    "Data": "compiler",
    "Gradients": "ir.gradient.differentiate",
    "Graph": "ir.graph",
    "OptcError": "errors",
    "Options": "compiler",
    "Pass": "passes.base",
    "Pipeline": "passes.pipeline",
    "Report": "passes.base",
    "Samples": "runtime.samples",
    "compile": "compiler",
    "differentiate": "ir.gradient.differentiate",
    "load": "ir.onnx.reader",
    "load_samples": "runtime.sources",
    "save": "ir.onnx.writer",
    "search": "searcher",
}


def __getattr__(name: str) -> object:
    # Public names are imported when first used, so that `import optc` stays fast.
    if name not in _HOME:
        raise AttributeError(f"module 'optc' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
