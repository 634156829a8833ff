"""The command line: argv to options to the compiler. The only place that prints, or decides an exit status."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, CycloptsError, Group, Parameter, UnusedCliTokensError
from cyclopts.validators import Number

from . import __version__
from .errors import OptcError, OutputError, SpecError

if TYPE_CHECKING:
    from rich.console import Console

_INTERRUPTED = 130

_DATA = Group("Samples", sort_key=1)
_RUN = Group("Run", sort_key=2)
_TELL = Group("Output", sort_key=3)

app = App(
    name="optc",
    version=__version__,
    version_flags=["--version"],
    help="Make a trained ONNX model smaller and faster, and show what was lost.\n\n"
    "optc model.onnx --passes prune,svd,quant --data samples.npz",
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)


@app.default
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
    check: Annotated[bool, Parameter(group=_RUN)] = True,
    dump: Annotated[str | None, Parameter(group=_RUN)] = None,
    traceback: Annotated[bool, Parameter(group=_RUN, negative=())] = False,
    report: Annotated[str | None, Parameter(group=_TELL)] = None,
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
    check
        Run the artifact beside the original and time both.
    dump
        Folder that receives the text of the graph after every pass.
    traceback
        Show the Python traceback of an error.
    report
        File that receives the report as JSON.
    json_
        Print the report as JSON and nothing else.
    verbose
        Show every layer.
    quiet
        Print only errors.
    """
    from contextlib import nullcontext

    from rich.console import Console

    from .compiler import Data, check_place, compile
    from .passes.observers import Dump, Observer, Reproduce
    from .report.progress import PassLines, TerminalProgress
    from .report.terminal import show

    errors = Console(stderr=True)
    observers: list[Observer] = [Reproduce()]
    if dump is not None:
        observers.append(Dump(dump))
    loud = not quiet and not json_
    if loud and not errors.is_terminal:
        observers.append(PassLines(errors))
    out = output if output is not None else _beside(model)
    _check_apart(out, "-o", {"--data": data})
    if report is not None:
        _check_apart(report, "--report", {"MODEL": model, "-o": out, "--data": data})
        check_place(report, "--report")
    given = Data(data, _numbers(mean, "--mean"), _numbers(std, "--std"), layout, _size(resize), samples)
    with TerminalProgress(errors) if loud else nullcontext() as progress:
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
            check=check,
            observers=observers,
            progress=progress,
        )
    document = build.report.to_json()
    if report is not None:
        from .ir.atomic import Replacement

        with Replacement(report) as files:
            # A file name that is no Unicode is spelled by JSON's own escapes.
            files.open().write(document.encode(errors="backslashreplace"))
    if json_:
        sys.stdout.write(document)
    elif loud:
        show(build.report, _console(), layers=verbose)
    return 0


@app.command
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
    """
    from .compiler import read

    graph = read(model)
    if text:
        print(graph)
        return 0
    from .report.inspect import as_dict, render, summary

    found = summary(graph, top=top, dims=_dims(dim or []))
    if json_:
        print(json.dumps(as_dict(found), indent=2, ensure_ascii=False))
    else:
        _console().print(render(found, title=model))
    return 0


@app.command
def passes(name: str | None = None, /, *, json_: Annotated[bool, Parameter(name="--json", negative=())] = False) -> int:
    """List the passes with their options and defaults.

    Parameters
    ----------
    name
        Only this pass.
    json_
        Print the list as JSON.
    """
    from .report import listing

    found = listing.passes(name)
    if json_:
        print(json.dumps(found, indent=2))
    else:
        _console().print(listing.render_passes(found))
    return 0


@app.command
def targets(*, json_: Annotated[bool, Parameter(name="--json", negative=())] = False) -> int:
    """List the targets and the facts that passes take from them.

    Parameters
    ----------
    json_
        Print the list as JSON.
    """
    from .report import listing

    found = listing.targets()
    if json_:
        print(json.dumps(found, indent=2))
    else:
        _console().print(listing.render_targets(found))
    return 0


@app.command
def zoo(*, json_: Annotated[bool, Parameter(name="--json", negative=())] = False) -> int:
    """List the models that ship; compile one with `optc zoo:NAME`.

    Parameters
    ----------
    json_
        Print the list as JSON.
    """
    from .report import listing

    found = listing.zoo()
    if json_:
        print(json.dumps(found, indent=2))
    else:
        _console().print(listing.render_zoo(found))
    return 0


def run(argv: Sequence[str]) -> int:
    """Run one command line and return the exit status.

    0 done, 1 a fault of ours, 2 the user's input, 3 a missed budget, 130 interrupted. What a user did wrong is one
    line on standard error; a traceback is shown only where `--traceback` asks for it.
    """
    # A caller may have closed them; what is said then goes nowhere.
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names in a model may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        status = app(argv, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except UnusedCliTokensError as error:
        rest = " ".join(error.unused_tokens or ())
        return _fail(f"one MODEL or command is taken at a time, and this is left over: {rest} (see optc --help)", 2)
    except CycloptsError as error:
        return _fail(_first_line(error), 2)
    except OptcError as error:
        if "--traceback" in argv:
            raise
        return _fail(str(error), error.exit_status)
    except KeyboardInterrupt:
        return _fail("interrupted; no output was written", _INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone, as `| head` does; that is no error, and there is nobody left to tell.
        _silence()
        return 0
    except MemoryError:
        return _fail("out of memory; use fewer samples (--samples) or a machine with more", 2)
    except Exception as error:
        if "--traceback" in argv:
            raise
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
            _silence()
            return _fail("standard output cannot be written: its disk is full", 2)
        where = "run again with --traceback and report what it shows"
        return _fail(f"internal error: {type(error).__name__}: {' '.join(str(error).split())}; {where}", 1)
    return status if isinstance(status, int) else 0


def _console() -> Console:
    """Standard output, at least 80 columns wide: a table in less would show no figure whole."""
    from rich.console import Console

    console = Console()
    console.width = max(80, console.width)
    return console


def _silence() -> None:
    """Let what standard output still holds go nowhere, or Python would complain on its way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, status: int) -> int:
    print(f"optc: {message}", file=sys.stderr)
    return status


def _first_line(error: CycloptsError) -> str:
    return " ".join(str(error).split())


def _beside(model: str) -> str:
    stem = model.split(":")[1] if model.startswith("zoo:") else os.path.splitext(model)[0]
    return f"{stem}.optc.onnx"


def _check_apart(path: str, flag: str, others: Mapping[str, str | None]) -> None:
    """Raises `OutputError` where `path` is a file that the same command reads or writes otherwise."""
    for other, name in others.items():
        if name and os.path.realpath(path) == os.path.realpath(name):
            raise OutputError(f"{flag} would overwrite {other}, which is {path} too; name another file")


def _numbers(text: str, flag: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(map(math.isfinite, numbers)) or (flag == "--std" and min(numbers) <= 0):
        kind = "positive numbers" if flag == "--std" else "numbers"
        raise SpecError(f"{flag} takes {kind} parted by commas, not '{text}'")
    return numbers


def _dims(texts: list[str]) -> dict[str, int]:
    try:
        pairs = [text.rsplit("=", 1) for text in texts]
        return {name: int(size) for name, size in pairs}
    except ValueError:
        raise SpecError(f"--dim takes NAME=SIZE, such as T=48, not '{' '.join(texts)}'") from None


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and (width or height).isdecimal() and int(height) and int(width or height)):
        raise SpecError(f"--resize takes HEIGHTxWIDTH, such as 224x224, not '{text}'")
    return int(height), int(width or height)
