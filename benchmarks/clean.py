"""How far `clean` and its peers reduce a model, how long they take, and whether the answers stay.

    python benchmarks/clean.py [--models FOLDER ...] [--json FILE]

Models: every light_* model of the onnx package, and every .onnx file of the folders given. Peers, where installed
(`pip install optc[bench]`): onnxslim, onnxsim, onnxoptimizer with all its fusing and eliminating passes, and ONNX
Runtime's basic level written offline. All get a ModelProto and return one, in this process, one after the other.

Nodes are counted in the model that comes out, bodies included, Constant nodes included. Those that only make constants
(Constant, ConstantOfShape of a constant ...) are told apart as `+made`: a runtime runs them once, when it loads the
model. A peer that writes them out as weights has none, and a file as large as the weights. `ulp` is the greatest
difference between the outputs of the original and of the result, both on ONNX Runtime with its optimisations off, in
units of the last place at the scale of the output.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from equivalence import distance, feeds

from optc.ir.onnx.reader import from_proto
from optc.ir.onnx.writer import to_proto
from optc.passes.base import Context, TargetFacts
from optc.passes.clean import Clean

Tool = Callable[[onnx.ModelProto], onnx.ModelProto]
REPEATS = 3


def optc(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = from_proto(model)
    Clean().run(graph, Context(TargetFacts("onnx")))
    return to_proto(graph)


def onnxslim(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxslim

    slim: onnx.ModelProto = onnxslim.slim(model)
    return slim


def onnxsim(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxsim

    simplified: onnx.ModelProto = onnxsim.simplify(model)[0]
    return simplified


def onnxoptimizer(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxoptimizer

    passes = onnxoptimizer.get_fuse_and_elimination_passes()
    optimised: onnx.ModelProto = onnxoptimizer.optimize(model, passes, fixed_point=True)
    return optimised


def onnxruntime_basic(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = os.path.join(folder, "out.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


PEERS: dict[str, Tool] = {
    "onnxslim": onnxslim,
    "onnxsim": onnxsim,
    "onnxoptimizer": onnxoptimizer,
    "onnxruntime": onnxruntime_basic,
}


def counts(graph: onnx.GraphProto, outer: frozenset[str] = frozenset()) -> tuple[int, int]:
    """Nodes that depend on an input, and nodes that only make constants, bodies included."""
    constant = set(outer) | {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    computing = making = 0
    for node in graph.node:
        bodies = [a.g for a in node.attribute if a.HasField("g")] + [g for a in node.attribute for g in a.graphs]
        fixed = not bodies and not node.op_type.startswith("Random") and all(not i or i in constant for i in node.input)
        computing, making = (computing, making + 1) if fixed else (computing + 1, making)
        constant.update(node.output if fixed else ())
        for body in bodies:
            inner = counts(body, frozenset(constant))
            computing, making = computing + inner[0], making + inner[1]
    return computing, making


def models(folders: list[Path]) -> Iterator[tuple[str, onnx.ModelProto]]:
    light = Path(os.path.dirname(onnx.backend.test.__file__)) / "data" / "light"
    for path in (
        *sorted(light.glob("light_*.onnx")),
        *(p for folder in folders for p in sorted(folder.glob("*.onnx"))),
    ):
        yield path.stem, onnx.load(path)


def measure(tool: Tool, model: onnx.ModelProto, repeats: int) -> tuple[onnx.ModelProto | None, float, str]:
    """The result of the fastest of some runs, its seconds, and what went wrong."""
    best, result = float("inf"), None
    for _ in range(repeats):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        gc.collect()
        start = time.perf_counter()
        try:
            result = tool(copy)
        except Exception as error:
            return None, time.perf_counter() - start, f"{type(error).__name__}: {error}"
        best = min(best, time.perf_counter() - start)
        if best > 1:
            break
    return result, best, ""


def difference(model: onnx.ModelProto, result: onnx.ModelProto) -> float:
    """The greatest difference in ulp over three seeds."""
    from corpus import outputs

    graph = from_proto(model)
    worst = 0.0
    for seed in range(3):
        inputs = feeds(graph, seed, size=3, dims={"T": 17})
        before, after = outputs([model, result], inputs)
        worst = max(worst, distance(before, after))
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, nargs="*", default=[], help="folders with more models")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    arguments = parser.parse_args()
    tools = {"optc": optc}
    for name, tool in PEERS.items():
        try:
            __import__(name)
        except ImportError:
            print(f"{name} is not installed: left out")
            continue
        tools[name] = tool
    from optc.ir.text.parse import parse

    small = to_proto(parse("opset 17\ngraph g(x: float[N]) -> (y: float[N]) { a = Identity(x)\n y = Relu(a) }"))
    for tool in tools.values():  # imports and first calls are not what is measured
        measure(tool, small, 1)
    print(f"{'model':20} {'tool':14} {'nodes':>6} {'+made':>6} {'bytes':>11} {'seconds':>8} {'ulp':>6}")
    rows: dict[str, dict[str, dict[str, float]]] = {}
    worse, slower = [], []
    for name, model in models(arguments.models):
        row = rows[name] = {}
        computing, making = counts(model.graph)
        row["original"] = {"nodes": computing, "made": making, "bytes": model.ByteSize()}
        print(f"{name:20} {'':14} {computing:6} {making:6} {model.ByteSize():11}")
        for tool_name, tool in tools.items():
            result, seconds, fault = measure(tool, model, REPEATS)
            if result is None:
                print(f"{'':20} {tool_name:14} {fault[:70]}")
                continue
            computing, making = counts(result.graph)
            far = difference(model, result) if tool_name == "optc" else np.nan
            figures = {"nodes": computing, "made": making, "bytes": result.ByteSize(), "seconds": round(seconds, 4)}
            row[tool_name] = figures | ({} if np.isnan(far) else {"ulp": round(far, 2)})
            ulp = "" if np.isnan(far) else f"{far:.2f}"
            print(
                f"{'':20} {tool_name:14} {computing:6} {making:6} {result.ByteSize():11} {seconds:8.3f} {ulp:>6}",
                flush=True,
            )
        ours = row["optc"]
        lowest = min((r["nodes"] for n, r in row.items() if n not in ("optc", "original")), default=ours["nodes"])
        if ours["nodes"] > lowest or ours["bytes"] > row["original"]["bytes"]:
            worse.append(name)
        if "onnxslim" in row and ours["seconds"] > row["onnxslim"]["seconds"]:
            slower.append(name)
    print(f"more nodes than the lowest peer, or a larger file than before: {', '.join(worse) or 'none'}")
    print(f"slower than onnxslim: {', '.join(slower) or 'none'}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if worse or slower else 0


if __name__ == "__main__":
    raise SystemExit(main())
