"""`optc inspect MODEL`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from .console import PLAINLY, Voice
from .values import dims


def inspect(
    model: str,
    /,
    *,
    text: Annotated[bool, Parameter(negative=())] = False,
    top: Annotated[int, Parameter(validator=Number(gte=0))] = 10,
    dim: Annotated[list[str] | None, Parameter(negative=())] = None,
    voice: Voice = PLAINLY,
) -> int:
    """Show what a model is made of, and where its size and work are.

    Parameters
    ----------
    model
        An ONNX file, or zoo:NAME.
    text
        Print the graph, one node a line, instead.
    top
        How many of the costliest layers to list.
    dim
        Size of a symbolic dimension, NAME=SIZE; may be given several times. 1 unless given.

    Examples
    --------
        optc inspect model.onnx
        optc inspect model.onnx --top 3 --dim T=48
        optc inspect zoo:digits_resnet --text
    """
    from ..compiler import read

    graph = read(model)
    if text:
        voice.say({"text": str(graph)}, str(graph))
        return 0
    from ..report.inspect import as_dict, render, summary

    found = summary(graph, top=len(list(graph)) if voice.verbose else top, dims=dims(dim or []))
    voice.say(as_dict(found), render(found, title=model))
    return 0
