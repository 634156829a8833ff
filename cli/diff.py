"""`optc diff A B`."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from .console import console


def diff(
    first: str,
    second: str,
    /,
    *,
    data: str | None = None,
    run: bool = True,
    top: Annotated[int, Parameter(validator=Number(gte=0))] = 20,
    threads: Annotated[int, Parameter(validator=Number(gte=0, lte=1024))] = 0,
    seed: Annotated[int, Parameter(validator=Number(gte=0, lte=2**31 - 1))] = 0,
    traceback: Annotated[bool, Parameter(negative=())] = False,
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """Show what differs between two forms of a model: nodes, operators, weights, cost, and how they answer.

    Parameters
    ----------
    first
        The model before: an ONNX file, or zoo:NAME.
    second
        The model after.
    data
        Samples to run both on, as for compiling. Without it inputs are made up.
    run
        Run both side by side.
    top
        How many nodes to show of those changed, removed and added.
    threads
        CPU threads; 0 takes what the libraries choose.
    seed
        Of inputs that are made up.
    traceback
        Show the Python traceback of an error.
    json_
        Print everything as JSON.

    Examples
    --------
        optc diff model.onnx small.onnx
        optc diff model.onnx small.onnx --data samples.npz --top 5
        optc diff model.onnx small.onnx --no-run --json
    """
    from rich.console import Console

    from ..gate import contrast
    from ..report.diff import as_dict, render
    from ..report.progress import TerminalProgress

    with nullcontext() if json_ else TerminalProgress(Console(stderr=True)) as progress:
        found = contrast(first, second, data=data, run=run, seed=seed, threads=threads, progress=progress)
    if json_:
        print(json.dumps(as_dict(found), indent=2, ensure_ascii=False))
    else:
        console().print(render(found, top))
    return 0
