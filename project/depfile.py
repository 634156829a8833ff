"""Dependency files that Make and Ninja read: `output: input input`; a build is repeated when any input changes.

The two agree on few escapes: a backslash before a space, `#` and `:`, and two dollars for one. Both leave what other
characters mean to themselves, so a path that holds one is refused; a new line would begin a rule, or a recipe.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence

from ..errors import OutputError
from ..ir.graph import Graph
from ..ir.printable import has_control, spelled
from ..ir.stored import stored_files
from ..passes.function import FunctionPass
from ..passes.pipeline import Pipeline
from ..storage.atomic import Replacement

_APART = re.compile(r"""^~|["&'(*;<=>?\[^`|\\%]|[ :]$""")
"""What one of the two cannot be told of, or takes for something else: an assignment, a pattern, a recipe, a home."""

_WORDS = re.compile(r"\.[A-Z_]+|(un)?define|endef|-?include|sinclude|override|(un)?export|private|vpath|-?load")
"""Names that mean something to Make where they begin a rule or stand first behind its colon."""


def inputs(model: str, original: Graph, pipeline: Pipeline, data: str | None, config: str | None) -> list[str]:
    """Every file that a build reads: the model with its external data, the samples, the user's passes, the
    configuration. Of a folder of samples its folders too, which change when a file is added."""
    paths: list[str] = []
    if not model.startswith("zoo:"):
        paths.append(model)
        paths += sorted(stored_files(original) - {os.path.abspath(model)})
    if data is not None:
        paths += _files(data)
    paths += [one.path for one in pipeline if isinstance(one, FunctionPass)]
    if config is not None:
        paths.append(config)
    return list(dict.fromkeys(paths))


def _files(path: str) -> Iterator[str]:
    yield path
    for folder, names, files in os.walk(path):
        names.sort()
        yield from (os.path.join(folder, name) for name in names)
        yield from (os.path.join(folder, name) for name in sorted(files))


def write(path: str, outputs: Sequence[str], inputs: Iterable[str]) -> None:
    """Write a dependency file. Raises `OutputError`."""
    text = f"{' '.join(map(_escaped, outputs))}: {' '.join(map(_escaped, inputs))}\n"
    with Replacement(path) as files:
        files.open().write(os.fsencode(text))


def _escaped(path: str) -> str:
    """A path as Make and Ninja both read it. Raises `OutputError` where they cannot both be told of it."""
    if has_control(path) or _APART.search(path):
        raise OutputError(
            f"{spelled(path)}: cannot stand in a dependency file that Make and Ninja read alike; rename it, with none "
            "of \" & ' ( * ; < = > ? [ ^ ` | \\ % in its name, no space at the end and no ~ at its beginning"
        )
    path = f"./{path}" if _WORDS.fullmatch(path) else path
    return re.sub(r"([ #:])", r"\\\1", path.replace("$", "$$"))
