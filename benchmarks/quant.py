"""Measure quant on the kit against ONNX Runtime's own quantizer; `peers.py` holds it against other tools.

    python benchmarks/quant.py KIT [--models NAME ...] [--samples N] [--ours SPEC ...] [--files DIR] [--quick] [--cost]

Everybody calibrates on the kit's `calib` split and is judged on its `test` split. KIT is the folder with MANIFEST.md.
x is the time of the float model over that of the integer one: batch 1, one thread, all candidates of a model in turns
in this process, CPU time. `kernels` counts the integer ones in the graph as ONNX Runtime has optimised it, `islands`
the float operators between them. With `--files` the quantized models stay in a folder, and those that are there are
judged and timed, not made again. `--quick` takes 32 samples and 200 test inputs: it shows that everything runs, not
how well. `--cost` measures time and memory instead, each in a process of its own: quant against ONNX Runtime's min-max
and entropy on one model, and quant with 64 and with all samples.

ONNX Runtime's entropy and percentile hold all activations of all samples in memory, 62 MB an image of mobilenetv2; on
models of large inputs they get `HELD` samples.
"""

from __future__ import annotations

# isort: off
import optc  # noqa: F401  before numpy, as the command does it: its BLAS then knows not to wait by spinning

# isort: on
import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort

from optc.compiler import Data, compile
from optc.ir.onnx.reader import load
from optc.runtime.islands import is_integer, islands, optimised
from optc.runtime.samples import Samples
from optc.runtime.sources import load_samples
from optc.targets.onnx import OnnxTarget

NARROW = "quant:weights=int4"
OURS = {
    "cifar_resnet20": ("quant", NARROW, "quant:weights=int3"),
    "mobilenetv2": ("quant", "quant:per-channel=false", NARROW),
    "squeezenet11": ("quant", NARROW),
    "kws_dscnn": ("quant", NARROW),
    "minilm_l6": ("quant", "quant:activations=dynamic", "quant:weights=int4:activations=none"),
}
THEIRS = ("ort-minmax", "ort-entropy", "ort-percentile")
HELD = 32
LARGE = 1 << 16
"""Numbers of one sample from which `HELD` holds."""
METRICS = ("top1", "ref_top1", "spearman", "speech_agree", "f1_vs_ref", "agree", "kl", "sqnr_db")


def make(who: str, model: Path, data: Path, count: int, out: Path, threads: int = 1) -> None:
    """Quantize `model` with at most `count` samples of `data`, as `who` does it, into `out`; `threads` are ours, which
    times are measured with, too. The others take all cores."""
    if who.startswith("ort-"):
        samples = load_samples(data, load(model))
        sizes = sum(array.size for array in next(samples.batches(1)).values())
        holds = sizes > LARGE and who in ("ort-entropy", "ort-percentile")
        _runtime(who.removeprefix("ort-"), model, samples.take(min(count, HELD) if holds else count), out)
    else:
        compile(model, who, data=Data(data, limit=count), output=out, threads=threads, check=False)


def _runtime(method: str, model: Path, samples: Samples, out: Path) -> None:
    from onnxruntime import quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches: Iterator[dict[str, np.ndarray]] = samples.batches(1)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._batches, None)

    prepared = out.with_suffix(".prepared.onnx")
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    saturating = OnnxTarget().facts.saturating_int8
    if method == "dynamic":
        q.quantize_dynamic(prepared, out, weight_type=q.QuantType.QInt8, per_channel=True, reduce_range=saturating)
        return
    methods = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
    q.quantize_static(
        str(prepared), str(out), Reader(), quant_format=q.QuantFormat.QDQ, per_channel=True,
        activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8, reduce_range=saturating,
        calibrate_method=q.CalibrationMethod[methods[method]],
    )  # fmt: skip


