"""The launches of a model as C++: `model.cc`, whose tables the runtime in `sources` walks."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..artifact.codegen import declared
from ..artifact.manifest import Port
from .launches import LaunchPlan, LaunchStep


def program(plan: LaunchPlan, inputs: Sequence[Port], outputs: Sequence[Port]) -> str:
    """The text of `model.cc`."""
    names = [step.kernel or "copy" for step in plan.steps]
    arguments: list[int] = []
    launches = []
    for step in plan.steps:
        launches.append(_launch(plan, step, len(arguments)))
        arguments += step.buffers
    buffers = [f"  {{optc::k{buffer.kind.capitalize()}, {buffer.bytes}u, {buffer.index}u}}," for buffer in plan.buffers]
    required = [f"  {{{one.buffer}, {json.dumps(one.what)}}}," for one in plan.required]
    lines = [
        '#include "gpu.h"',
        '#include "model.h"',
        "",
        'extern "C" {',
        *declared("input", inputs),
        *declared("output", outputs),
        f"extern const int optc_step_count = {len(names)};",
        f"extern const char* const optc_steps[] = {{{', '.join(map(json.dumps, names)) or 'nullptr'}}};",
        "}",
        "",
        f"const int optc_buffer_count = {len(buffers)};",
        "const optc::Buffer optc_buffers[] = {",
        *buffers,
        "};",
        f"const int optc_arguments[] = {{{', '.join(map(str, arguments)) or '0'}}};",
        f"const int optc_required_count = {len(required)};",
        "const optc::Required optc_required[] = {",
        *(required or ["  {0, nullptr},"]),
        "};",
        "const optc::Step optc_launches[] = {",
        *(launches or ["  {nullptr, 0, 0, {0, 0, 0}, {0, 0, 0}, 0u},"]),
        "};",
        "",
    ]
    return "\n".join(lines)


def _launch(plan: LaunchPlan, step: LaunchStep, first: int) -> str:
    name = json.dumps(step.kernel) if step.kernel else "nullptr"
    points = ", ".join(str(groups * threads) for groups, threads in zip(step.groups, step.threads, strict=True))
    threads = ", ".join(map(str, step.threads))
    moved = 0 if step.kernel else min(plan.buffers[number].bytes for number in step.buffers)
    return f"  {{{name}, {first}, {len(step.buffers)}, {{{points}}}, {{{threads}}}, {moved}u}},"
