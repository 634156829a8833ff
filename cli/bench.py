"""`optc bench MODEL [MODEL…]`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from .console import PLAINLY, Voice
from .flags import READING, OptionValues, takes
from .run import device
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
    adb: str | None = None,
    ssh: str | None = None,
    runs: Annotated[int, Parameter(validator=Number(gte=4, lte=100000))] = 200,
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
    adb
        Serial number of a device on the Android debug bridge, or `any` for the only one: libraries and a runner are
        pushed there, run and timed, and their answers held against a MODEL that is none.
    ssh
        Host to do so over ssh.
    runs
        Runs of each library on a device.
    seed
        Of inputs that are made up.

    Examples
    --------
        optc bench model.onnx small.onnx
        optc bench model.onnx small.onnx --threads 1,2,4 --seconds 10
        optc bench model.onnx --batch 8 --data samples.npz --json
        optc bench model.onnx model.arm64.tar --adb any --data samples.npz
    """
    from ..gate import bench as timed
    from ..gate import bench_on
    from ..report import on_device
    from ..report.timings import as_dict, render

    counts = thread_counts(threads)
    there = device(None, None, None, adb, ssh)
    if there is not None:
        with voice.progress() as progress:
            rows = bench_on(
                (model, *models),
                there,
                data=options.data,
                fixed=options.fixed,
                threads=counts[0],
                runs=runs,
                seed=seed,
                progress=progress,
            )
        voice.say(on_device.as_dict(rows), on_device.render(rows))
        return 0
    with voice.progress() as progress:
        report = timed(
            (model, *models),
            data=options.data,
            fixed=options.fixed,
            threads=counts,
            batch=batch,
            seconds=seconds,
            seed=seed,
            progress=progress,
        )
    voice.say(as_dict(report), render(report))
    return 0
