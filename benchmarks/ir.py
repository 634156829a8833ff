"""What loading, editing and saving a graph cost, here and with the other libraries for ONNX graphs.

    python benchmarks/ir.py [--weights MIB] [--nodes COUNT] [--over GIB] [--repeats COUNT] [--folder FOLDER]

Models are generated in FOLDER (a temporary one by default; about 6 GB are needed). Every measurement runs in a process
of its own, which imports the library first. Times are the least of the repeats, memory the least of their peaks.
`anonymous` is memory of the process's own, `resident` also counts the pages of files that it has mapped; both are
above what the process had after the imports, but for `whole`, which is all that it ever had resident. They are read
from /proc/self/status, every millisecond while the work runs, so this needs Linux.

Peers, where installed (`pip install optc[bench]`): onnx-ir, onnx-graphsurgeon, and onnx itself.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

MIB = 1 << 20
LIBRARIES = {"optc": "optc", "onnx-ir": "onnx_ir", "onnx-graphsurgeon": "onnx_graphsurgeon", "onnx": "onnx"}


# -- models


def weighty(path: Path, mebibytes: int, *, external: bool) -> None:
    """A chain of dense layers of 4 MiB each, on one row of 1024."""
    import onnx
    from onnx import TensorProto, helper

    side = 1024
    noise = np.random.default_rng(0).standard_normal(side * side + 997, np.float32) / side
    nodes, weights = [], []
    with open(path.with_name(path.name + ".data"), "wb") if external else open(os.devnull, "wb") as data:
        for index in range(mebibytes // 4):
            raw = noise[index % 997 :][: side * side].tobytes()
            tensor = TensorProto(name=f"w{index}", data_type=TensorProto.FLOAT, dims=[side, side])
            if external:
                tensor.data_location = TensorProto.EXTERNAL
                place = {"location": path.name + ".data", "offset": data.tell(), "length": len(raw)}
                for key, value in place.items():
                    tensor.external_data.add(key=key, value=str(value))
                data.write(raw)
            else:
                tensor.raw_data = raw
            weights.append(tensor)
            nodes.append(helper.make_node("MatMul", [f"h{index}", f"w{index}"], [f"h{index + 1}"], f"layer{index}"))
    row = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, side]) for name in ("h0", f"h{len(nodes)}")]
    _save(helper.make_graph(nodes, "weighty", row[:1], row[1:], weights), path, onnx)


def long(path: Path, count: int) -> None:
    """A chain of elementwise nodes, every second one an Identity."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = [numpy_helper.from_array(np.float32([index]), f"w{index}") for index in range(100)]
    nodes = []
    for index in range(count):
        read, written, name = f"v{index}", f"v{index + 1}", f"n{index}"
        if index % 2:
            nodes.append(helper.make_node("Identity", [read], [written], name))
        elif index % 4:
            nodes.append(helper.make_node("LeakyRelu", [read], [written], name, alpha=0.1))
        else:
            nodes.append(helper.make_node("Add", [read, f"w{index % 100}"], [written], name))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("v0", f"v{count}")]
    _save(helper.make_graph(nodes, "long", ends[:1], ends[1:], weights), path, onnx)


def _save(graph: object, path: Path, onnx: object) -> None:
    from onnx import helper

    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    path.write_bytes(model.SerializeToString())


# -- what the libraries do: load, save, and bypass every Identity


def library_functions(library: str) -> tuple[Callable[[Path], object], Callable[[object, Path, bool], None]]:
    """How `library` loads a model and how it saves one, with external data or without."""
    if library == "optc":
        from optc.ir.onnx.reader import load
        from optc.ir.onnx.writer import save

        return load, lambda graph, path, external: save(graph, path, external=external)
    import onnx

    if library == "onnx":
        return onnx.load, lambda model, path, external: _onnx_save(model, path, external)
    if library == "onnx-ir":
        import onnx_ir

        return onnx_ir.load, lambda model, path, external: onnx_ir.save(
            model, path, external_data=path.name + ".data" if external else None
        )
    import onnx_graphsurgeon

    def load_surgeon(path: Path) -> object:
        return onnx_graphsurgeon.import_onnx(onnx.load(path))

    return load_surgeon, lambda graph, path, external: _onnx_save(onnx_graphsurgeon.export_onnx(graph), path, external)


def _onnx_save(model: object, path: Path, external: bool) -> None:
    import onnx

    onnx.save(model, path, save_as_external_data=external, location=path.name + ".data")


def bypass(library: str, graph: object) -> int:
    """Let the readers of every Identity read what it reads, and delete it. Returns how many there were."""
    count = 0
    if library == "optc":
        for node in graph:
            if node.op == "Identity":
                node.output.replace_uses(node.inputs[0])
                graph.remove(node)
                count += 1
    elif library == "onnx-ir":
        for node in graph.graph:
            if node.op_type == "Identity":
                node.outputs[0].replace_all_uses_with(node.inputs[0], replace_graph_outputs=True)
                graph.graph.remove(node, safe=True)
                count += 1
    elif library == "onnx-graphsurgeon":
        for node in graph.nodes:
            if node.op == "Identity":
                source, result = node.inputs[0], node.outputs[0]
                for reader in list(result.outputs):
                    reader.inputs[reader.inputs.index(result)] = source
                graph.outputs = [source if output is result else output for output in graph.outputs]
                node.inputs.clear()
                node.outputs.clear()
                count += 1
        graph.cleanup()
    return count


# -- measuring, in a process of its own


