"""`optc diff A B`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from .console import MISSED, OUTPUT, PLAINLY, Voice, as_json, heard
from .flags import READING, OptionValues, takes
from .values import reports

if TYPE_CHECKING:
    from ..report.diff import Diff


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
    report: Annotated[list[str] | None, Parameter(group=OUTPUT, negative=())] = None,
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
    report
        File that receives the comparison: .html (both graphs side by side, aligned; needs optc[html]) or .json. May be
        given several times.
    threads
        CPU threads; 0 takes what the libraries choose.
    seed
        Of inputs that are made up.

    Examples
    --------
        optc diff model.onnx small.onnx
        optc diff model.onnx small.onnx --data samples.npz --top 5
        optc diff model.onnx small.onnx --no-run --json
        optc diff model.onnx small.onnx --report diff.html
        optc diff model.onnx copy.onnx --no-run --exit-code --quiet
    """
    from ..gate import contrast
    from ..report.diff import as_dict, render

    wanted = _places(report or [], {"FIRST": first, "SECOND": second, "--data": options.get("data")})
    with voice.progress() as progress:
        difference = contrast(
            first,
            second,
            data=options.data,
            run=run,
            fixed=options.fixed,
            seed=seed,
            threads=threads,
            progress=progress,
        )
    for path in wanted:
        _write(difference, first, second, options, path)
    with heard():
        voice.say(as_dict(difference), render(difference, len(difference.changes) if voice.verbose else top))
    return MISSED if exit_code and difference.differs else 0


def _places(paths: list[str], others: dict[str, str | None]) -> list[str]:
    """The files that receive the comparison, each of a form that it has. Raises `SpecError`, `OutputError`."""
    from ..errors import SpecError
    from ..report.files import PAGE

    for path in reports(paths, others, whole=(PAGE,)):
        if not path.lower().endswith((".html", ".json")):
            raise SpecError(f"{path}: a comparison is written by its extension, one of .html, .json")
    return paths


def _write(difference: Diff, first: str, second: str, options: OptionValues, path: str) -> None:
    """Write the comparison in the form that the extension names."""
    from ..compiler import read
    from ..report.diff import as_dict
    from ..report.page import compare
    from ..storage.atomic import write_text

    if path.lower().endswith(".html"):
        graphs = [read(model) for model in (first, second)]
        for number, graph in enumerate(graphs):
            options.fixed.apply(graph, strict=not number)
        compare.write(graphs[0], graphs[1], difference, path)
        return
    write_text(path, f"{as_json(as_dict(difference), indent=2)}\n")
