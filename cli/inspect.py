"""`optc inspect MODEL`."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from .console import console
from .values import dims


def inspect(
    model: str,
    /,
    *,
    text: Annotated[bool, Parameter(negative=())] = False,
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
    top: Annotated[int, Parameter(validator=Number(gte=0))] = 10,
    dim: Annotated[list[str] | None, Parameter(negative=())] = None,
) -> int:
    """Show what a model is made of, and where its size and work are.

    Parameters
    ----------
    model
        An ONNX file, or zoo:NAME.
    text
        Print the graph, one node a line, instead.
    json_
        Print the summary as JSON.
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
        print(graph)
        return 0
    from ..report.inspect import as_dict, render, summary

    found = summary(graph, top=top, dims=dims(dim or []))
    if json_:
        print(json.dumps(as_dict(found), indent=2, ensure_ascii=False))
    else:
        console().print(render(found, title=model))
    return 0
