"""`optc inspect MODEL`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from .console import PLAINLY, Voice
from .flags import OptionValues, takes


@takes("shapes", "dims")
def inspect(
    model: str,
    /,
    *,
    options: OptionValues,
    text: Annotated[bool, Parameter(negative=())] = False,
    top: Annotated[int, Parameter(validator=Number(gte=0))] = 10,
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

    Examples
    --------
        optc inspect model.onnx
        optc inspect model.onnx --top 3 --dim T=48
        optc inspect zoo:digits_resnet --text
    """
    from ..compiler import read

    graph = read(model)
    options.fixed.apply(graph)
    if text:
        voice.say({"text": str(graph)}, str(graph))
        return 0
    from ..report.inspect import as_dict, render, summary

    contents = summary(graph, top=len(list(graph)) if voice.verbose else top)
    voice.say(as_dict(contents), render(contents, title=model))
    return 0
