"""`optc check MODEL --against FLOAT`."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from .console import OUTPUT, PLAINLY, Voice, console, heard, tell
from .flags import READING, OptionValues, takes
from .values import reports

_BOTH = "Samples to run both on, as for compiling. Without it inputs are made up, and the report says so."


@takes(*READING, data=_BOTH)
def check(
    model: str,
    /,
    *,
    options: OptionValues,
    against: str,
    budget: str | None = None,
    threads: Annotated[int, Parameter(validator=Number(gte=0, lte=1024))] = 0,
    seed: Annotated[int, Parameter(validator=Number(gte=0, lte=2**31 - 1))] = 0,
    report: Annotated[list[str] | None, Parameter(group=OUTPUT, negative=())] = None,
    voice: Voice = PLAINLY,
) -> int:
    """Hold MODEL against the model it was made from: size, work, agreement, latency. A gate: nothing is compiled.

    Parameters
    ----------
    model
        An ONNX file, whichever tool made it, or zoo:NAME.
    against
        The model to agree with, of the same inputs and outputs: an ONNX file, or zoo:NAME.
    budget
        Limits that MODEL must keep, such as size=4MB,latency=0.6x,agreement=99%; `x` and `%` are shares of the
        other model's figures. The exit status is 3 where one is missed.
    threads
        CPU threads; 0 takes what the libraries choose.
    seed
        Of inputs that are made up.
    report
        File that receives the report, in the form its extension names: .json, .md, or .xml (JUnit). May be given
        several times.

    Examples
    --------
        optc check small.onnx --against model.onnx
        optc check small.onnx --against model.onnx --data samples.npz
        optc check small.onnx --against model.onnx --budget size=30%,kl=0.01
        optc check small.onnx --against model.onnx --report gate.xml
    """
    from ..gate import check as judged
    from ..report.files import write
    from ..report.terminal import show

    wanted = reports(report or [], {"MODEL": model, "--against": against, "--data": options.get("data")})
    with voice.progress() as progress:
        record = judged(
            model,
            against,
            data=options.data,
            fixed=options.fixed,
            budget=budget,
            seed=seed,
            threads=threads,
            progress=progress,
        )
    for path in wanted:
        write(record, path)
    with heard():
        if voice.json:
            sys.stdout.write(record.to_json())
        elif voice.loud:
            show(record, console(), layers=voice.verbose)
    return tell(record.budget)
