"""A graph to the folder of a GPU artifact: kernels as source, weights, the plan of launches, manifest."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ....ir.shapes.infer import infer
from ....storage.workspace import Workspace
from ..artifact import manifest
from ..artifact.build import first_line, ports_of
from ..cpu import toolchain
from ..cpu.objects import version
from ..cpu.system import linking
from ..loading import require
from .device import Gpu

if TYPE_CHECKING:
    import tvm

    from ....ir.graph import Graph
    from ..artifact.manifest import Port
    from ..artifact.plan import RunPlan
    from .launches import LaunchPlan

_LOG = logging.getLogger("optc")
WEIGHTS = "weights.bin"
_SHIPPED = ("gpu.h", "model.h", "opencl.cc", "runner.cc")
_COMPILED = ("model.cc", "opencl.cc")


def build(graph: Graph, gpu: Gpu, spec: str, folder: str, *, half: bool) -> LaunchPlan:
    """Compile `graph` into the empty `folder`. Raises `TargetError` for what cannot be built."""
    require()
    from .kernels import together
    from .program import program

    compiler = toolchain.compiler(gpu) if gpu.compiler else ""
    plans, inputs, outputs = planned(graph, gpu, spec, half)
    with open(os.path.join(folder, WEIGHTS), "wb") as weights:
        weights.write(plans.weights)
    document = manifest.document(graph, spec, gpu, inputs, outputs, "")
    if compiler:
        _write(folder, f"kernels{gpu.suffix}", together(plans.source))
        _write(folder, "model.cc", program(plans, inputs, outputs))
        for name in _SHIPPED:
            shutil.copyfile(os.path.join(toolchain.SOURCES, name), os.path.join(folder, name))
        link(gpu, folder, os.path.join(folder, "model.so"))
        document["versions"]["compiler"] = version(compiler)
    else:
        for name, text in sorted(plans.source.items()):
            _write(folder, f"{name}{gpu.suffix}", text)
        del document["machine"], document["versions"]["compiler"], document["commands"]
    manifest.write(folder, {**document, "gpu": _described(plans, gpu, half)})
    return plans


def planned(graph: Graph, gpu: Gpu, spec: str, half: bool) -> tuple[LaunchPlan, tuple[Port, ...], tuple[Port, ...]]:
    """What is launched, and the inputs and outputs. Raises `TargetError` naming the node that cannot be compiled."""
    graph = graph.clone()
    infer(graph)
    plan, launches = _launches(graph, gpu, spec, half)
    inputs = ports_of(graph, plan, plan.inputs, [(value.name, value) for value in graph.inputs])
    outputs = ports_of(graph, plan, plan.outputs, [(output.name, output.value) for output in graph.outputs])
    return launches, inputs, outputs


def _launches(graph: Graph, gpu: Gpu, spec: str, half: bool) -> tuple[RunPlan, LaunchPlan]:
    """The launches, of kernels that are fused where they can be."""
    from ..artifact.plan import plan_of
    from ..blame import blamed
    from ..relax.module import import_graph
    from .kernels import schedule
    from .launches import launch_plan

    def cut(mod: tvm.IRModule, fused: bool = False) -> tuple[RunPlan, LaunchPlan]:
        mod = schedule(mod, gpu, fused=fused)
        plan = plan_of(mod)
        return plan, launch_plan(mod, plan, gpu, half)

    imported = import_graph(graph, gpu, {})  # which names the node itself
    try:
        return cut(imported, fused=True)
    except Exception as error:
        _LOG.debug("kernels are not fused: %s", first_line(error))
    try:
        return cut(imported)
    except Exception as error:
        reason = first_line(error)
        raise blamed(graph, lambda part: cut(import_graph(part, gpu, {})), spec, reason) from error


def link(machine: Gpu, sources: str, library: str) -> None:
    """The library of an OpenCL artifact, from the files that it ships, for the CPU of `machine`."""
    with Workspace() as work:
        toolchain.run(
            [
                toolchain.compiler(machine),
                *(*toolchain.FLAGS, *machine.flags, *toolchain.SHARED),
                *(*_COMPILED, "-o", os.path.abspath(library)),
                *(linking(machine, work) or ("-ldl",)),
            ],
            folder=sources,
            what="linking the library",
        )


def _described(plan: LaunchPlan, gpu: Gpu, half: bool) -> dict[str, Any]:
    """What another program needs to run the kernels. Weights are at `index` bytes of their file."""
    return {
        "device": gpu.name,
        "storage": "float16" if half else "float32",
        "sums": "float32",
        "weights": dict(sorted(plan.stored.items())),
        "buffers": [asdict(buffer) for buffer in plan.buffers],
        "launches": [asdict(step) for step in plan.steps],
        "required": [asdict(one) for one in plan.required],
    }


def _write(folder: str, name: str, text: str) -> None:
    with open(os.path.join(folder, name), "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
