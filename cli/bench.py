"""`optc bench MODEL [MODEL…]`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from .console import PLAINLY, Voice
from .flags import READING, OptionValues, takes
from .values import thread_counts


@takes(*READING, data="Samples, as for compiling; the first ones are run. Without it inputs are made up.")
def bench(
    model: str,
    /,
    *models: str,
    options: OptionValues,
    threads: str = "1,0",
    batch: Annotated[int, Parameter(validator=Number(gte=1))] = 1,
    seconds: Annotated[float, Parameter(validator=Number(gt=0, lte=3600))] = 5.0,
    seed: Annotated[int, Parameter(validator=Number(gte=0, lte=2**31 - 1))] = 0,
    voice: Voice = PLAINLY,
) -> int:
    """Time models in turns in one process, so that a busy machine slows all of them alike.

    Parameters
    ----------
    model
        An ONNX file, zoo:NAME, or a compiled library.
    models
        More of them, with the same inputs; ratios are to the first.
    threads
        Numbers of CPU threads to time with, parted by commas; 0 is all cores.
    batch
        Samples a run.
    seconds
        How long to measure at most, for each number of threads; it ends sooner where the ratios have settled.
    seed
        Of inputs that are made up.

    Examples
    --------
        optc bench model.onnx small.onnx
        optc bench model.onnx small.onnx --threads 1,2,4 --seconds 10
        optc bench model.onnx --batch 8 --data samples.npz --json
    """
    from ..gate import bench as timed
    from ..report.timings import as_dict, render

    counts = thread_counts(threads)
    with voice.progress() as progress:
        found = timed(
            (model, *models),
            data=options.data,
            fixed=options.fixed,
            threads=counts,
            batch=batch,
            seconds=seconds,
            seed=seed,
            progress=progress,
        )
    voice.say(as_dict(found), render(found))
    return 0
