"""The compiler: a model goes in, a smaller one comes out with the record of what was lost.

`order` is what was asked for, `road` the way through, `result` what comes out; the other files are the stations.
"""

from .artifact import opened
from .data import Data, in_batches, runnable, sizes
from .fixed_sizes import fix_shapes, narrowed, parse_shapes
from .measure import compare, size_of, versions
from .model import Model, name_of, read, stored_bytes
from .place import check_place
from .result import Build, Interrupted
from .road import Passes, compile

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
