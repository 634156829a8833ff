"""Measure quant on the kit against ONNX Runtime's own static quantizer: agreement, file ratio, speed.

    python benchmarks/quant.py KIT [MODEL ...] [--samples N]

Calibrates on the kit's `calib` split, judges on its `test` split. KIT is the folder with MANIFEST.md. Speed is the CPU
time of the float model over that of the integer one, batch 1, one thread, interleaved in this process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from optc.ir.reader import load
from optc.ir.shapes import infer
from optc.ir.writer import save
from optc.passes.base import Context
from optc.passes.clean import Clean
from optc.passes.quant import Quant
from optc.runtime.samples import Samples, load_samples
from optc.targets.onnx import OnnxTarget


class Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, samples: Samples) -> None:
        self._batches = samples.batches(1)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def ours(model: Path, samples: Samples, out: Path) -> None:
    graph = load(model)
    infer(graph)
    ctx = Context(OnnxTarget().facts, fit=samples, held=samples, threads=1)
    Clean().run(graph, ctx)
    infer(graph, fresh=True)
    ctx.teacher = graph.clone()
    one = Quant()
    one.requires(graph, ctx)
    one.run(graph, ctx)
    graph.sort()
    save(graph, out)


def theirs(model: Path, samples: Samples, out: Path) -> None:
    prepared = out.with_suffix(".prepared.onnx")
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared), str(out), Reader(samples), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, reduce_range=OnnxTarget().facts.saturating_int8,
    )  # fmt: skip


def speed(first: Path, second: Path, samples: Samples, seconds: float = 3.0) -> float:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    sessions = [ort.InferenceSession(str(p), options, providers=["CPUExecutionProvider"]) for p in (first, second)]
    feeds = next(samples.batches(1))
    rows: list[list[float]] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rows) < 5:
        row = []
        for session in sessions:
            start = time.process_time()
            session.run(None, feeds)
            row.append(time.process_time() - start)
        rows.append(row)
    times = np.asarray(rows[2:] or rows)
    return float(np.median(times[:, 0] / times[:, 1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kit", type=Path)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--samples", type=int, default=128)
    given = parser.parse_args()
    names = given.models or [p.stem for p in sorted((given.kit / "models").glob("*.onnx"))]
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            model, data = given.kit / "models" / f"{name}.onnx", Path(folder) / f"{name}.npz"
            subprocess.run([sys.executable, given.kit / "feeds.py", name, data], check=True, stdout=subprocess.DEVNULL)
            samples = load_samples(data, load(model)).take(given.samples)
            for who, make in (("optc", ours), ("onnxruntime", theirs)):
                out = Path(folder) / f"{name}.{who}.onnx"
                start = time.perf_counter()
                try:
                    make(model, samples, out)
                except Exception as error:  # a peer's failure is a row of the table
                    if who == "optc":
                        raise
                    print(f"{name:18} {who:12} failed: {type(error).__name__}")
                    continue
                seconds = time.perf_counter() - start
                command = [sys.executable, given.kit / "eval.py", out, "--as", name, "--ref", model, "--threads", "1"]
                found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                wanted = ("top1", "ref_top1", "spearman", "speech_agree", "f1_vs_ref", "agree", "kl", "sqnr_db")
                shown = " ".join(f"{key}={found[key]}" for key in wanted if key in found)
                ratio = out.stat().st_size / model.stat().st_size
                x = speed(model, out, samples)
                print(f"{name:18} {who:12} file {ratio:.3f} x {x:.2f} in {seconds:5.1f} s  {shown}", flush=True)


if __name__ == "__main__":
    main()