def speeds(files: list[Path], samples: Samples, seconds: float = 6.0) -> list[float]:
    """The first file's time over that of each, in turns."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    sessions = [ort.InferenceSession(str(p), options, providers=["CPUExecutionProvider"]) for p in files]
    feeds = next(samples.batches(1))
    rows: list[list[float]] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rows) < 8:
        row = []
        for session in sessions:
            start = time.process_time()
            for _ in range(3):
                session.run(None, feeds)
            row.append(time.process_time() - start)
        rows.append(row)
    times = np.asarray(rows[2:])
    return [float(x) for x in np.median(times[:, :1] / times, axis=0)]


def kernels(out: Path) -> str:
    """How many integer kernels the runtime runs, and how many float operators between them."""
    graph = load(out)
    count = sum(is_integer(node.op_type) for node in optimised(graph).node)
    return f"kernels {count} islands {len(islands(graph))}"


def table(kit: Path, name: str, count: int, specs: tuple[str, ...], folder: Path, *, quick: bool) -> None:
    """Print a row for everybody on one model."""
    model, data = kit / "models" / f"{name}.onnx", folder / f"{name}.npz"
    _feeds(kit, name, data)
    everybody = [*specs, *THEIRS, *(("ort-dynamic",) if name == "minilm_l6" else ())]
    variants: list[tuple[str, Path, float]] = []
    for who in everybody:
        out, start = folder / f"{name}.{who.replace(':', '.')}.onnx", time.perf_counter()
        took = out.with_suffix(".seconds")
        if out.exists() and took.exists():
            variants.append((who, out, float(took.read_text())))
            continue
        try:
            make(who, model, data, count, out)
        except Exception as error:  # a peer's failure is a row of the table
            if who in specs:
                raise
            print(f"{name:18} {who:36} failed: {type(error).__name__}", flush=True)
            continue
        seconds = time.perf_counter() - start
        took.write_text(f"{seconds:.1f}")
        variants.append((who, out, seconds))
    samples = load_samples(data, load(model))
    factors = speeds([model, *(out for _, out, _ in variants)], samples, 0.5 if quick else 6.0)[1:]
    for (who, out, seconds), x in zip(variants, factors, strict=True):
        command = [sys.executable, kit / "eval.py", out, "--as", name, "--ref", model, "--threads", "1"]
        command += ["--limit", "200"] if quick else []
        figures = json.loads(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        )
        shown = " ".join(f"{key}={figures[key]}" for key in METRICS if key in figures)
        ratio = out.stat().st_size / model.stat().st_size
        print(f"{name:18} {who:36} file {ratio:.3f} x {x:.2f} {kernels(out)} {shown} in {seconds:.1f} s", flush=True)


def cost(kit: Path, folder: Path) -> None:
    """Time on mobilenetv2 with 256 samples; peak memory on cifar_resnet20 with 64 and with 1024."""
    rows = [("mobilenetv2", who, 256) for who in ("quant", "ort-minmax", "ort-entropy")]
    rows += [("cifar_resnet20", "quant", count) for count in (64, 1024)]
    for name, who, count in rows:
        model, data = kit / "models" / f"{name}.onnx", folder / f"{name}.npz"
        if not data.exists():
            _feeds(kit, name, data)
        out = folder / "cost.onnx"
        command = [sys.executable, __file__, str(kit), "--one", who, str(model), str(data), str(count), str(out)]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        figures = (
            process.stdout.splitlines()[-1] if not process.returncode else f"failed with status {process.returncode}"
        )
        print(f"{name:18} {who:14} {count:5} samples: {figures}", flush=True)


def one(who: str, model: str, data: str, count: str, out: str) -> None:
    """One quantization in this process; prints its CPU time and the peak memory."""
    start = time.perf_counter()
    make(who, Path(model), Path(data), int(count), Path(out), threads=0)
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime
    print(f"{time.perf_counter() - start:.1f} s, {cpu:.1f} s of CPU, peak {used.ru_maxrss / 1024:.0f} MiB")


def _feeds(kit: Path, name: str, data: Path) -> None:
    subprocess.run([sys.executable, kit / "feeds.py", name, data], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kit", type=Path)
    parser.add_argument("--models", nargs="*", default=[])
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--files", type=Path, help="where the models stay; those there are not made again")
    parser.add_argument("--quick", action="store_true", help="few samples and test inputs")
    parser.add_argument("--ours", action="append", help="passes to measure; may be given several times")
    parser.add_argument("--cost", action="store_true", help="measure time and memory instead")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(*arguments.one)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.files or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if arguments.cost:
            cost(arguments.kit, folder)
            return
        for name in arguments.models or [p.stem for p in sorted((arguments.kit / "models").glob("*.onnx"))]:
            specs = tuple(arguments.ours) if arguments.ours else OURS.get(name, ("quant",))
            table(
                arguments.kit, name, 32 if arguments.quick else arguments.samples, specs, folder, quick=arguments.quick
            )


if __name__ == "__main__":
    main()
