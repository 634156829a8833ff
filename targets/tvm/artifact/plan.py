"""What a module does when it runs: kernels called one after the other on buffers of one arena.

Read off the Relax function once its operators are kernels. Reshapes are new views of the same bytes. A buffer's place
is taken again when its last reader is done. Sizes that are known only when the model runs are C expressions over the
symbolic dimensions, which are read from the shapes of the inputs.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax, tirx

from ....errors import TargetError
from ..relax.importer import EQUAL, FILLED, REQUIRED
from .constants import ALIGNMENT, Constants

__all__ = ["ALIGNMENT", "Copy", "Fill", "KernelCall", "MemorySpace", "PlannedTensor", "Require", "RunPlan", "plan_of"]


@dataclass(frozen=True, slots=True)
class MemorySpace:
    """Where bytes are: `kind` is input, output, arena, weights or tables; `index` counts inputs, outputs, arena slots,
    and bytes within the weights or within what tables are spread out into."""

    kind: str
    index: int = 0


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """A view: where it is, its element type, and its sizes as C expressions. `elements` counts them with every unknown
    dimension taken as one."""

    space: MemorySpace
    dtype: str
    shape: tuple[str, ...]
    elements: int

    @property
    def size(self) -> str:
        """Bytes, as a C expression."""
        return "*".join([str(np.dtype(self.dtype).itemsize), *self.shape])


@dataclass(frozen=True, slots=True)
class KernelCall:
    """One kernel on its arguments in order: tensors, and whole numbers as C expressions."""

    kernel: str
    arguments: tuple[PlannedTensor | str, ...]


@dataclass(frozen=True, slots=True)
class Copy:
    """Bytes from one place to another, where an output is an input, a constant or a view."""

    source: PlannedTensor
    to: PlannedTensor


@dataclass(frozen=True, slots=True)
class Fill:
    """Sizes written as numbers into a tensor of int64."""

    values: tuple[str, ...]
    to: PlannedTensor


@dataclass(frozen=True, slots=True)
class Require:
    """A run fails, saying `what`, where a bool of one element is false."""

    truth: PlannedTensor
    what: str


@dataclass(slots=True)
class RunPlan:
    """Steps in order. `dims` reads each symbolic dimension from an input: name, input, axis; with `filled`, none may be
    zero. `equal` are sizes that must be the same, and what to say where they are not. `slots` holds the sizes of
    everything that takes turns in one part of the arena."""

    inputs: list[PlannedTensor] = field(default_factory=list)
    outputs: list[PlannedTensor] = field(default_factory=list)
    steps: list[KernelCall | Copy | Fill | Require] = field(default_factory=list)
    dims: list[tuple[str, int, int]] = field(default_factory=list)
    equal: list[tuple[str, str, str]] = field(default_factory=list)
    slots: list[list[str]] = field(default_factory=list)
    constants: Constants = field(default_factory=Constants)
    filled: bool = False


class Unplanned(TargetError):
    """What only TVM's own runtime could run. It names what TVM has, not the node."""


def plan_of(mod: tvm.IRModule, *, tables: bool = False) -> RunPlan:
    """The plan of `main`, with `tables` for constants of few kinds of numbers.

    Raises `Unplanned` for what needs TVM's own runtime.
    """
    return _Planner(mod, tables).run()


