"""`optc profile MODEL [MODEL…]`: a table of latencies."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from .console import PLAINLY, Voice
from .flags import READING, OptionValues, takes


@takes(*READING, data="Samples, as for compiling; without it inputs are made up.")
def profile(
    model: str,
    /,
    *models: str,
    options: OptionValues,
    output: Annotated[str, Parameter(name=["--output", "-o"])],
    target: str = "onnx",
    rpc: str | None = None,
    tracker: str | None = None,
    key: str | None = None,
    adb: str | None = None,
    ssh: str | None = None,
    threads: Annotated[int, Parameter(validator=Number(gte=0, lte=1024))] = 1,
    seed: Annotated[int, Parameter(validator=Number(gte=0, lte=2**31 - 1))] = 0,
    voice: Voice = PLAINLY,
) -> int:
    """Measure the layers of models on a target once, for --latency-table.

    Parameters
    ----------
    model
        An ONNX file, or zoo:NAME.
    models
        More of them, such as a quantized form of the first: the table then knows both kinds of layers.
    output
        File that receives the table.
    target
        What is measured (see `optc targets`).
    rpc
        HOST:PORT of a device that runs TVM's RPC server.
    tracker
        HOST:PORT of TVM's RPC tracker that has such devices.
    key
        Kind of device to ask the tracker for.
    adb
        Serial number of a device on the Android debug bridge, or `any` for the only one.
    ssh
        Host of a device over ssh.
    threads
        CPU threads; 0 takes one for each core.
    seed
        Of inputs that are made up.

    Examples
    --------
        optc profile model.onnx small.onnx -o here.json
        optc profile model.onnx --target arm64 --rpc 192.168.1.20:9090 -o phone.json
        optc profile model.onnx small.onnx --target arm64 --adb any -o phone.json
    """
    import math

    from ..compiler import check_place
    from ..compiler.profiling import profile as measured
    from ..storage.atomic import Replacement
    from ..targets import table
    from .run import device

    there = device(rpc, tracker, key, adb, ssh)
    check_place(output)
    aim = table.one(target)
    with voice.progress() as progress:
        measurement = measured(
            (model, *models),
            aim,
            data=options.data,
            fixed_sizes=options.fixed,
            seed=seed,
            threads=threads,
            device=there,
            progress=progress,
        )
    with Replacement(output) as files:
        files.open().write(measurement.to_json().encode())
    median, most = measurement.unseen()
    error = None if math.isnan(median) else {"median": median, "most": most}
    unseen = "unknown" if error is None else f"{100 * median:.0f} % (nine in ten below {100 * most:.0f} %)"
    voice.say(
        {"table": output, "layers": len(measurement.rows), "unseen_error": error},
        f"{len(measurement.rows)} layers measured; error on layers left out of the cost model: {unseen}\n"
        f"wrote {output}",
    )
    return 0
