"""`optc run ARTIFACT`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from .console import PLAINLY, Voice
from .flags import READING, OptionValues, takes
from .values import check_apart

if TYPE_CHECKING:
    from ..ir.graph import Graph
    from ..runtime.samples import Samples
    from ..targets.tuning import Device

_RUNS = 20
"""Runs on a device of which the fastest counts."""


@takes(*READING)
def run_artifact(
    artifact: str,
    /,
    *,
    options: OptionValues,
    against: str | None = None,
    rpc: str | None = None,
    tracker: str | None = None,
    key: str | None = None,
    adb: str | None = None,
    ssh: str | None = None,
    threads: Annotated[int, Parameter(validator=Number(gte=0, lte=1024))] = 0,
    save: str | None = None,
    voice: Voice = PLAINLY,
) -> int:
    """Run a compiled ARTIFACT on samples, here, under an emulator or on a device, and time it.

    Parameters
    ----------
    artifact
        What `optc` wrote: a folder or .tar with a library, or an ONNX file.
    against
        The model to agree with: an ONNX file, or zoo:NAME.
    rpc
        HOST:PORT of a device that runs TVM's RPC server; the library runs there, and is timed there.
    tracker
        HOST:PORT of TVM's RPC tracker that has such devices.
    key
        Kind of device to ask the tracker for.
    adb
        Serial number of a device on the Android debug bridge, or `any` for the only one: the library and a runner are
        pushed there, run and timed.
    ssh
        Host to do so over ssh.
    threads
        CPU threads; 0 takes one for each core.
    save
        File that receives what it answers to all samples: an .npz, output name -> array, samples first.

    Examples
    --------
        optc run model.optc.host --data samples.npz
        optc run model.optc.arm64 --data samples.npz --against model.onnx
        optc run model.optc.arm64 --data samples.npz --save answers.npz
        optc run model.optc.arm64 --data samples.npz --rpc 192.168.1.20:9090
        optc run model.optc.arm64 --data samples.npz --adb any --against model.onnx
    """
    from ..compiler import check_place, in_batches, narrowed, opened, read
    from ..compiler.artifact import OnDevice
    from ..compiler.data import draw
    from ..errors import DataError
    from ..gate import judged_on
    from ..runtime.agreement import agreement
    from ..runtime.agreement_text import whole_text
    from ..runtime.answers import save_answers
    from ..runtime.latency import latency
    from ..runtime.session import Session

    data = options.get("data")
    if save is not None:
        check_apart(save, "--save", {"ARTIFACT": artifact, "--data": data, "--against": against})
        check_place(save, "--save")
    there = device(rpc, tracker, key, adb, ssh)
    one, graph = opened(artifact, threads=threads, device=there)
    reference = None if against is None else Session(read(against), threads=threads)
    fed = graph.clone() if reference is None else narrowed(reference.graph, [graph])
    options.fixed.apply(fed)
    samples = in_batches(draw(artifact, options.data, fed, 0), one)
    if not samples.count:
        raise DataError(f"{data} holds no samples")
    figures: dict[str, object] = {"artifact": artifact, "emulated": one.emulated}
    if reference is not None:
        alone = one.emulated or _fixed(graph, samples)
        answers = agreement(reference, one, samples, batch=1 if alone else 32)
        share = None if math.isnan(answers.share) else answers.share
        figures |= {"samples": answers.samples, "agreement": share, "measure": answers.measure}
        figures |= {"sqnr_db": answers.sqnr_db, "agreement_text": whole_text(answers)}
    feeds = next(samples.batches(1))
    if there is not None and isinstance(one, OnDevice):
        outputs, seconds = one.timed(feeds, _RUNS)
        figures |= {"device": there.name, "milliseconds": 1e3 * seconds}
    else:
        outputs = one.run(feeds)
        if not one.emulated:
            timed = latency([one] if reference is None else [reference, one], feeds)
            figures["milliseconds"] = 1e3 * timed[-1].seconds
            figures |= {} if reference is None else {"ratio": timed[-1].ratio}
    figures["outputs"] = [f"{array.dtype.name}{list(array.shape)}" for array in outputs]
    if save is not None:
        save_answers(save, one, [output.name for output in graph.outputs], samples)
        figures["saved"] = save
    notes = judged_on(samples) + ([] if reference is None else answers.remarks)
    figures["notes"] = notes
    voice.say(figures, _lines(figures, notes))
    return 0


def _fixed(graph: Graph, samples: Samples) -> bool:
    """Whether an input takes one number of samples only."""
    shapes = {value.name: value.shape for value in graph.inputs}
    counts = [shape[axis] for name, axis in samples.axes.items() if axis is not None and (shape := shapes.get(name))]
    return any(isinstance(count, int) for count in counts)


def _lines(figures: dict[str, object], notes: Sequence[str]) -> str:
    """The figures as a person reads them."""
    shown = {
        "sqnr_db": lambda db: "" if db is None else f"{db:.1f} dB",
        "milliseconds": lambda time: f"{time:.3g}",
        "ratio": lambda ratio: f"{ratio:.2f} of the time of the model it is held against",
        "emulated": lambda yes: "yes" if yes else "no",
        "outputs": ", ".join,
    }
    hidden = {"notes", *(("agreement", "measure", "samples") if "agreement_text" in figures else ())}
    names = {"sqnr_db": "SQNR", "agreement_text": "agreement"}
    rows = {names.get(key, key): shown.get(key, str)(value) for key, value in figures.items() if key not in hidden}
    return "\n".join([*(f"{key:<12} {value}" for key, value in rows.items() if value), *(f"note: {n}" for n in notes)])


def device(
    rpc: str | None, tracker: str | None, key: str | None, adb: str | None = None, ssh: str | None = None
) -> Device | None:
    """The device that is asked for, if any. Raises `SpecError`."""
    from ..errors import SpecError
    from ..targets.tuning import Device

    if (tracker is None) != (key is None) or (tracker is not None and rpc is not None):
        raise SpecError("a device is named by --rpc HOST:PORT, or by --tracker HOST:PORT with --key")
    ways = {"--rpc": rpc, "--tracker": tracker, "--adb": adb, "--ssh": ssh}
    if sum(one is not None for one in ways.values()) > 1:
        raise SpecError(f"a device is named once: by one of {', '.join(ways)}")
    if adb is not None:
        return Device(adb, by="adb")
    if ssh is not None:
        return Device(ssh, by="ssh")
    where = rpc or tracker
    return None if where is None else Device(where, key or "")
