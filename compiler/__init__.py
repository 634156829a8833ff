"""The compiler: a model goes in, a smaller one comes out with the record of what was lost.

`options` is what can be asked for, `order` what was asked for, `stages` what happens in which order, and `result` what
comes out; each of the other files is one part of a stage.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .artifact import opened
    from .compilation import compile_with
    from .data import Data, in_batches, runnable, sizes
    from .fixed_sizes import fix_shapes, narrowed, parse_shapes
    from .function import compile
    from .measure import compare, size_of, versions
    from .model import Model, name_of, read, stored_bytes
    from .options import Options, Passes
    from .place import check_place
    from .result import Build, Interrupted

__all__ = [
    "Build",
    "Data",
    "Interrupted",
    "Model",
    "Options",
    "Passes",
    "check_place",
    "compare",
    "compile",
    "compile_with",
    "fix_shapes",
    "in_batches",
    "name_of",
    "narrowed",
    "opened",
    "parse_shapes",
    "read",
    "runnable",
    "size_of",
    "sizes",
    "stored_bytes",
    "versions",
]

_HOME = {
    "Build": "result",
    "Data": "data",
    "Interrupted": "result",
    "Model": "model",
    "Options": "options",
    "Passes": "options",
    "check_place": "place",
    "compare": "measure",
    "compile": "function",
    "compile_with": "compilation",
    "fix_shapes": "fixed_sizes",
    "in_batches": "data",
    "name_of": "model",
    "narrowed": "fixed_sizes",
    "opened": "artifact",
    "parse_shapes": "fixed_sizes",
    "read": "model",
    "runnable": "data",
    "size_of": "measure",
    "sizes": "data",
    "stored_bytes": "model",
    "versions": "measure",
}


def __getattr__(name: str) -> object:
    # The command line is made of the options before anything of the compiler itself is wanted.
    if name not in _HOME:
        raise AttributeError(f"module 'optc.compiler' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