def _status() -> dict[str, int]:
    """Bytes, by the names of /proc/self/status."""
    with open("/proc/self/status") as file:
        lines = (line.split() for line in file)
        return {words[0].rstrip(":"): int(words[1]) << 10 for words in lines if words[-1] == "kB"}


class Memory:
    """Samples the memory of this process while the context lasts."""

    def __enter__(self) -> Memory:
        gc.collect()
        before = _status()
        self.anonymous_before, self.resident_before = before["RssAnon"], before["VmRSS"]
        self.anonymous = self.resident = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.001):
            self.sample()

    def sample(self) -> None:
        now = _status()
        self.anonymous = max(self.anonymous, now["RssAnon"] - self.anonymous_before)
        self.resident = max(self.resident, now["VmRSS"] - self.resident_before)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.sample()

    @property
    def figures(self) -> dict[str, float]:
        return {"anonymous": self.anonymous / MIB, "resident": self.resident / MIB, "whole": _status()["VmHWM"] / MIB}


def measure(task: str, library: str, path: Path) -> dict[str, float]:
    load, save = library_functions(library)
    if task == "load":
        with Memory() as memory:
            graph = load(path)
        del graph
        gc.collect()
        start = time.perf_counter()
        graph = load(path)
        seconds = time.perf_counter() - start
        del graph
        return {"ms": seconds * 1e3, **memory.figures}
    if task in ("save", "save external"):
        with Memory() as memory:
            start = time.perf_counter()
            save(load(path), path.with_name("saved.onnx"), task == "save external")
            seconds = time.perf_counter() - start
        return {"ms": seconds * 1e3, **memory.figures}
    if task == "edit":
        graph = load(path)
        gc.collect()
        start = time.perf_counter()
        count = bypass(library, graph)
        return {"ms": (time.perf_counter() - start) * 1e3, "count": count}
    assert task == "everything"
    return everything(path)


def everything(path: Path) -> dict[str, float]:
    """A model from file to file through `clean`, then both on ONNX Runtime."""
    import onnxruntime

    from optc.ir.onnx.reader import load
    from optc.ir.onnx.writer import save
    from optc.passes.base import Context, TargetFacts
    from optc.passes.clean import Clean

    saved = path.with_name("saved.onnx")
    with Memory() as memory:
        start = time.perf_counter()
        graph = load(path)
        Clean().run(graph, Context(TargetFacts("onnx")))
        save(graph, saved)
        seconds = time.perf_counter() - start
    figures = memory.figures
    x = np.random.default_rng(1).standard_normal((1, 1024), np.float32)
    answers = []
    for model in (path, saved):
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        answers.append(session.run(None, {"h0": x})[0])
        del session
    assert np.array_equal(*answers), "the saved model answers differently"
    return {"ms": seconds * 1e3, **figures}


# -- the table


def child(task: str, library: str, path: Path, repeats: int) -> dict[str, float] | None:
    """The least of each figure over some processes; `None` where the library is not installed or fails."""
    if find_spec(LIBRARIES[library]) is None:
        return None
    runs = []
    for _ in range(repeats):
        command = [sys.executable, __file__, "--measure", task, library, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        _remove(path.with_name("saved.onnx"))
        if done.returncode:
            print(f"{library}, {task}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            return None
        runs.append(json.loads(done.stdout))
    return {key: min(run[key] for run in runs) for key in runs[0]}


def _remove(path: Path) -> None:
    for file in (path, path.with_name(path.name + ".data")):
        file.unlink(missing_ok=True)


def rows(folder: Path, options: argparse.Namespace) -> Iterator[tuple[str, str, dict[str, float] | None]]:
    path = folder / "model.onnx"
    for external in (True, False):
        weighty(path, options.weights, external=external)
        where = f"{options.weights} MiB {'external' if external else 'inline'}"
        for library in LIBRARIES:
            yield f"{where}: load", library, child("load", library, path, options.repeats)
        for library in LIBRARIES:
            task = "save external" if external else "save"
            yield f"{where}: load, save", library, child(task, library, path, options.repeats)
        _remove(path)
    long(path, options.nodes)
    for library in LIBRARIES:
        yield f"{options.nodes} nodes: load", library, child("load", library, path, options.repeats)
    for library in ("optc", "onnx-ir", "onnx-graphsurgeon"):
        yield f"bypass and delete {options.nodes // 2}", library, child("edit", library, path, options.repeats)
    _remove(path)
    if options.over:
        weighty(path, int(options.over * 1024), external=True)
        yield f"{options.over} GiB: load, clean, save, run", "optc", child("everything", "optc", path, 1)
        _remove(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=int, default=512, metavar="MIB")
    parser.add_argument("--nodes", type=int, default=20_000, metavar="COUNT")
    parser.add_argument("--over", type=float, default=2.25, metavar="GIB", help="0 leaves the large model out")
    parser.add_argument("--repeats", type=int, default=3, metavar="COUNT")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        task, library, path = options.measure
        print(json.dumps(measure(task, library, Path(path))))
        return
    columns = ("ms", "anonymous", "resident", "whole")
    print(f"{'':34} {'':18} {'ms':>9} {'anonymous':>11} {'resident':>11} {'whole':>11}   (MiB)")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for title, library, figures in rows(Path(folder), options):
            cells = " ".join(
                f"{figures[name]:{9 if name == 'ms' else 11}.1f}" for name in columns if figures and name in figures
            )
            print(f"{title:34} {library:18} {cells or '-'}", flush=True)


if __name__ == "__main__":
    main()
