"""Where each value of a graph stands while it becomes a Relax function, plain and in blocks, and how kernels are made.

Codes of quantized activations are *held* in the type that the machine's instruction takes, `Dot.codes`: signed where
that is int8, unsigned where it is uint8, with half of the range added or taken away where the model has the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tvm import ir, relax, te, tirx

from ....errors import TargetError
from ....ir.graph import Graph, Value
from ....ir.node import Node
from ....ir.types import DType, TensorType
from ..blame import where
from ..compute import layout
from ..compute.codes import recode
from ..compute.window import Window
from ..compute.workload import Workload
from ..cpu.machine import Machine
from ..cpu.tiling import Tile
from .expressions import ELEMENTWISE, INJECTIVE, Blocked, Product, constant, number
from .sizes import OpenSizes

REQUIRED = "optc.required"
EQUAL = "optc.equal"
"""The attribute of a module that says what its last results, which are bools, must be true for."""
FILLED = "optc.filled"
"""The attribute of a module whose open sizes must be at least one: others follow from them that would be negative."""
PACKED = frozenset({
    DType.INT4, DType.UINT4, DType.INT2, DType.UINT2, DType.FLOAT4E2M1, DType.FLOAT6E2M3, DType.FLOAT6E3M2,
})  # fmt: skip
"""Types of which several elements share a byte."""


class Importer:
    """What is known of each value so far; rules ask for their operands in the form that they take."""

    def __init__(
        self, graph: Graph, machine: Machine, dims: Mapping[str, int], tiles: Mapping[Workload, Tile] | None = None
    ) -> None:
        self.graph = graph
        self.machine = machine
        self.bb = relax.BlockBuilder()
        self._dims: dict[str, Any] = dict(dims)
        self._plain: dict[Value, Any] = {}
        self._blocked: dict[Value, Blocked] = {}
        self.parts: dict[Value, list[Blocked]] = {}  # what images of floats were joined from
        self._declared: dict[Value, Any] = {}
        self.quantized: set[Value] = set()
        self.products: dict[Value, Product] = {}
        self.numbers: dict[Value, Callable[[], relax.Expr]] = {}
        """How to make, in registers, the floats that are the unsigned form of codes which a layer gives."""
        self.workloads: dict[Workload, int] = {}
        """How often each workload was met."""
        self._tiles = tiles or {}
        self.required: list[str] = []
        """What must be so when the model runs: what the artifact says where it is not."""
        self.truths: list[Any] = []
        self.equal: dict[str, tuple[Any, Any]] = {}
        """Sizes that must be equal before anything runs, by what the artifact says where they are not."""
        self.sizes = OpenSizes(graph, {})

    def require(self, truth: relax.Expr, what: str) -> None:
        """The artifact fails, and says `what`, where `truth`, a bool of rank 0, is false when it runs."""
        self.truths.append(truth)
        self.required.append(what)

    def spread(self, node: Node) -> None:
        """Let what `node` spreads out over its result have the sizes of that, which the artifact makes sure of: a size
        and what bounds it are the same where the model can run at all."""
        for index, value in enumerate(node.inputs):
            if value is None or value.constant is not None or not (unlike := self.sizes.unlike(value, node.output)):
                continue
            expr = self.plain(value)
            sizes = list(expr.ty.shape)
            for axis, own, other in unlike:
                what = f"operand {index + 1} of {where(node)} has another size on axis {axis} than the rest"
                self.equal.setdefault(what, (own, other))
                sizes[axis - len(node.output.shape or ())] = other
            self.define(value, self.emit(relax.op.reshape(expr, tuple(sizes))))

    def plain(self, value: Value) -> relax.Expr:
        """The value in the layout and the type that ONNX gives it."""
        if value not in self.quantized:
            return self.flat(value)
        if value not in self._declared:
            assert value.dtype is not None
            expr = self.flat(value)
            name, shift = value.dtype.numpy.name, self.shift(value.dtype)
            same = shift == 0 and str(expr.ty.dtype.dtype) == name
            self._declared[value] = (
                expr if same else self.te(recode, expr, pattern=ELEMENTWISE, dtype=name, shift=shift)
            )
        return self._declared[value]

    def shift(self, dtype: DType) -> int:
        """What codes of this type have more in the model than as they are held."""
        codes = self.machine.dot.codes if self.machine.dot is not None else ""
        return {("int8", DType.UINT8): 128, ("uint8", DType.INT8): -128}.get((codes, dtype), 0)

    def flat(self, value: Value) -> relax.Expr:
        """The value in the layout that ONNX gives it, codes as they are held."""

        if value not in self._plain:
            if value.constant is not None:
                self._plain[value] = constant(value.constant.numpy())
            else:
                self._plain[value] = self._unpack(self._blocked[value])
        return self._plain[value]

    def hold(self, value: Value, expr: relax.Expr) -> None:
        """From now on the codes `value` are held, as `expr`, and not in blocks that another reader had made of them."""
        self._declared[value] = self._plain[value]
        self._blocked.pop(value, None)
        self._plain[value] = expr
        self.quantized.add(value)

    def define(self, value: Value, result: relax.Expr | Blocked) -> None:
        """What a rule made is the value."""
        if isinstance(result, Blocked):
            self._blocked[value] = result
        else:
            self._plain[value] = result

    def keep(self, value: Value, blocked: Blocked) -> None:
        """The value in blocks, for whoever reads it next."""
        self._blocked[value] = blocked

    def blocked(self, value: Value) -> Blocked | None:
        """The value in blocks, where it already is."""
        return self._blocked.get(value)

    def image(self, value: Value) -> Blocked | None:
        """The value as an image in blocks of any size, without moving data; none where its size is not known."""
        blocked = self._blocked.get(value)
        if blocked is not None and blocked.whole:
            return blocked
        shape = value.shape
        if shape is None or len(shape) != 4 or not all(isinstance(size, int) for size in shape[1:]):
            return None
        c, h, w = (int(size or 0) for size in shape[1:])
        x = self.plain(value)
        return Blocked(self.emit(relax.op.reshape(x, (x.ty.shape[0], c, h * w, 1))), c, h, w, 1)

    def packed(self, value: Value) -> Blocked | None:
        """The value in blocks of the machine's size, packed where it is not yet so; none where it does not fit."""
        blocked = self._blocked.get(value)
        if blocked is not None and blocked.whole:
            return blocked
        shape, block = value.shape, self.machine.block
        if value.constant is not None or shape is None or len(shape) != 4:
            return None
        if not all(isinstance(size, int) for size in shape[1:]) or int(shape[1] or 0) % block:
            return None
        c, h, w = (int(size or 0) for size in shape[1:])
        x = self.flat(value)
        if h * w == 1:
            expr = self.emit(relax.op.reshape(x, (x.ty.shape[0], c // block, 1, block)))
        else:
            expr = self.te(layout.pack, x, pattern=INJECTIVE, block=block)
        self._blocked[value] = Blocked(expr, c, h, w, block)
        return self._blocked[value]

    def tile(
        self,
        kernel: str,
        data: relax.Expr,
        weights: Sequence[int | None],
        window: Window | None = None,
        groups: int = 1,
    ) -> Tile:
        """How to cut a contraction of `data`; see `Workload`."""
        shape = tuple(number(size) for size in data.ty.shape)
        work = Workload(kernel, shape, str(data.ty.dtype.dtype), tuple(weights), window, groups)
        self.workloads[work] = self.workloads.get(work, 0) + 1
        return self._tiles.get(work) or work.default(self.machine)

    def emit(self, expr: relax.Expr) -> relax.Expr:
        return self.bb.emit(self.bb.normalize(expr))

    def te(self, function: Callable[..., te.Tensor], *tensors: relax.Expr, pattern: int, **options: Any) -> relax.Expr:
        """A kernel of ours, of `tensors` and fixed `options`; `pattern` tells TVM what may be fused to it."""
        # A kernel has names of its own for open sizes, so those within options are operands.
        opened = {name: one for name, one in options.items() if isinstance(one, tuple) and not _is_fixed(one)}
        fixed = {name: one for name, one in options.items() if name not in opened}

        def kernel(*operands: Any) -> te.Tensor:
            sizes = zip(opened, map(tuple, operands[len(tensors) :]), strict=True)
            return function(*operands[: len(tensors)], **fixed, **dict(sizes))

        return self.bb.emit_te(
            kernel,
            *tensors,
            *map(relax.ShapeExpr, opened.values()),
            primfunc_name_hint=function.__name__,
            primfunc_attrs={"op_pattern": pattern},
        )

    def parameter(self, index: int, value: Value) -> relax.Var:
        kind = value.type
        if not isinstance(kind, TensorType) or kind.sparse or kind.dtype is DType.STRING:
            raise TargetError(f"TVM takes dense tensors of numbers, which input '{value.name}' is not; build for onnx")
        if kind.dtype in PACKED:
            raise TargetError(f"input '{value.name}' holds {kind.dtype.text}, of which libraries take none; cast it")
        if kind.shape is None:
            raise TargetError(f"the rank of input '{value.name}' is not known: --shape {value.name}=1x3x224x224")
        shape = []
        for axis, size in enumerate(kind.shape):
            if isinstance(size, int):
                shape.append(size)
                continue
            name = size if size is not None else f"{value.name}.{axis}"
            if name not in self._dims:
                self._dims[name] = tirx.Var("".join(c if c.isalnum() else "_" for c in name), "int64")
            shape.append(self._dims[name])
        self._plain[value] = relax.Var(f"input{index}", relax.TensorType(shape, kind.dtype.numpy.name))
        return self._plain[value]

    def _unpack(self, image: Blocked) -> relax.Expr:
        if image.height * image.width == 1 and image.whole:
            shape = (image.expr.ty.shape[0], image.channels, 1, 1)
            return self.emit(relax.op.reshape(image.expr, shape))
        return self.te(
            layout.unpack,
            image.expr,
            pattern=INJECTIVE,
            channels=image.channels,
            height=image.height,
            width=image.width,
        )


def _is_fixed(values: tuple[Any, ...]) -> bool:
    """Whether a tuple holds no size that is open."""
    return not any(isinstance(one, ir.Expr) and not isinstance(one, tirx.IntImm) for one in values)
