"""`optc MODEL`: compile it."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Literal

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from .console import console, tell
from .values import check_apart, image_size, numbers, reports

_DATA = Group("Samples", sort_key=1)
_RUN = Group("Run", sort_key=2)
_TELL = Group("Output", sort_key=3)


def compile_model(
    model: str,
    /,
    *,
    passes: str = "prune,svd,quant",
    target: str = "onnx",
    output: Annotated[str | None, Parameter(name=["--output", "-o"])] = None,
    data: Annotated[str | None, Parameter(group=_DATA)] = None,
    mean: Annotated[str, Parameter(group=_DATA)] = "0",
    std: Annotated[str, Parameter(group=_DATA)] = "1",
    layout: Annotated[Literal["auto", "NCHW", "NHWC"], Parameter(group=_DATA)] = "auto",
    resize: Annotated[str | None, Parameter(group=_DATA)] = None,
    samples: Annotated[int | None, Parameter(group=_DATA, validator=Number(gte=1))] = None,
    seed: Annotated[int, Parameter(group=_RUN, validator=Number(gte=0, lte=2**31 - 1))] = 0,
    threads: Annotated[int, Parameter(group=_RUN, validator=Number(gte=0, lte=1024))] = 0,
    clean: Annotated[bool, Parameter(group=_RUN)] = True,
    guard: Annotated[bool, Parameter(group=_RUN)] = True,
    min_agreement: Annotated[float | None, Parameter(group=_RUN, validator=Number(gte=0, lte=1))] = None,
    budget: Annotated[str | None, Parameter(group=_RUN)] = None,
    check: Annotated[bool, Parameter(group=_RUN)] = True,
    dump: Annotated[str | None, Parameter(group=_RUN)] = None,
    traceback: Annotated[bool, Parameter(group=_RUN, negative=())] = False,
    report: Annotated[list[str] | None, Parameter(group=_TELL, negative=())] = None,
    json_: Annotated[bool, Parameter(name="--json", group=_TELL, negative=())] = False,
    verbose: Annotated[bool, Parameter(name=["--verbose", "-v"], group=_TELL, negative=())] = False,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], group=_TELL, negative=())] = False,
) -> int:
    """Compile MODEL: run the passes, write the result, run it beside the original, report.

    Parameters
    ----------
    model
        An ONNX file, or zoo:NAME for a model that ships (see `optc zoo`).
    passes
        Passes and their options: prune,svd:ratio=0.5,quant (see `optc passes`), or file.py:function over an
        onnx-graphsurgeon graph. `clean` runs first unless --no-clean.
    target
        What the model is built for (see `optc targets`).
    output
        File to write; beside MODEL as NAME.optc.onnx unless given.
    data
        Calibration samples, unlabeled: an .npz (input name -> array), a folder of .npy or of images, or a folder of
        ONNX test_data_set_*. Without it inputs are made up, and the report says so.
    mean
        Images: subtracted from pixels of 0..255, one number or one a channel (123.7,116.3,103.5); of pixels of 0..1
        where mean and std are all at most 1.
    std
        Images: pixels are divided by this after the mean is subtracted.
    layout
        Images: axis order the model takes.
    resize
        Images: HEIGHTxWIDTH or one number; the model's own size unless given.
    samples
        Use at most this many samples, drawn evenly.
    seed
        Of everything that is drawn at random.
    threads
        CPU threads; 0 takes what the libraries choose.
    clean
        Run the lossless `clean` pass first.
    guard
        Undo a pass that made the model larger, slower or, by its own choice, too different.
    min_agreement
        Undo every pass that takes the agreement with the original below this share (0.98).
    budget
        Limits the result must keep, such as size=4MB,latency=0.6x,macs=50%,agreement=99%,kl=0.01. A result that
        misses one is written all the same; the exit status is then 3.
    check
        Run the artifact beside the original and time both.
    dump
        Folder that receives the text of the graph after every pass.
    traceback
        Show the Python traceback of an error.
    report
        File that receives the report, in the form its extension names: .json, .md, or .xml (JUnit). May be given
        several times.
    json_
        Print the report as JSON and nothing else.
    verbose
        Show every layer.
    quiet
        Print only errors.

    Examples
    --------
        optc model.onnx --data samples.npz
        optc model.onnx --passes svd:ratio=0.5,quant --data images/ -o small.onnx
        optc model.onnx --budget size=30%,agreement=99% --report report.json
    """
    from contextlib import nullcontext

    from rich.console import Console

    from ..compiler import Data, Interrupted, compile
    from ..passes.observers import Dump, Observer, Reproduce
    from ..report.files import write
    from ..report.progress import PassLines, TerminalProgress
    from ..report.terminal import show

    errors = Console(stderr=True)
    observers: list[Observer] = [Reproduce()]
    if dump is not None:
        observers.append(Dump(dump))
    loud = not quiet and not json_
    if loud and not errors.is_terminal:
        observers.append(PassLines(errors))
    out = output if output is not None else _beside(model)
    check_apart(out, "-o", {"--data": data})
    wanted = reports(report or [], {"MODEL": model, "-o": out, "--data": data})
    given = Data(data, numbers(mean, "--mean"), numbers(std, "--std"), layout, image_size(resize), samples)
    stopped: Interrupted | None = None
    with TerminalProgress(errors) if loud else nullcontext() as progress:
        try:
            build = compile(
                model,
                passes,
                target=target,
                output=out,
                data=given,
                seed=seed,
                threads=threads,
                clean=clean,
                guard=guard,
                min_agreement=min_agreement,
                budget=budget,
                check=check,
                observers=observers,
                progress=progress,
            )
        except Interrupted as stop:
            build, stopped = stop.build, stop
    for path in wanted:
        write(build.report, path)
    if stopped is not None:
        raise stopped
    if json_:
        sys.stdout.write(build.report.to_json())
    elif loud:
        show(build.report, console(), layers=verbose)
    return tell(build.report.budget)


def _beside(model: str) -> str:
    stem = model.split(":")[1] if model.startswith("zoo:") else os.path.splitext(model)[0]
    return f"{stem}.optc.onnx"
