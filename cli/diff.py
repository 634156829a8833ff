"""`optc diff A B`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from .console import MISSED, PLAINLY, Voice, heard
from .flags import READING, OptionValues, takes


@takes(*READING, data="Samples to run both on, as for compiling. Without it inputs are made up, and a note says so.")
def diff(
    first: str,
    second: str,
    /,
    *,
    options: OptionValues,
    run: bool = True,
    exit_code: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    top: Annotated[int, Parameter(validator=Number(gte=0))] = 20,
    threads: Annotated[int, Parameter(validator=Number(gte=0, lte=1024))] = 0,
    seed: Annotated[int, Parameter(validator=Number(gte=0, lte=2**31 - 1))] = 0,
    voice: Voice = PLAINLY,
) -> int:
    """Show what differs between two forms of a model: nodes, operators, weights, cost, and how they answer.

    Parameters
    ----------
    first
        The model before: an ONNX file, or zoo:NAME.
    second
        The model after.
    run
        Run both side by side.
    exit_code
        Exit with 3 where the models differ in a node, a weight, an input, an output or an opset.
    top
        How many nodes to show of those changed, removed and added.
    threads
        CPU threads; 0 takes what the libraries choose.
    seed
        Of inputs that are made up.

    Examples
    --------
        optc diff model.onnx small.onnx
        optc diff model.onnx small.onnx --data samples.npz --top 5
        optc diff model.onnx small.onnx --no-run --json
        optc diff model.onnx copy.onnx --no-run --exit-code --quiet
    """
    from ..gate import contrast
    from ..report.diff import as_dict, render

    with voice.progress() as progress:
        found = contrast(
            first,
            second,
            data=options.data,
            run=run,
            fixed=options.fixed,
            seed=seed,
            threads=threads,
            progress=progress,
        )
    with heard():
        voice.say(as_dict(found), render(found, len(found.changes) if voice.verbose else top))
    return MISSED if exit_code and found.differs else 0
