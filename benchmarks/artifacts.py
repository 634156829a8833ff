"""Whether two states of the code make the same bytes: the SHA-256 of the artifacts of a fixed list of builds.

    python benchmarks/artifacts.py LIST [--models MODELS] [--only WORD ...]

The first run writes LIST, a lock file: what each build came to, and what the clock decided in it. A run that finds LIST
there takes those decisions, builds everything again, prints each build that came out otherwise, and ends with 1 where
there was one. So a change that is meant to move code only is proven on the list of the state before it.

The builds are the small networks of the zoo by every option of every pass, and one of every operator family for the
targets that generate code. The guard is off: what it undoes would not be seen. MODELS is a folder of further models,
for which inputs are made up. `--only` takes the builds whose name holds all of the words.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import optc
from optc.compiler import read
from optc.errors import OptcError
from optc.ir.types import TensorType
from optc.project.lock import Lock

NETWORKS = ("digits_resnet", "digits_dscnn", "digits_transformer", "digits_mobilenet_v3")
PASSES = (
    "prune",
    "prune:ratio=0.6",
    "prune:ratio=0.6:scope=global",
    "prune:ratio=0.8:store=sparse",
    "prune:error=0.01",
    "prune:kind=nm",
    "prune:kind=nm:n=1:m=4",
    "prune:kind=channels",
    "prune:kind=channels:ratio=0.3",
    "prune:kind=channels:ratio=0.3:scope=layer:align=4",
    "prune:kind=channels:ratio=0.3:groups=all:of=params",
    "svd",
    "svd:ratio=0.5",
    "svd:ratio=0.5:scope=global",
    "svd:ratio=0.6:form=channel:align=2",
    "svd:ratio=0.6:form=spatial",
    "svd:ratio=0.6:form=tucker",
    "svd:error=0.02",
    "depthwise",
    "depthwise:rank=1",
    "depthwise:rank=2:form=dw-pw",
    "depthwise:rank=2:form=pw-dw",
    "depthwise:error=0.1",
    "svd,depthwise",
    "quant",
    "quant:activations=int8",
    "quant:activations=int16",
    "quant:activations=dynamic",
    "quant:activations=none",
    "quant:activations=int8:weights=int4",
    "quant:activations=int8:weights=int3",
    "quant:activations=int8:weights=int2",
    "quant:activations=int8:weights=codebook",
    "quant:weights=auto",
    "quant:weights=auto:size=0.2",
    "quant:activations=dynamic:weights=int4",
    "quant:activations=none:weights=int4",
    "quant:activations=none:weights=int4:block=16",
    "quant:activations=int8:weights=int4:block=16",
    "quant:weights=float16",
    "quant:weights=bfloat16",
    "quant:range=minmax",
    "quant:range=percentile:percentile=99.9",
    "quant:range=entropy",
    "quant:per_channel=false",
    "quant:symmetric=true",
    "quant:bias_correction=false",
    "quant:slower=int8",
    "quant,quant:requantize=redo:weights=int4",
    "prune,svd,quant",
    "prune:kind=channels:ratio=0.3,svd:ratio=0.7,depthwise,quant:weights=int4",
)
GENERATED = ("host", "arm64", "opencl")


@dataclass(frozen=True, slots=True)
class Build:
    """One build of the list: the model, what runs over it, and the target."""

    model: str
    passes: str
    target: str = "onnx"

    @property
    def name(self) -> str:
        return f"{Path(self.model).stem} {self.passes} @{self.target}"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """One sample at a time: what a target for GPUs wants to be told."""
        inputs = read(self.model).inputs if self.target == "opencl" else ()
        types = {value.name: value.type for value in inputs}
        return {
            name: tuple(size if isinstance(size, int) else 1 for size in kind.shape or ())
            for name, kind in types.items()
            if isinstance(kind, TensorType)
        }


def builds(models: Path | None) -> Iterator[Build]:
    for network in NETWORKS:
        for passes in PASSES:
            yield Build(f"zoo:{network}", passes)
    for network in NETWORKS:
        for target in GENERATED:
            for passes in ("clean", "quant"):
                yield Build(f"zoo:{network}", passes, target)
    for path in sorted(models.glob("*.onnx")) if models is not None else ():
        for passes in ("clean", "prune:ratio=0.5", "svd:ratio=0.7", "quant", "quant:activations=dynamic:weights=int4"):
            yield Build(str(path), passes)


def run(build: Build, lock: Lock, folder: str) -> dict[str, str]:
    """The digests of the files that `build` came to, or the error that it ended with."""
    before = lock.builds.get(build.name)
    try:
        with tempfile.TemporaryDirectory(dir=folder) as out:
            name = "result.onnx" if build.target == "onnx" else "result"
            report = optc.compile(
                build.model,
                build.passes,
                target=build.target,
                output=os.path.join(out, name),
                shapes=build.shapes,
                threads=1,
                guard=False,
                check=False,
                lock=None if before is None else replace(before, strict=False),
            ).report
    except OptcError as error:
        return {"error": str(error)}
    if before is None:
        lock.keep(build.name, report)
    return dict(report.outputs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", help="the lock file that holds the list")
    parser.add_argument("--models", type=Path, help="a folder of further models")
    parser.add_argument("--only", nargs="*", default=(), help="words of the names of the builds to run")
    arguments = parser.parse_args()
    os.environ.setdefault("OPTC_CPU", "x86-64-v3")  # the same code is generated on every machine
    lock = Lock.read(arguments.list)
    chosen = [one for one in builds(arguments.models) if all(word in one.name for word in arguments.only)]
    differing = 0
    with tempfile.TemporaryDirectory() as folder:
        for build in chosen:
            expected = lock.builds.get(build.name)
            outputs = run(build, lock, folder)
            if expected is not None and dict(expected.outputs) != outputs:
                differing += 1
                print(f"differs: {build.name}: {outputs}", flush=True)
            elif expected is None:
                print(f"{' '.join(digest[:16] for digest in outputs.values())}  {build.name}", flush=True)
    print(f"{len(chosen)} builds, {differing} differ")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