class _Planner:
    def __init__(self, mod: tvm.IRModule, tables: bool) -> None:
        self.function = mod["main"]
        self.required = [str(what) for what in (mod.attrs or {}).get(REQUIRED, ())]
        self.equal = [str(what) for what in (mod.attrs or {}).get(EQUAL, ())]
        self.tables = tables
        self.plan = RunPlan(filled=bool((mod.attrs or {}).get(FILLED, False)))
        self._held: dict[Any, Any] = {}
        self._free: list[int] = []
        self._nominal: list[int] = []
        self._symbols: dict[Any, str] = {}

    def run(self) -> RunPlan:
        for index, param in enumerate(self.function.params):
            self._symbolic(index, param)
        for index, param in enumerate(self.function.params):
            self._held[param] = self._view(MemorySpace("input", index), param.ty)
            self.plan.inputs.append(self._held[param])
        body = self.function.body
        bindings = [binding for block in body.blocks for binding in block.bindings]
        result = self._resolve_result(bindings, body.body)
        last = self._lifetimes(bindings, result)
        truths = len(result) - len(self.equal)
        outputs = truths - len(self.required)
        targets = self._direct(bindings, result[:outputs])
        for at, binding in enumerate(bindings):
            self._bind(binding.var, binding.value, targets.get(binding.var))
            for slot in last.get(at, ()):
                self._release(slot)
        # Before the outputs are copied: a run that fails leaves nothing that could be taken for an answer.
        self.plan.steps += map(Require, map(self._tensor, result[outputs:truths]), self.required)
        for what, sizes in zip(self.equal, result[truths:], strict=True):
            left, right = (self._c(size)[0] for size in self._held.get(sizes, sizes).values)
            self.plan.equal.append((left, right, what))
        for index, expr in enumerate(result[:outputs]):
            tensor = self._tensor(expr)
            to = replace(tensor, space=MemorySpace("output", index))
            self.plan.outputs.append(to)
            if tensor.space != to.space:
                self.plan.steps.append(Copy(tensor, to))
        return self.plan

    def _symbolic(self, index: int, param: relax.Var) -> None:
        for axis, size in enumerate(param.ty.shape):
            if isinstance(size, tirx.Var) and size not in self._symbols:
                name = f"d{len(self._symbols)}"
                self._symbols[size] = name
                self.plan.dims.append((name, index, axis))

    def _resolve_result(self, bindings: list[Any], body: Any) -> list[Any]:
        values = {binding.var: binding.value for binding in bindings}
        while isinstance(body, relax.Var) and body in values:
            body = values[body]
        return list(body.fields) if isinstance(body, relax.Tuple) else [body]

    def _root(self, values: dict[Any, Any], expr: Any) -> Any:
        """The variable whose buffer `expr` views."""
        while expr in values:
            value = values[expr]
            if isinstance(value, relax.Var):
                expr = value
            elif _op(value) == "relax.reshape":
                expr = value.args[0]
            elif isinstance(value, relax.TupleGetItem):
                expr = value.tuple_value
            else:
                return expr
        return expr

    def _lifetimes(self, bindings: list[Any], result: list[Any]) -> dict[int, list[Any]]:
        """Which buffers are done with after which binding. Those of outputs never are: what is not written where the
        caller wants it is copied when all has run."""
        values = {binding.var: binding.value for binding in bindings}
        last: dict[Any, int] = {}

        def keep(expr: Any) -> None:
            if isinstance(expr, relax.Var):
                last[self._root(values, expr)] = len(bindings)

        for at, binding in enumerate(bindings):

            def note(expr: Any, at: int = at) -> None:
                if isinstance(expr, relax.Var):
                    root = self._root(values, expr)
                    last[root] = max(at, last.get(root, 0))

            # What is held in a tuple stays to the end.
            relax.analysis.post_order_visit(binding.value, note if not isinstance(binding.value, relax.Tuple) else keep)
            last.setdefault(self._root(values, binding.var), at)
        for expr in result:
            keep(expr)
        ends: dict[int, list[Any]] = {}
        for var, at in last.items():
            ends.setdefault(at, []).append(var)
        return ends

    def _direct(self, bindings: list[Any], result: list[Any]) -> dict[Any, int]:
        """Values that are written where the caller wants them: output index by variable."""
        values = {binding.var: binding.value for binding in bindings}
        places: dict[Any, int] = {}
        for index, expr in enumerate(result):
            root = self._root(values, expr)
            if root in values and _op(values[root]) == "relax.call_tir" and root not in places:
                places[root] = index
        return places

    def _bind(self, var: Any, value: Any, output: int | None) -> None:
        op = _op(value)
        if isinstance(value, relax.Var) or _is_constant(value):
            self._held[var] = self._tensor(value)
        elif isinstance(value, relax.Tuple):
            self._held[var] = [self._tensor(one) for one in value.fields]
        elif isinstance(value, relax.TupleGetItem):
            self._held[var] = self._held[value.tuple_value][value.index]
        elif isinstance(value, relax.ShapeExpr) or op == "relax.shape_of":
            self._held[var] = value
        elif op == "relax.reshape":
            source = self._tensor(value.args[0])
            self._held[var] = self._view(source.space, value.ty)
        elif op == "relax.call_tir":
            self._call(var, value, output)
        elif op == "relax.shape_to_tensor":
            shape = value.args[0]
            while shape in self._held:
                shape = self._held[shape]
            sizes = shape.args[0].ty.shape if _op(shape) == "relax.shape_of" else shape.values
            self._held[var] = self._take(self._view(_NOWHERE, value.ty))
            self.plan.steps.append(Fill(tuple(self._c(size)[0] for size in sizes), self._held[var]))
        else:
            raise Unplanned(
                f"'{op or type(value).__name__}' needs TVM's own runtime, which a compiled artifact does without: its "
                "sizes depend on data, or on open ones"
            )

    def _call(self, var: Any, value: Any, output: int | None) -> None:
        arguments = [self._argument(one) for one in value.args[1].fields]
        out = value.ty_args[0]
        fields = list(out.fields) if isinstance(out, relax.TupleType) else [out]
        if output is not None and len(fields) == 1:
            outputs = [self._view(MemorySpace("output", output), out)]
        else:
            outputs = [self._take(self._view(_NOWHERE, kind)) for kind in fields]
        numbers = tuple(self._c(size)[0] for size in value.args[2].values) if len(value.args) > 2 else ()
        self._held[var] = outputs[0] if len(fields) == 1 and not isinstance(out, relax.TupleType) else outputs
        self.plan.steps.append(KernelCall(value.args[0].name_hint, (*arguments, *outputs, *numbers)))

    def _take(self, like: PlannedTensor) -> PlannedTensor:
        """A part of the arena for a new buffer: the free one whose size fits best, or a new one."""
        wanted = like.elements * np.dtype(like.dtype).itemsize
        best = min(self._free, key=lambda slot: (abs(self._nominal[slot] - wanted), slot), default=None)
        if best is None:
            best = len(self.plan.slots)
            self.plan.slots.append([])
            self._nominal.append(0)
        else:
            self._free.remove(best)
        self._nominal[best] = max(self._nominal[best], wanted)
        if like.size not in self.plan.slots[best]:
            self.plan.slots[best].append(like.size)
        return replace(like, space=MemorySpace("arena", best))

    def _release(self, var: Any) -> None:
        placed = self._held.get(var)
        for tensor in placed if isinstance(placed, list) else [placed]:
            if (
                isinstance(tensor, PlannedTensor)
                and tensor.space.kind == "arena"
                and tensor.space.index not in self._free
            ):
                self._free.append(tensor.space.index)

    def _argument(self, expr: Any) -> PlannedTensor | str:
        is_number = isinstance(expr, tirx.Var | tirx.IntImm) or type(expr).__name__ in _FORMS
        return self._c(expr)[0] if is_number and expr not in self._held else self._tensor(expr)

    def _tensor(self, expr: Any) -> PlannedTensor:
        if expr in self._held:
            tensor = self._held[expr]
            if not isinstance(tensor, PlannedTensor):
                raise Unplanned(f"'{expr}' is no tensor; sequences cannot be built")
            return tensor
        if _is_constant(expr):
            return self._constant(expr.value.numpy())
        raise Unplanned(f"'{type(expr).__name__}' cannot be an argument of a kernel")

    def _constant(self, array: npt.NDArray[np.generic]) -> PlannedTensor:
        space = MemorySpace(*self.plan.constants.place(array, self.tables))
        return PlannedTensor(space, array.dtype.name, tuple(map(str, array.shape)), array.size)

    def _view(self, space: MemorySpace, kind: Any) -> PlannedTensor:
        dtype = kind.dtype.dtype if hasattr(kind.dtype, "dtype") else str(kind.dtype)
        if kind.shape is None:
            raise Unplanned("a tensor's rank depends on data")
        sizes = [self._c(size) for size in kind.shape]
        return PlannedTensor(space, str(dtype), tuple(text for text, _ in sizes), math.prod(one for _, one in sizes))

    def _c(self, expr: Any) -> tuple[str, int]:
        """A size as a C expression, and what it is where every unknown dimension is one."""
        if isinstance(expr, int | tirx.IntImm):
            return str(int(expr)), int(expr)
        if isinstance(expr, tirx.Var) and expr in self._symbols:
            return self._symbols[expr], 1
        if type(expr).__name__ in _FORMS:
            form, compute = _FORMS[type(expr).__name__]
            (a, x), (b, y) = self._c(expr.a), self._c(expr.b)
            return form.format(a, b), compute(x, y)
        raise Unplanned(f"the size '{expr}' depends on data")


_NOWHERE = MemorySpace("arena", -1)
_FORMS: dict[str, tuple[str, Callable[[int, int], int]]] = {
    "Add": ("({}+{})", operator.add),
    "Sub": ("({}-{})", operator.sub),
    "Mul": ("({}*{})", operator.mul),
    "FloorDiv": ("floor_div({},{})", operator.floordiv),
    "FloorMod": ("floor_mod({},{})", operator.mod),
    "Min": ("smallest({{{},{}}})", min),
    "Max": ("largest({{{},{}}})", max),
}


def _op(value: Any) -> str:
    op = getattr(value, "op", None)
    return str(getattr(op, "name", ""))


def _is_constant(expr: Any) -> bool:
    return type(expr).__name__ == "GenericConst"
