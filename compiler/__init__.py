"""The compiler: a model goes in, a smaller one comes out with the record of what was lost.

`road` is the way through; the other files are its stations.
"""

from .data import Data, runnable, sizes
from .fixed import fix_shapes, parse_shapes
from .measure import compare, size_of, versions
from .model import Model, name_of, read, stored_bytes
from .opened import opened
from .place import check_place
from .road import Build, Interrupted, Passes, compile

__all__ = [
    "Build",
    "Data",
    "Interrupted",
    "Model",
    "Passes",
    "check_place",
    "compare",
    "compile",
    "fix_shapes",
    "name_of",
    "opened",
    "parse_shapes",
    "read",
    "runnable",
    "size_of",
    "sizes",
    "stored_bytes",
    "versions",
]
