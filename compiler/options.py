"""Every option of a compilation, declared once: `optc.compile`, the command line and `optc.toml` are made of this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..errors import ModelError, OutputError, SpecError
from .arguments import (
    check_budget,
    check_data,
    check_device,
    check_lock,
    check_observers,
    check_overrides,
    check_passes,
    check_progress,
    check_provider,
    check_target,
)
from .fixed_sizes import Fixed
from .option import (
    DIMS,
    DURATION,
    FLAG,
    SHAPES,
    SHARE,
    SIZE,
    checked,
    choice,
    declared,
    items,
    only_python,
    option,
    path,
    per_channel,
    whole,
)

if TYPE_CHECKING:
    import os

    from ..passes.base import Override, Pass, Progress
    from ..passes.observers import Observer
    from ..passes.pipeline import Pipeline
    from ..report.budget import Budget
    from ..runtime.samples import Samples, Source
    from ..targets.base import Target
    from ..targets.tuning import Device
    from .data import Data
    from .fixed_sizes import Shapes
    from .locked import Locked

Passes: TypeAlias = "str | Pipeline | Pass | Sequence[str | Pass]"
Path: TypeAlias = "str | os.PathLike[str]"

SAMPLES, RUN, DEVICE, AGAIN = "Samples", "Run", "Tuning and devices", "Builds that repeat"
"""Groups of options, as the help shows them; those of no group come first."""

HOW_READ = ("mean", "std", "layout", "resize", "samples")
"""Options that say how samples are read."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one compilation."""

    passes: Passes = option(
        "prune,svd,quant",
        items(check_passes),
        "Passes and their options: prune,svd:ratio=0.5,quant (see `optc passes`), or file.py:function over an "
        "onnx-graphsurgeon graph; prune,svd,quant unless given. `clean` runs first unless --no-clean.",
    )
    _: KW_ONLY
    target: str | Target | Sequence[str | Target] = option(
        "onnx",
        items(check_target),
        "What the model is built for (see `optc targets`); onnx unless given. Several are parted by commas: "
        "onnx,arm64,armv7.",
        configured=False,
    )
    output: Path | None = option(
        None,
        path(OutputError),
        "File to write; beside MODEL as NAME.optc.onnx unless given. For several targets, a folder.",
        configured=False,
    )
    data: Data | Samples | Source | None = option(
        None,
        checked(check_data, path=True),
        "Samples, unlabeled: an .npz (input name -> array), a folder of .npy or of images, or a folder of ONNX "
        "test_data_set_*. Without it inputs are made up, and the report says so.",
        group=SAMPLES,
    )
    mean: float | Sequence[float] | None = option(
        None,
        per_channel(),
        "Images: subtracted from pixels of 0..255, one number or one a channel (123.7,116.3,103.5); of pixels of 0..1 "
        "where mean and std are all at most 1.",
        group=SAMPLES,
    )
    std: float | Sequence[float] | None = option(
        None,
        per_channel(positive=True),
        "Images: pixels are divided by this after the mean is subtracted.",
        group=SAMPLES,
    )
    layout: Literal["auto", "NCHW", "NHWC"] = option(
        "auto", choice("auto", "NCHW", "NHWC"), "Images: axis order the model takes.", group=SAMPLES
    )
    resize: int | tuple[int, int] | None = option(
        None, SIZE, "Images: HEIGHTxWIDTH or one number; the model's own size unless given.", group=SAMPLES
    )
    samples: int | None = option(
        None,
        whole(1, optional=True),
        "Use at most this many samples, drawn evenly.",
        group=SAMPLES,
        example="512",
    )
    shapes: Shapes | None = option(
        None,
        SHAPES,
        "Sizes of an input that the model leaves open, as input=1x3x224x224; may be given several times.",
        group=RUN,
        flag="shape",
        shared=False,
    )
    dims: Mapping[str, int] | None = option(
        None,
        DIMS,
        "Size that a name in the model's inputs stands for, NAME=SIZE, as T=48; may be given several times.",
        group=RUN,
        flag="dim",
        shared=False,
    )
    student: Path | None = option(
        None,
        path(ModelError),
        "Another model, trained or not, that MODEL teaches with the pass `distill`: a file, or of the zoo, as "
        "zoo:mobilenet_v3_small:classes=10. It is what passes change and what is written.",
        group=RUN,
        example='"student.onnx"',
    )
    freeze: bool = option(
        False,
        FLAG,
        "Make constants of inputs that have defaults, such as weights that were exported as inputs.",
        group=RUN,
        example="false",
    )
    seed: int = option(0, whole(0), "Of everything that is drawn at random; 0 unless given.", group=RUN, example="0")
    threads: int = option(
        0,
        whole(0, 1024),
        "CPU threads; 0, unless given, takes what the libraries choose.",
        group=RUN,
        example="0",
    )
    provider: str = option(
        "cpu",
        checked(check_provider),
        "Execution provider of ONNX Runtime that `distill` trains on, of those that are installed: cuda, dml, coreml "
        "...; cpu unless given.",
        group=RUN,
        example='"cuda"',
    )
    clean: bool = option(
        True, FLAG, "Run the lossless `clean` pass first (yes, unless --no-clean).", group=RUN, example="true"
    )
    guard: bool = option(
        True,
        FLAG,
        "Undo a pass that made the model larger, slower or, by its own choice, too different (yes, unless --no-guard).",
        group=RUN,
        example="true",
    )
    min_agreement: float | None = option(
        None,
        SHARE,
        "Undo every pass that takes the agreement with the original below this share (0.98).",
        group=RUN,
        example="0.95",
    )
    budget: str | Budget | None = option(
        None,
        checked(check_budget),
        "Limits the result must keep, such as size=4MB,latency=0.6x,macs=50%,agreement=99%,kl=0.01. A result that "
        "misses one is written all the same; the exit status is then 3.",
        group=RUN,
    )
    check: bool = option(
        True,
        FLAG,
        "Run the artifact beside the original and time both (yes, unless --no-check).",
        group=RUN,
        example="true",
    )
    latency_table: Path | None = option(
        None,
        path(),
        "Latencies measured on the target (see `optc profile`), taken instead of measuring here.",
        group=RUN,
    )
    tune: float | None = option(
        None,
        DURATION,
        "Measure the library's kernels for this long (90s, 10m, 1h) and take the fastest.",
        group=DEVICE,
    )
    tune_records: Path | None = option(
        None,
        path(),
        "File of what was measured for tuning, in the cache unless given; without --tune it is only read.",
        group=DEVICE,
    )
    device: Device | None = option(
        None,
        only_python(check_device),
        "A device over RPC, on which kernels are measured and the result is checked and timed.",
        flag="",
    )
    overrides: Sequence[Override] = option(
        (), only_python(check_overrides), "Keep single layers as they are, or give them options of their own.", flag=""
    )
    trail: bool = option(
        False, only_python(FLAG.check), "Measure the agreement after every lossy pass as well.", flag=""
    )
    cache: Path | None = option(
        None,
        only_python(path().check),
        "A folder in which finished passes and builds are kept, so that what has not changed is not run again.",
        flag="",
    )
    lock: Locked | Mapping[str, Locked] | None = option(
        None,
        only_python(check_lock),
        "The record of an earlier build (or records by the text of the target), whose measurements are taken, and "
        "which a strict one must equal.",
        flag="",
    )
    observers: Sequence[Observer] = option((), only_python(check_observers), "See every pass run.", flag="")
    progress: Progress | None = option(None, only_python(check_progress), "Is told how far the build is.", flag="")

    def check_values(self) -> None:
        """Raises an `OptcError` that names the first option which is of no kind that it takes."""
        for name, one in declared(Options).items():
            one.kind.check(name, getattr(self, name))

    @property
    def data_path(self) -> str | None:
        """The file or folder that samples are read from, if any."""
        return self.data if isinstance(self.data, str) else None

    @property
    def fixed(self) -> Fixed:
        """The sizes that are to be fixed."""
        return Fixed(self.shapes or {}, self.dims or {})

    @property
    def source(self) -> Data | Samples:
        """`data` with how it is read. Raises `SpecError` where that is said of samples that are read already."""
        from ..runtime.samples import Samples
        from .data import Data

        said: dict[str, Any] = {name: getattr(self, name) for name in HOW_READ}
        said = {name: value for name, value in said.items() if value != getattr(_DEFAULTS, name)}
        if isinstance(self.data, Data | Samples):
            if said:
                raise SpecError(f"'{next(iter(said))}' belongs into 'data', which says itself how samples are read")
            return self.data
        if "samples" in said:
            said["limit"] = said.pop("samples")
        return Data(self.data, **said)


_DEFAULTS = Options()
