"""Instructions that a library for 64-bit ARM executes in one run, counted under emulation.

    python benchmarks/instructions.py KIT QUANTIZED [MODEL …] [--target arm64:dotprod=true]

KIT is the folder of real models, QUANTIZED one of quantized models of the same names. Each is built for the target; the
emulator notes every block of instructions when it translates it, and each time that it is executed. The instructions of
three runs less those of one, halved, are those of a run. Answers are compared with ONNX Runtime's, node by node.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from optc.compiler import read
from optc.passes.base import Context
from optc.passes.pipeline import Pipeline
from optc.passes.runner import run
from optc.runtime.session import Session
from optc.targets import table
from optc.targets.tvm.artifact import folder as artifact

MODELS = ("cifar_resnet20", "kws_dscnn", "mobilenetv2", "squeezenet11", "face_rfb320")
_EXECUTED = re.compile(rb"Trace \d+: \S+ \[[0-9a-f]+/([0-9a-f]+)/")
_TRANSLATED = re.compile(rb"^0x([0-9a-f]+):")


def executed(command: list[str], folder: str) -> int:
    """Guest instructions of a program that is run in `folder`."""
    emulator = [command[0], "-d", "in_asm,exec,nochain", "-D", "/dev/stderr", *command[1:]]
    process = subprocess.Popen(emulator, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    total, sizes, start = 0, {}, b""
    for line in process.stderr:
        if match := _EXECUTED.match(line):
            total += sizes[match[1].lstrip(b"0")]
        elif match := _TRANSLATED.match(line):
            start = start or match[1].lstrip(b"0")
            sizes[start] = sizes.get(start, 0) + 1
        elif line.startswith(b"IN:"):
            start = b""
    if process.wait():
        raise SystemExit(f"{command} failed")
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kit", type=Path)
    parser.add_argument("quantized", type=Path)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--target", default="arm64:dotprod=true")
    arguments = parser.parse_args()
    target: Any = table.parse(arguments.target)[0]
    machine = target.machine()
    for name in arguments.models:
        counts, within = [], 0.0
        for source in (arguments.kit / "models" / f"{name}.onnx", arguments.quantized / f"{name}.onnx"):
            with tempfile.TemporaryDirectory() as folder:
                graph = read(str(source))
                reference = Session(graph, threads=1, optimise=False)
                passes = (*Pipeline.parse("clean").passes, *target.legalisation().passes)
                run(Pipeline(passes), graph, Context(target.facts))
                target.emit(graph, f"{folder}/a.tar")
                artifact.unpack(f"{folder}/a.tar", folder)
                build = [machine.compiler, "-std=c++17", "-O2", "runner.cc", "./model.so", "-o", "runner"]
                subprocess.run(build, cwd=folder, check=True)
                subprocess.run(
                    [sys.executable, str(arguments.kit / "feeds.py"), name, f"{folder}/d.npz", "--split", "calib"],
                    check=True, capture_output=True,
                )  # fmt: skip
                with np.load(f"{folder}/d.npz") as arrays:
                    feeds = {key: arrays[key][:1] for key in arrays.files}
                names = []
                for i, value in enumerate(graph.inputs):
                    names.append(f"{folder}/in{i}.npy")
                    np.save(names[-1], feeds[value.name])
                os.environ["QEMU_SET_ENV"] = f"LD_LIBRARY_PATH={folder}"
                command = [*machine.emulator, f"{folder}/runner", "--out", folder]
                one, three = (executed([*command, "--repeat", str(n), *names], folder) for n in (1, 3))
                counts.append((three - one) // 2)
                off = [
                    np.abs(np.load(f"{folder}/{i}.npy") - want) / (np.ptp(want) / 255)
                    for i, want in enumerate(reference.run(feeds))
                ]
                within = float(np.mean(np.concatenate([one.ravel() for one in off]) <= 1))
        print(
            f"{name:16} float {counts[0]:12,} int8 {counts[1]:12,} instructions, ratio {counts[1] / counts[0]:.3f}; "
            f"{within:.2%} of int8's answer within 1/255 of its range",
            flush=True,
        )


if __name__ == "__main__":
    main()
