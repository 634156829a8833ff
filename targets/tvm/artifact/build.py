"""A graph to the folder of an artifact: library, header, runner, manifest."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ....errors import OptcError, TargetError
from ....ir.shapes.infer import infer
from ....storage.workspace import Workspace
from ..cpu import toolchain
from ..cpu.machine import Machine
from ..cpu.objects import place, version
from ..cpu.system import linking
from ..loading import require
from . import manifest
from .manifest import Port

if TYPE_CHECKING:
    import tvm

    from ....ir.graph import Graph, Value
    from ..schedule.pipeline import Objects
    from ..tuning.choice import TuningChoice
    from .plan import PlannedTensor, RunPlan

_LOG = logging.getLogger("optc")
_SHIPPED = ("model.h", "runner.cc")


def build(
    graph: Graph,
    machine: Machine,
    spec: str,
    folder: str,
    dims: Mapping[str, int],
    *,
    archive: bool = False,
    tuned: TuningChoice | None = None,
) -> None:
    """Compile `graph` for `machine` into the empty `folder`; with `archive`, also as `model.a` to link statically.

    `tuned` tells how to cut kernels that are not to be cut by default. Raises `TargetError` for what cannot be built.
    """
    compiler = toolchain.compiler(machine)
    require()
    from .codegen import source

    graph = graph.clone()
    mod, plan = lowered(graph, machine, dims, tuned)
    inputs = ports_of(graph, plan, plan.inputs, [(value.name, value) for value in graph.inputs])
    outputs = ports_of(graph, plan, plan.outputs, [(output.name, output.value) for output in graph.outputs])
    with Workspace() as work:
        with open(os.path.join(work, "weights.bin"), "wb") as weights:
            weights.write(plan.constants.stored or b"\0")
        with open(os.path.join(work, "model.cc"), "w", encoding="utf-8") as text:
            text.write(source(plan, inputs, outputs, "weights.bin"))
        for name in os.listdir(toolchain.SOURCES):
            shutil.copyfile(os.path.join(toolchain.SOURCES, name), os.path.join(work, name))
        planned = toolchain.start(
            [compiler, *toolchain.FLAGS, *machine.flags, "-c", "model.cc", "-o", "model.o"], folder=work
        )
        try:
            objects = _objects(graph, mod, machine, dims, work)
            runtime = place(machine, ("runtime.cc", "rpc.cc"), work)
            toolchain.finish(planned, what="compiling the plan")
        finally:
            toolchain.stop(planned)
        library = os.path.abspath(os.path.join(folder, "model.so"))
        toolchain.run(
            [
                compiler,
                *(*toolchain.FLAGS, *machine.flags, *toolchain.SHARED, *toolchain.BARE),
                *("model.o", *runtime, *objects.files, "-o", library),
                *linking(machine, work),
            ],
            folder=work,
            what="linking the library",
        )
        if archive:
            _archive(machine, work, objects.files, os.path.abspath(os.path.join(folder, "model.a")))
    for name in _SHIPPED:
        shutil.copyfile(os.path.join(toolchain.SOURCES, name), os.path.join(folder, name))
    document = manifest.document(graph, spec, machine, inputs, outputs, version(compiler))
    if objects.unscheduled:
        _LOG.warning("no rule could schedule %s: slow, and just as right", ", ".join(objects.unscheduled))
        document["unscheduled"] = list(objects.unscheduled)
    manifest.write(folder, document if tuned is None else {**document, "tuning": tuned.record})


def lowered(
    graph: Graph, machine: Machine, dims: Mapping[str, int], tuned: TuningChoice | None = None
) -> tuple[tvm.IRModule, RunPlan]:
    """The kernels of a graph, not cut yet, and the plan that calls them; writes the types of all values onto the graph.

    Raises `TargetError` for what cannot be built, naming the open sizes or the node that it is for, and `EmissionError`
    where it is for neither.
    """
    from ..blame import blamed
    from ..relax.module import import_graph
    from ..schedule import pipeline
    from .plan import Unplanned, plan_of

    def attempt(one: Graph) -> tuple[tvm.IRModule, RunPlan]:
        mod = pipeline.lower(import_graph(one, machine, dims, None if tuned is None else tuned.tiles), machine)
        return mod, plan_of(mod, tables=True)

    infer(graph)
    try:
        return attempt(graph)
    except Unplanned as error:
        named = blamed(graph, attempt, machine.name, str(error))
        raise (named if isinstance(named, TargetError) else error) from error
    except (OptcError, MemoryError):
        raise
    except Exception as error:
        why = first_line(error)
        raise _too_open(graph) or blamed(graph, attempt, machine.name, why) from error


def _objects(graph: Graph, mod: tvm.IRModule, machine: Machine, dims: Mapping[str, int], work: str) -> Objects:
    """The kernels of a graph as object files in `work`. Raises as `lowered` does."""
    from ..blame import blamed
    from ..schedule import pipeline

    try:
        return pipeline.write_objects(mod, machine, work)
    except (OptcError, MemoryError, OSError):
        raise
    except Exception as error:

        def attempt(one: Graph) -> None:
            pipeline.schedule(lowered(one, machine, dims)[0], machine)

        raise blamed(graph, attempt, machine.name, first_line(error)) from error


def _too_open(graph: Graph) -> TargetError | None:
    """What to say where a graph cannot be compiled with the sizes that its inputs leave open; nothing where they leave
    none."""
    for value in graph.inputs:
        shape = value.shape or ()
        if not all(isinstance(size, int) for size in shape):
            sizes = "x".join(
                str(size) if isinstance(size, int) else "224" if at else "1" for at, size in enumerate(shape)
            )
            described = ", ".join(str(size or "?") for size in shape)
            return TargetError(
                f"the model cannot be compiled with what input '{value.name}' [{described}] leaves open; "
                f"fix its sizes, such as --shape {value.name}={sizes}"
            )
    return None


def _archive(machine: Machine, work: str, kernels: tuple[str, ...], path: str) -> None:
    """Write the static archive of the objects in `work`; what links it needs only the C library."""
    archiver = toolchain.archiver(machine)
    objects = ("model.o", *place(machine, ("runtime.cc",), work), *kernels)
    toolchain.run([archiver, "rcsD", path, *objects], folder=work, what="writing the archive")


def ports_of(
    graph: Graph, plan: RunPlan, tensors: list[PlannedTensor], named: list[tuple[str, Value]]
) -> tuple[Port, ...]:
    """The interface: sizes that are open keep the names that the model gives them."""
    ports = []
    for tensor, (name, value) in zip(tensors, named, strict=True):
        declared = value.shape if value.shape is not None else (None,) * len(tensor.shape)
        shape = [
            int(size) if size.isdecimal() else (dim if isinstance(dim, str) else f"{name}.{axis}")
            for axis, (size, dim) in enumerate(zip(tensor.shape, declared, strict=True))
        ]
        dtype = np.dtype(tensor.dtype)
        # Types that numpy has from elsewhere are all bytes to it: they are known by their names.
        ports.append(Port(name, dtype.str if dtype.isbuiltin == 1 else dtype.name, tuple(shape)))
    return tuple(ports)


def first_line(error: Exception) -> str:
    """What an error of TVM says, without the places in its own code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(("File ", "at ", "^"))]
    return (said or [type(error).__name__])[-1][:300]
