"""`optc MODEL`: compile it."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import Annotated

from cyclopts import Parameter

from ..compiler.options import AGAIN, DEVICE, RUN
from ..errors import SpecError
from .chosen import choose
from .console import OUTPUT, PLAINLY, Voice, console, heard, on_terminal, out, tell
from .flags import GROUPS, READING, OptionValues, takes
from .search import DEFAULT_TIME, STRATEGY, refuse, searches
from .search import run as search
from .values import cache_place, check_apart, command_text, reports

_COMPILED = (
    "passes",
    "target",
    "output",
    *READING,
    "student",
    "freeze",
    "seed",
    "threads",
    "provider",
    "clean",
    "guard",
    "min_agreement",
    "budget",
    "check",
    "latency_table",
    "tune",
    "tune_records",
)
_AGAIN, _DEVICE, _RUN = GROUPS[AGAIN], GROUPS[DEVICE], GROUPS[RUN]


@takes(*_COMPILED)
def compile_model(
    model: str,
    /,
    *,
    options: OptionValues,
    weights: str | None = None,
    keep: Annotated[list[str] | None, Parameter(group=_RUN, negative=())] = None,
    dump: Annotated[str | None, Parameter(group=_RUN)] = None,
    rpc: Annotated[str | None, Parameter(group=_DEVICE)] = None,
    tracker: Annotated[str | None, Parameter(group=_DEVICE)] = None,
    key: Annotated[str | None, Parameter(group=_DEVICE)] = None,
    config: Annotated[str | None, Parameter(group=_AGAIN)] = None,
    cache: Annotated[str | None, Parameter(group=_AGAIN, negative=())] = None,
    no_cache: Annotated[bool, Parameter(name="--no-cache", group=_AGAIN, negative=())] = False,
    lock: Annotated[str | None, Parameter(group=_AGAIN)] = None,
    locked: Annotated[bool, Parameter(group=_AGAIN, negative=())] = False,
    depfile: Annotated[str | None, Parameter(group=_AGAIN)] = None,
    report: Annotated[list[str] | None, Parameter(group=OUTPUT, negative=())] = None,
    voice: Voice = PLAINLY,
) -> int:
    """Compile MODEL: run the passes, write the result, run it beside the original, report.

    Where a budget is given and no passes, or --passes auto, the passes and their options are searched for (see `optc
    search`), for five minutes.

    Parameters
    ----------
    model
        An ONNX file, or zoo:NAME for a model that ships or an architecture (see `optc zoo`).
    weights
        Trained weights for an architecture of the zoo: a PyTorch state dict, safetensors, .npz, or Keras's .h5.
    keep
        Leave layers whose names fit this pattern as they are; may be given several times.
    rpc
        HOST:PORT of a device that runs TVM's RPC server: the library is tuned, checked and timed there.
    tracker
        HOST:PORT of TVM's RPC tracker that has such devices.
    key
        Kind of device to ask the tracker for.
    dump
        Folder that receives the text of the graph after every pass.
    config
        Configuration whose options for MODEL hold where the command line gives none; optc.toml beside MODEL unless
        given (see `optc init`).
    cache
        Folder of finished passes and builds; that of OPTC_CACHE, or one in the user's cache, unless given.
    no_cache
        Neither use nor fill the cache.
    lock
        File that records hashes, versions and measurements; of an earlier build the measurements are taken.
    locked
        Fail where anything differs from the lock file, and leave that file as it is.
    depfile
        File that receives, for Make and Ninja, what the result depends on.
    report
        File that receives the report, in the form its extension names: .json, .md, .xml (JUnit), .html (a page to look
        at; needs optc[html]), or .onnx (the result with its figures in metadata_props, for viewers). May be given
        several times. For several targets, a file for each: NAME.TARGET.json.

    Examples
    --------
        optc model.onnx --data samples.npz
        optc model.onnx --passes svd:ratio=0.5,quant --data images/ -o small.onnx
        optc model.onnx --target onnx,arm64 --shape input=1x3x224x224 -o out
        optc model.onnx --passes quant --budget size=30% --report report.json
        optc model.onnx --data samples.npz --budget size=10%,agreement=98%
    """
    typed = command_text(compile_model, {**locals(), **options.words})
    from contextlib import nullcontext

    from ..compiler import Interrupted, check_place, compile_with
    from ..passes.observers import Dump, Observer, Reproduce
    from ..report.files import ANNOTATED, PAGE, WHOLE, extension, write
    from ..report.pass_lines import PassLines
    from .run import device

    observers: list[Observer] = [Reproduce()]
    if dump is not None:
        observers.append(Dump(dump))
    if voice.loud and not voice.verbose and not on_terminal(sys.stderr):  # the log tells more
        observers.append(PassLines(partial(out, error=True)))
    if weights is not None:
        if not model.startswith("zoo:"):
            raise SpecError(f"--weights fills an architecture of the zoo, zoo:NAME, not a model file like '{model}'")
        model = f"{model}:weights={weights}"
    there = device(rpc, tracker, key)
    chosen = choose(model, config, options.values, keep or ())
    if searches(chosen, options):
        typed_apart = {"--rpc": rpc, "--tracker": tracker, "--key": key, "--dump": dump, "--lock": lock}
        refuse({**typed_apart, "--locked": locked or None, "--depfile": depfile}, options)
        return search(chosen, DEFAULT_TIME, STRATEGY, None, cache_place(cache, no_cache), report or [], voice)
    model, output, data = chosen.model, chosen.output, chosen.options.data_path
    check_apart(output, "-o", {"--data": data, "--config": chosen.config})
    for flag, path in (("--lock", lock), ("--depfile", depfile)):
        if path is not None:
            check_apart(path, flag, {"MODEL": model, "-o": output, "--data": data, "--config": chosen.config})
            check_place(path, flag)
    record = chosen.record(lock, strict=locked)
    files = [chosen.reports(path) for path in report or []]
    wanted = reports(
        [path for one in files for path in one], {"MODEL": model, "-o": output, "--data": data}, whole=WHOLE
    )
    form = {path: extension(path, WHOLE) for path in wanted}
    place = cache_place(cache, no_cache)
    stopped: Interrupted | None = None
    with voice.progress() as progress:
        observers += [] if progress is None else [progress]
        try:
            whole = replace(
                chosen.options,
                target=chosen.target,
                output=output,
                device=there,
                cache=place,
                lock=chosen.locked(record, strict=locked),
                trail=PAGE in form.values(),
                observers=observers,
                progress=progress,
            )
            build = compile_with(model, whole, forks=True)
        except Interrupted as stop:
            build, stopped = stop.build, stop
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(str(stop) or "interrupted; no output was written") from None
        try:
            todo = [(one, path) for paths in files for one, path in zip(build.each, paths)]
            for one, path in todo:
                if form[path] == ANNOTATED:
                    from ..report.annotated import write as write_annotated

                    write_annotated(one, path)
                elif form[path] not in WHOLE:
                    write(one.report, path)
            for one, path in todo if stopped is None else ():  # a page takes its time, and who interrupts has none
                if form[path] == PAGE:
                    from ..report.page import write as write_page
                    from ..storage.store import Store

                    with nullcontext() if progress is None else progress.task("page"):
                        write_page(one, path, typed, None if place is None else Store(place))
        except KeyboardInterrupt:
            raise stopped or KeyboardInterrupt(
                f"interrupted; {output} is written, not all of the reports are"
            ) from None
    if stopped is not None:
        raise stopped
    if record is not None and not locked:
        for one in build.each:
            record.keep(chosen.name(one.report.target), one.report)
    if depfile is not None:
        chosen.depend(depfile, build)
    from ..report.build import together
    from ..report.terminal import beside, show

    with heard():
        if voice.json:
            sys.stdout.write(
                build.report.to_json() if not build.others else together([one.report for one in build.each])
            )
        elif voice.loud:
            for one in build.each:
                show(one.report, console(), layers=voice.verbose)
            if build.others:
                beside(build.report, console())
    return max(tell(one.report.budget) for one in build.each)
