"""`optc init MODEL`: a first configuration."""

from __future__ import annotations

import os
from typing import Annotated

from cyclopts import Parameter

from .console import PLAINLY, Voice


def init(
    model: str, /, *, output: Annotated[str | None, Parameter(name=["--output", "-o"])] = None, voice: Voice = PLAINLY
) -> int:
    """Write a commented optc.toml for a model, or add it to the one there is, to build it from with `optc build`.

    Parameters
    ----------
    model
        An ONNX file, or zoo:NAME for a model that ships.
    output
        File to write; optc.toml beside MODEL unless given.

    Examples
    --------
    optc init model.onnx && optc build
    """
    from ..compiler import read
    from ..project import init as project
    from ..project.config import FILE

    folder = "" if model.startswith("zoo:") else os.path.dirname(model)
    path = output if output is not None else os.path.join(folder, FILE)
    graph = read(model)
    appended = project.write(path, project.text(model, graph, os.path.dirname(os.path.abspath(path))), model)
    hint = "" if folder == "" else f" --config {path}"
    did = f"added the model to {path}" if appended else f"wrote {path}"
    voice.say({"wrote": path, "appended": appended}, f"{did}; edit it, then run: optc build{hint}")
    return 0
