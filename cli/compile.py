"""`optc MODEL`: compile it."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from .chosen import choose
from .console import OUTPUT, PLAINLY, Voice, console, heard, tell
from .values import cache_place, check_apart, command_text, image_size, numbers, reports

_DATA = Group("Samples", sort_key=1)
_RUN = Group("Run", sort_key=2)
_DEVICE = Group("Tuning and devices", sort_key=3)
_AGAIN = Group("Builds that repeat", sort_key=4)


def compile_model(
    model: str,
    /,
    *,
    weights: str | None = None,
    passes: str | None = None,
    target: str | None = None,
    output: Annotated[str | None, Parameter(name=["--output", "-o"])] = None,
    data: Annotated[str | None, Parameter(group=_DATA)] = None,
    mean: Annotated[str | None, Parameter(group=_DATA)] = None,
    std: Annotated[str | None, Parameter(group=_DATA)] = None,
    layout: Annotated[Literal["auto", "NCHW", "NHWC"] | None, Parameter(group=_DATA)] = None,
    resize: Annotated[str | None, Parameter(group=_DATA)] = None,
    samples: Annotated[int | None, Parameter(group=_DATA, validator=Number(gte=1))] = None,
    shape: Annotated[list[str] | None, Parameter(group=_RUN, negative=())] = None,
    freeze: Annotated[bool | None, Parameter(group=_RUN)] = None,
    keep: Annotated[list[str] | None, Parameter(group=_RUN, negative=())] = None,
    seed: Annotated[int | None, Parameter(group=_RUN, validator=Number(gte=0, lte=2**31 - 1))] = None,
    threads: Annotated[int | None, Parameter(group=_RUN, validator=Number(gte=0, lte=1024))] = None,
    clean: Annotated[bool | None, Parameter(group=_RUN)] = None,
    guard: Annotated[bool | None, Parameter(group=_RUN)] = None,
    min_agreement: Annotated[float | None, Parameter(group=_RUN, validator=Number(gte=0, lte=1))] = None,
    budget: Annotated[str | None, Parameter(group=_RUN)] = None,
    check: Annotated[bool | None, Parameter(group=_RUN)] = None,
    latency_table: Annotated[str | None, Parameter(group=_RUN)] = None,
    tune: Annotated[str | None, Parameter(group=_DEVICE)] = None,
    tune_records: Annotated[str | None, Parameter(group=_DEVICE)] = None,
    rpc: Annotated[str | None, Parameter(group=_DEVICE)] = None,
    tracker: Annotated[str | None, Parameter(group=_DEVICE)] = None,
    key: Annotated[str | None, Parameter(group=_DEVICE)] = None,
    dump: Annotated[str | None, Parameter(group=_RUN)] = None,
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

    Parameters
    ----------
    model
        An ONNX file, or zoo:NAME for a model that ships or an architecture (see `optc zoo`).
    weights
        Trained weights for an architecture of the zoo: a PyTorch state dict, safetensors, .npz, or Keras's .h5.
    passes
        Passes and their options: prune,svd:ratio=0.5,quant (see `optc passes`), or file.py:function over an
        onnx-graphsurgeon graph; prune,svd,quant unless given. `clean` runs first unless --no-clean.
    target
        What the model is built for (see `optc targets`); onnx unless given. Several are parted by commas:
        onnx,arm64,armv7.
    output
        File to write; beside MODEL as NAME.optc.onnx unless given. For several targets, a folder.
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
    shape
        Sizes of an input that the model leaves open, as input=1x3x224x224; may be given several times.
    freeze
        Make constants of inputs that have defaults, such as weights that were exported as inputs.
    keep
        Leave layers whose names fit this pattern as they are; may be given several times.
    seed
        Of everything that is drawn at random; 0 unless given.
    threads
        CPU threads; 0, unless given, takes what the libraries choose.
    clean
        Run the lossless `clean` pass first (yes, unless --no-clean).
    guard
        Undo a pass that made the model larger, slower or, by its own choice, too different (yes, unless --no-guard).
    min_agreement
        Undo every pass that takes the agreement with the original below this share (0.98).
    budget
        Limits the result must keep, such as size=4MB,latency=0.6x,macs=50%,agreement=99%,kl=0.01. A result that
        misses one is written all the same; the exit status is then 3.
    check
        Run the artifact beside the original and time both (yes, unless --no-check).
    latency_table
        Latencies measured on the target (see `optc profile`), taken instead of measuring here.
    tune
        Measure the library's kernels for this long (90s, 10m, 1h) and take the fastest.
    tune_records
        File of what was measured for tuning, in the cache unless given; without --tune it is only read.
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
        File that receives the report, in the form its extension names: .json, .md, .xml (JUnit), or .html (a page to
        look at; needs optc[html]). May be given several times. For several targets, a file for each: NAME.TARGET.json.

    Examples
    --------
        optc model.onnx --data samples.npz
        optc model.onnx --passes svd:ratio=0.5,quant --data images/ -o small.onnx
        optc model.onnx --target onnx,arm64 --shape input=1x3x224x224 -o out
        optc model.onnx --budget size=30%,agreement=99% --report report.json
    """
    typed = command_text(compile_model, locals())
    from contextlib import nullcontext

    from ..compiler import Interrupted, check_place, parse_shapes
    from ..passes.observers import Dump, Observer, Reproduce
    from ..report.build import together
    from ..report.files import PAGE, extension, write
    from ..report.page import write as write_page
    from ..report.progress import PassLines
    from ..report.terminal import beside, show
    from ..storage.store import Store
    from ..targets.tuning import duration
    from .run import device

    errors = console(stderr=True)
    observers: list[Observer] = [Reproduce()]
    if dump is not None:
        observers.append(Dump(dump))
    if voice.loud and not voice.verbose and not errors.is_terminal:  # the log tells more
        observers.append(PassLines(errors))
    given = {
        "passes": passes,
        "data": data,
        "mean": None if mean is None else numbers(mean, "--mean"),
        "std": None if std is None else numbers(std, "--std"),
        "layout": layout,
        "resize": image_size(resize),
        "samples": samples,
        "seed": seed,
        "threads": threads,
        "clean": clean,
        "guard": guard,
        "min_agreement": min_agreement,
        "budget": budget,
        "check": check,
        "shapes": parse_shapes(shape) if shape else None,
        "freeze": freeze,
        "latency_table": latency_table,
        "tune": None if tune is None else duration(tune),
        "tune_records": tune_records,
    }
    if weights is not None:
        model = f"{model}:weights={weights}"
    there = device(rpc, tracker, key)
    chosen = choose(model, config, given, keep or (), target, output)
    model, out, data = chosen.model, chosen.output, chosen.options.data
    check_apart(out, "-o", {"--data": data, "--config": chosen.config})
    for flag, path in (("--lock", lock), ("--depfile", depfile)):
        if path is not None:
            check_apart(path, flag, {"MODEL": model, "-o": out, "--data": data, "--config": chosen.config})
            check_place(path, flag)
    record = chosen.record(lock, strict=locked)
    files = [chosen.reports(path) for path in report or []]
    wanted = reports([path for one in files for path in one], {"MODEL": model, "-o": out, "--data": data}, page=True)
    pages = [path for path in wanted if extension(path, page=True) == PAGE]
    place = cache_place(cache, no_cache)
    stopped: Interrupted | None = None
    with voice.progress() as progress:
        observers += [] if progress is None else [progress]
        try:
            build = chosen.options.compile(
                model,
                target=chosen.target,
                output=out,
                device=there,
                cache=place,
                lock=chosen.locked(record, strict=locked),
                trail=bool(pages),
                observers=observers,
                progress=progress,
            )
        except Interrupted as stop:
            build, stopped = stop.build, stop
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(str(stop) or "interrupted; no output was written") from None
        try:
            todo = [(one, path) for paths in files for one, path in zip(build.each, paths)]
            for one, path in todo:
                if path not in pages:
                    write(one.report, path)
            for one, path in todo if stopped is None else ():  # a page takes its time, and who interrupts has none
                if path in pages:
                    with nullcontext() if progress is None else progress.task("page"):
                        write_page(one, path, typed, None if place is None else Store(place))
        except KeyboardInterrupt:
            raise stopped or KeyboardInterrupt(f"interrupted; {out} is written, not all of the reports are") from None
    if stopped is not None:
        raise stopped
    if record is not None and not locked:
        for one in build.each:
            record.keep(chosen.name(one.report.target), one.report)
    if depfile is not None:
        chosen.depend(depfile, build)
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
