"""The plan of a model as C++: `model.cc`, which calls the kernels one after the other."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from .manifest import Port
from .plan import ALIGNMENT, Copy, Fill, KernelCall, PlannedTensor, Require, RunPlan

_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
"""DLPack's numbers for kinds of element, by numpy's letters."""
_NAMED = {
    "bfloat16": 4, "float8_e4m3fn": 10, "float8_e4m3fnuz": 11, "float8_e5m2": 12, "float8_e5m2fnuz": 13,
    "float8_e8m0fnu": 14,
}  # fmt: skip
"""DLPack's numbers for types that numpy has from elsewhere, by their names."""
MARK = "optc_weights"
KERNELS = "optc_kernels"


def source(plan: RunPlan, inputs: Sequence[Port], outputs: Sequence[Port], weights: str) -> str:
    """The text of `model.cc`. `weights` is the file that the assembler includes, beside it."""
    steps = [step.kernel if isinstance(step, KernelCall) else "copy" for step in plan.steps]
    tables = _Tables()
    numbers = [tables.step(step) for step in plan.steps]
    lines = [
        '#include "runtime.h"',
        "",
        "using namespace optc;",
        "",
        f'asm(".section .rodata\\n.balign 64\\n.globl {MARK}\\n.hidden {MARK}\\n{MARK}:\\n'
        f'.incbin \\"{weights}\\"\\n.balign 64\\n.previous\\n");',
        f'extern "C" __attribute__((visibility("hidden"))) const char {MARK}[];',
        "",
        # How far each kernel is from the first of these numbers: pointers would be set by the loader, at 32 bytes each.
        f'asm(".section .rodata\\n.balign 4\\n.globl {KERNELS}\\n.hidden {KERNELS}\\n{KERNELS}:\\n"',
        *(f'    ".hidden __tvm_ffi_{name}\\n.long __tvm_ffi_{name} - {KERNELS}\\n"' for name in tables.kernels),
        '    ".previous\\n");',
        f'extern "C" __attribute__((visibility("hidden"))) const int32_t {KERNELS}[];',
        "",
        'extern "C" {',
        *declared("input", inputs),
        *declared("output", outputs),
        f"extern const int optc_step_count = {len(steps)};",
        f"extern const char* const optc_steps[] = {{{', '.join(map(json.dumps, steps)) or 'nullptr'}}};",
        "}",
        "",
        "namespace optc_plan {",
        "",
        *_array("Step", "steps", numbers),
        *_array("Operand", "operands", tables.operands),
        *_array("uint16_t", "shapes", [str(number) for number in tables.dims]),
        *_array("DType", "types", tables.types),
        f"static const char* const texts[] = {{{', '.join(map(json.dumps, tables.texts)) or 'nullptr'}}};",
        "",
        *_array("Table", "tables", [f"{{{t.codes}, {t.words}, {t.count}, {t.at}}}" for t in plan.constants.tables]),
        f"bool spread(Model& model) {{ return fill(model, {MARK}, {len(plan.constants.stored)}, tables, "
        f"{len(plan.constants.tables)}, {plan.constants.spread}); }}",
        "",
        "bool shapes_of(const int64_t* const* dims, int64_t* const* out) {",
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
        f"  const int64_t sizes[] = {{{', '.join(tables.sizes) or '0'}}};",
        f"  char* const slots[] = {{{', '.join(f'base + at{i}' for i in range(len(plan.slots))) or 'base'}}};",
        f"  char* const ins[] = {{{', '.join(f'input{i}' for i in range(len(plan.inputs))) or 'nullptr'}}};",
        f"  char* const outs[] = {{{', '.join(f'output{i}' for i in range(len(plan.outputs))) or 'nullptr'}}};",
        f"  Tensor tensors[{tables.most}];",
        f"  Value values[{tables.most}];",
        f"  int64_t extents[{tables.longest}];",
        f"  const Plan plan{{steps, {len(steps)}, operands, shapes, types, {KERNELS}, texts}};",
        "  const Frame frame{sizes, {slots, ins, outs}, tensors, values, extents};",
        "  if (!execute(model, plan, frame)) return false;",
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


class _Tables:
    """The steps of a plan as numbers, which one loop of the runtime carries out: a tenth of the code that does it."""

    def __init__(self) -> None:
        self.kernels: dict[str, int] = {}
        self.operands: list[str] = []
        self.dims: list[int] = []
        self.texts: list[str] = []
        self.most = self.longest = 1
        self._sizes: dict[str, int] = {}
        self._types: dict[str, int] = {}
        self._shapes: dict[tuple[str, ...], int] = {}

    @property
    def sizes(self) -> list[str]:
        """Every number that is a size or an argument, as C expressions."""
        return list(self._sizes)

    @property
    def types(self) -> list[str]:
        return list(self._types)

    def step(self, step: KernelCall | Copy | Fill | Require) -> str:
        """One step, as C++ writes it; its operands follow those of the steps before."""
        kernel: str
        arguments: tuple[PlannedTensor | str, ...]
        if isinstance(step, Copy):
            kernel, arguments = "kCopy", (step.source, step.to)
        elif isinstance(step, Fill):
            kernel, arguments = "kFill", (step.to, *step.values)
        elif isinstance(step, Require):
            kernel, arguments = "kRequire", (step.truth, str(len(self.texts)))
            self.texts.append(step.what)
        else:
            kernel, arguments = str(self.kernels.setdefault(step.kernel, len(self.kernels))), step.arguments
        self.operands += map(self._operand, arguments)
        self.most = max(self.most, len(arguments))
        self.longest = max(self.longest, sum(len(one.shape) for one in arguments if isinstance(one, PlannedTensor)))
        return f"{{{kernel}, {len(arguments)}}}"

    def _operand(self, argument: PlannedTensor | str) -> str:
        if isinstance(argument, str):
            return f"{{{self._number(argument)}, 0, kNumber, 0}}"
        dtype = np.dtype(argument.dtype)
        kind = f"{{{dlpack_code(dtype)}, {8 * dtype.itemsize}, 1}}"
        space = argument.space
        at = space.index // ALIGNMENT if space.kind in ("weights", "tables") else space.index
        name, type_number = space.kind.capitalize(), self._types.setdefault(kind, len(self._types))
        return f"{{{at}, {self._shape(argument.shape)}, k{name}, {type_number}}}"

    def _number(self, size: str) -> int:
        return self._sizes.setdefault(size, len(self._sizes))

    def _shape(self, shape: tuple[str, ...]) -> int:
        """Where the rank and the sizes of a shape stand in `dims`."""
        if shape not in self._shapes:
            self._shapes[shape] = len(self.dims)
            self.dims += (len(shape), *map(self._number, shape))
        return self._shapes[shape]


def dlpack_code(dtype: np.dtype[np.generic]) -> int:
    """DLPack's number for a kind of element."""
    return _NAMED[dtype.name] if dtype.name in _NAMED else _CODES[dtype.kind]


def _array(kind: str, name: str, items: Sequence[str]) -> list[str]:
    return [f"static const {kind} {name}[] = {{{', '.join(items) or '{}'}}};", ""]


def declared(kind: str, ports: Sequence[Port]) -> list[str]:
    """The lines of C++ that define the inputs or outputs of `model.h`."""
    lines = []
    for index, port in enumerate(ports):
        sizes = ", ".join(str(size if isinstance(size, int) else -1) for size in port.shape) or "0"
        lines.append(f"static const int64_t {kind}_dims{index}[] = {{{sizes}}};")
    lines.append(f"extern const int optc_{kind}_count = {len(ports)};")
    items = ", ".join(
        f"{{{json.dumps(port.name)}, {json.dumps(np.dtype(port.dtype).str)}, {len(port.shape)}, {kind}_dims{index}}}"
        for index, port in enumerate(ports)
    )
    lines.append(f"extern const optc_tensor optc_{kind}s[] = {{{items or '{nullptr, nullptr, 0, nullptr}'}}};")
    return lines


def _dims(plan: RunPlan) -> list[str]:
    return [f"  const int64_t {name} = dims[{index}][{axis}]; (void){name};" for name, index, axis in plan.dims]


def _checks(plan: RunPlan, inputs: Sequence[Port]) -> list[str]:
    lines = []
    for name, index, axis in plan.dims if plan.filled else ():
        text = json.dumps(f"input '{inputs[index].name}' has no elements on axis {axis}, where the model takes some")
        lines.append(f"  if ({name} < 1) return fail({text}), false;")
    for left, right, what in plan.equal:
        lines.append(f"  if ({left} != {right}) return fail({json.dumps(what)}), false;")
    for index, (tensor, port) in enumerate(zip(plan.inputs, inputs, strict=True)):
        for axis, size in enumerate(tensor.shape):
            text = json.dumps(f"input '{port.name}' has another size than the model takes on axis {axis}")
            lines.append(f"  if (dims[{index}][{axis}] != {size}) return fail({text}), false;")
    return lines


def _arena(plan: RunPlan) -> list[str]:
    lines = ["  int64_t bytes = 0;"]
    for index, sizes in enumerate(plan.slots):
        most = sizes[0] if len(sizes) == 1 else f"largest({{{', '.join(sizes)}}})"
        lines.append(f"  const int64_t at{index} = bytes; bytes += aligned({most});")
    lines += ["  char* const base = arena(model, bytes);", "  if (base == nullptr) return false;"]
    return lines


def _staged(kind: str, tensors: Sequence[PlannedTensor], first: int) -> list[str]:
    lines = []
    for index, tensor in enumerate(tensors):
        fill = "true" if kind == "input" else "false"
        lines.append(
            f"  char* const {kind}{index} = staged(model, {first + index}, {kind}s[{index}], {tensor.size}, {fill});"
        )
        lines.append(f"  if ({kind}{index} == nullptr) return false;")
    return lines
