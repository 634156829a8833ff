"""`optc run ARTIFACT`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from .console import PLAINLY, Voice


def run_artifact(
    artifact: str,
    /,
    *,
    data: str,
    against: str | None = None,
    samples: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    threads: Annotated[int, Parameter(validator=Number(gte=0, lte=1024))] = 0,
    voice: Voice = PLAINLY,
) -> int:
    """Run a compiled ARTIFACT on samples, here or under an emulator, and time it.

    Parameters
    ----------
    artifact
        What `optc` wrote: a folder or .tar with a library, or an ONNX file.
    data
        Samples: an .npz, input name -> array, samples first.
    against
        The model to agree with: an ONNX file, or zoo:NAME.
    samples
        Use at most this many samples, drawn evenly.
    threads
        CPU threads; 0 takes one for each core.

    Examples
    --------
        optc run model.optc.host --data samples.npz
        optc run model.optc.arm64 --data samples.npz --against model.onnx
    """
    import numpy as np

    from ..compiler import read
    from ..errors import DataError, TargetError
    from ..ir.graph import Graph
    from ..ir.types import DType, TensorType
    from ..runtime.agreement import agreement
    from ..runtime.latency import latency
    from ..runtime.samples import load_samples
    from ..runtime.session import Session
    from ..targets import table
    from ..targets.tvm import artifact as library
    from ..targets.tvm.run import Emulated, Library

    opened = table.parse(library.target_of(artifact) or "onnx")[0].open(artifact, threads=threads)
    reference = None if against is None else Session(read(against), threads=threads)
    if isinstance(opened, Library | Emulated):
        graph = Graph(artifact)
        for port in opened.inputs:
            graph.add_input(port.name, TensorType(DType.of(np.dtype(port.dtype)), port.shape))
    elif isinstance(opened, Session):
        graph = opened.graph
    else:
        raise TargetError(f"{artifact} cannot be run on samples")
    found = load_samples(data, graph if reference is None else reference.graph)
    found = found if samples is None else found.take(samples)
    if not found.count:
        raise DataError(f"{data} holds no samples")
    figures: dict[str, object] = {"artifact": artifact, "emulated": opened.emulated}
    if reference is not None:
        answers = agreement(reference, opened, found, batch=1 if opened.emulated else 32)
        figures |= {"samples": answers.samples, "agreement": answers.share, "sqnr_db": answers.sqnr_db}
    feeds = next(found.batches(1))
    figures["outputs"] = [f"{one.dtype.name}{list(one.shape)}" for one in opened.run(feeds)]
    if not opened.emulated:
        timed = latency([opened] if reference is None else [reference, opened], feeds)
        figures["milliseconds"] = 1e3 * timed[-1].seconds
        if reference is not None:
            figures["ratio"] = timed[-1].ratio
    voice.say(figures, "\n".join(f"{key:<12} {value}" for key, value in figures.items()))
    return 0
