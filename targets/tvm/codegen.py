"""The plan of a model as C++: `model.cc`, which calls the kernels one after the other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .plan import Call, Copy, Fill, Plan, Tensor

_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
"""DLPack's numbers for kinds of element, by numpy's letters."""
MARK = "optc_weights"


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output as the user knows it: sizes are numbers, or names where they are open."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


def source(plan: Plan, inputs: Sequence[Port], outputs: Sequence[Port], weights: str) -> str:
    """The text of `model.cc`. `weights` is the file that the assembler includes, beside it."""
    steps = [step.kernel if isinstance(step, Call) else "copy" for step in plan.steps]
    kernels = sorted({step.kernel for step in plan.steps if isinstance(step, Call)})
    lines = [
        '#include "runtime.h"',
        "",
        "using namespace optc;",
        "",
        f'asm(".section .rodata\\n.balign 64\\n.globl {MARK}\\n.hidden {MARK}\\n{MARK}:\\n'
        f'.incbin \\"{weights}\\"\\n.balign 64\\n.previous\\n");',
        f'extern "C" __attribute__((visibility("hidden"))) const char {MARK}[];',
        "",
        'extern "C" {',
        *(f"int __tvm_ffi_{name}(void*, Value*, int32_t, Value*);" for name in kernels),
        *declared("input", inputs),
        *declared("output", outputs),
        f"extern const int optc_step_count = {len(steps)};",
        f"extern const char* const optc_steps[] = {{{', '.join(map(json.dumps, steps)) or 'nullptr'}}};",
        "}",
        "",
        "namespace optc_plan {",
        "",
        "bool shapes(const int64_t* const* dims, int64_t* const* out) {",
        *_dims(plan),
        *_checks(plan, inputs),
        *(
            f"  out[{i}][{axis}] = {size};"
            for i, output in enumerate(plan.outputs)
            for axis, size in enumerate(output.shape)
        ),
        "  return true;",
        "}",
        "",
        "bool run(Model& model, const void* const* inputs, const int64_t* const* dims, void* const* outputs) {",
        *_dims(plan),
        *_checks(plan, inputs),
        *_arena(plan),
        *_staged("input", plan.inputs, 0),
        *_staged("output", plan.outputs, len(plan.inputs)),
        *(line for index, step in enumerate(plan.steps) for line in _step(index, step)),
        *(
            f"  if (output{i} != outputs[{i}]) std::memcpy(outputs[{i}], output{i}, {tensor.size});"
            for i, tensor in enumerate(plan.outputs)
        ),
        "  return true;",
        "}",
        "",
        "}  // namespace optc_plan",
        "",
    ]
    return "\n".join(lines)


def declared(kind: str, ports: Sequence[Port]) -> list[str]:
    """The lines of C++ that define the inputs or outputs of `model.h`."""
    lines = []
    for index, port in enumerate(ports):
        sizes = ", ".join(str(size if isinstance(size, int) else -1) for size in port.shape) or "0"
        lines.append(f"static const int64_t {kind}_dims{index}[] = {{{sizes}}};")
    lines.append(f"extern const int optc_{kind}_count = {len(ports)};")
    items = ", ".join(
        f"{{{json.dumps(port.name)}, {json.dumps(port.dtype)}, {len(port.shape)}, {kind}_dims{index}}}"
        for index, port in enumerate(ports)
    )
    lines.append(f"extern const optc_tensor optc_{kind}s[] = {{{items or '{nullptr, nullptr, 0, nullptr}'}}};")
    return lines


def _dims(plan: Plan) -> list[str]:
    return [f"  const int64_t {name} = dims[{index}][{axis}]; (void){name};" for name, index, axis in plan.dims]


def _checks(plan: Plan, inputs: Sequence[Port]) -> list[str]:
    lines = []
    for index, (tensor, port) in enumerate(zip(plan.inputs, inputs, strict=True)):
        for axis, size in enumerate(tensor.shape):
            text = json.dumps(f"input '{port.name}' has another size than the model takes on axis {axis}")
            lines.append(f"  if (dims[{index}][{axis}] != {size}) return fail({text}), false;")
    return lines


def _arena(plan: Plan) -> list[str]:
    lines = ["  int64_t bytes = 0;"]
    for index, sizes in enumerate(plan.slots):
        most = sizes[0] if len(sizes) == 1 else f"std::max<int64_t>({{{', '.join(sizes)}}})"
        lines.append(f"  const int64_t at{index} = bytes; bytes += aligned({most});")
    lines += ["  char* const base = arena(model, bytes);", "  if (base == nullptr) return false;"]
    return lines


def _staged(kind: str, tensors: Sequence[Tensor], first: int) -> list[str]:
    lines = []
    for index, tensor in enumerate(tensors):
        fill = "true" if kind == "input" else "false"
        lines.append(
            f"  char* const {kind}{index} = staged(model, {first + index}, {kind}s[{index}], {tensor.size}, {fill});"
        )
        lines.append(f"  if ({kind}{index} == nullptr) return false;")
    return lines


def _pointer(tensor: Tensor) -> str:
    space = tensor.space
    if space.kind == "arena":
        return f"base + at{space.index}"
    return f"{MARK} + {space.index}" if space.kind == "weights" else f"{space.kind}{space.index}"


def _step(index: int, step: Call | Copy | Fill) -> list[str]:
    if isinstance(step, Copy):
        return [f"  std::memcpy({_pointer(step.to)}, {_pointer(step.source)}, {step.to.size});"]
    if isinstance(step, Fill):
        listed = ", ".join(step.values) or "0"
        return [f"  {{ const int64_t v[] = {{{listed}}}; std::memcpy({_pointer(step.to)}, v, {step.to.size}); }}"]
    lines = ["  {"]
    tensors: list[str] = []
    values: list[str] = []
    for argument in step.arguments:
        if isinstance(argument, str):
            values.append(f"number({argument})")
            continue
        i = len(tensors)
        dtype = np.dtype(argument.dtype)
        element = f"{{{_CODES[dtype.kind]}, {8 * dtype.itemsize}, 1}}"
        lines.append(f"    const int64_t s{i}[] = {{{', '.join(argument.shape) or '0'}}};")
        tensors.append(f"tensor({_pointer(argument)}, {element}, {len(argument.shape)}, s{i})")
        values.append(f"pointer(&t[{i}])")
    lines.append(f"    Tensor t[] = {{{', '.join(tensors)}}};")
    lines.append(f"    Value v[] = {{{', '.join(values)}}};")
    lines.append(f"    if (!call(model, {index}, __tvm_ffi_{step.kernel}, v, {len(values)})) return false;")
    lines.append("  }")
    return lines
