"""Our graph as a Relax function.

One walk over the nodes. Convolutions, products, pooling and what stands between them are lowered here (`lowering`), so
that images keep their channels in blocks from the first convolution to the last; every other operator goes through
TVM's own ONNX converter, in plain layout. Values change layout only where two such parts meet.

Codes of quantized activations are *held* in the type that the machine's instruction takes, `Dot.codes`: signed where
that is int8, unsigned where it is uint8, with half of the range added or taken away where the model has the other.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ....errors import OptcError, TargetError
from ....ir.attributes import AttributeValue
from ....ir.graph import Graph, Value
from ....ir.node import Node
from ....ir.tensor import Tensor
from ....ir.types import DType, TensorType
from ..artifact.plan import REQUIRED
from ..blame import where, without_kernel
from ..compute import layout
from ..compute.codes import recode
from ..compute.conv import Window
from ..compute.workload import Workload
from ..cpu.machine import Machine
from ..cpu.tiling import Tile
from .bounds import check_bounds

if TYPE_CHECKING:
    import tvm
    from tvm import relax, te

_PACKED = frozenset({
    DType.INT4, DType.UINT4, DType.INT2, DType.UINT2, DType.FLOAT4E2M1, DType.FLOAT6E2M3, DType.FLOAT6E3M2,
})  # fmt: skip
"""Types of which several elements share a byte."""
MOVES = frozenset(
    {
        "Concat", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice", "Split", "Squeeze", "Transpose",
        "Unsqueeze",
    }
)  # fmt: skip
"""What carries codes about and asks nothing of them but their order."""
CODED = frozenset({"QuantizeLinear", "DequantizeLinear", "Pad"})
"""What asks more of codes, and whose rules know how they are held."""
FUSABLE = 4
"""TVM's number for a kernel that takes elementwise work into its end (`kOutEWiseFusable`)."""
INJECTIVE = 2


@dataclass(frozen=True, slots=True)
class Blocked:
    """A value as [N, C / b, H * W, b]: `expr`, and the image that it holds. The last block may hold unused channels."""

    expr: relax.Expr
    channels: int
    height: int
    width: int
    block: int

    @property
    def whole(self) -> bool:
        """Whether every channel of every block is one of the image's."""
        return self.channels % self.block == 0


@dataclass(frozen=True, slots=True)
class Product:
    """What stands behind the answer of a layer on codes: (sums + bias) * scale + rest, each as it broadcasts.

    `most` is the largest number that this can be.
    """

    sums: relax.Expr
    bias: npt.NDArray[np.generic]
    scale: npt.NDArray[np.float32]
    rest: npt.NDArray[np.float32] | None
    most: float


def import_graph(
    graph: Graph, machine: Machine, dims: Mapping[str, int], tiles: Mapping[Workload, Tile] | None = None
) -> tvm.IRModule:
    """The module whose function `main` computes `graph`. `dims` gives sizes to symbolic dimensions, `tiles` tells how
    to cut workloads that are not to be cut by default.

    Raises `TargetError` naming the node that cannot be taken.
    """
    return Importer(graph, machine, dims, tiles).run()


class Importer:
    """The walk: where each value of the graph is, plain and in blocks."""

    def __init__(
        self, graph: Graph, machine: Machine, dims: Mapping[str, int], tiles: Mapping[Workload, Tile] | None = None
    ) -> None:
        from tvm import relax

        self.graph = graph
        self.machine = machine
        self.bb = relax.BlockBuilder()
        self._dims: dict[str, Any] = dict(dims)
        self._plain: dict[Value, Any] = {}
        self._blocked: dict[Value, Blocked] = {}
        self.parts: dict[Value, list[Blocked]] = {}  # what images of floats were joined from
        self._declared: dict[Value, Any] = {}
        self.held: set[Value] = set()
        self.products: dict[Value, Product] = {}
        self.numbers: dict[Value, Callable[[], relax.Expr]] = {}
        """How to make, in registers, the floats that are the unsigned form of codes which a layer gives."""
        self.workloads: dict[Workload, int] = {}
        """How often each workload was met."""
        self._tiles = tiles or {}
        self.required: list[str] = []
        """What must be so when the model runs: what the artifact says where it is not."""
        self._truths: list[Any] = []

    def run(self) -> tvm.IRModule:
        from tvm import relax

        check_bounds(self.graph)
        params = [self._parameter(index, value) for index, value in enumerate(self.graph.inputs)]
        with self.bb.function("main", params=params):
            try:
                with self.bb.dataflow():
                    for node in self.graph:
                        self._take(node)
                    results = [self.bb.emit_output(self._output(output.value)) for output in self.graph.outputs]
                    results += [self.bb.emit_output(truth) for truth in self._truths]
            except BaseException:
                self.bb._end_block()  # or TVM tells the terminal that it was not
                raise
            self.bb.emit_func_output(relax.Tuple(results))
        return self.bb.get().with_attr(REQUIRED, self.required) if self.required else self.bb.get()

    def _output(self, value: Value) -> relax.Expr:
        """A value as the caller gets it: sizes of open tensors as numbers."""
        from tvm import relax

        if value.dtype in _PACKED:
            raise TargetError(f"output '{value.name}' holds {value.dtype.text}, of which libraries give none; cast it")
        expr = self.plain(value)
        return self.emit(relax.op.shape_to_tensor(expr)) if isinstance(expr.ty, relax.ShapeType) else expr

    def require(self, truth: relax.Expr, what: str) -> None:
        """The artifact fails, and says `what`, where `truth`, a bool of rank 0, is false when it runs."""
        self._truths.append(truth)
        self.required.append(what)

    def plain(self, value: Value) -> relax.Expr:
        """The value in the layout and the type that ONNX gives it."""
        if value not in self.held:
            return self.flat(value)
        if value not in self._declared:
            assert value.dtype is not None
            expr = self.flat(value)
            name, shift = value.dtype.numpy.name, self.shift(value.dtype)
            same = shift == 0 and str(expr.ty.dtype.dtype) == name
            self._declared[value] = expr if same else self.te(recode, expr, pattern=0, dtype=name, shift=shift)
        return self._declared[value]

    def shift(self, dtype: DType) -> int:
        """What codes of this type have more in the model than as they are held."""
        held = self.machine.dot.codes if self.machine.dot is not None else ""
        return {("int8", DType.UINT8): 128, ("uint8", DType.INT8): -128}.get((held, dtype), 0)

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
        self.held.add(value)

    def keep(self, value: Value, blocked: Blocked) -> None:
        """The value in blocks, for whoever reads it next."""
        self._blocked[value] = blocked

    def blocked(self, value: Value) -> Blocked | None:
        """The value in blocks, where it already is."""
        return self._blocked.get(value)

    def image(self, value: Value) -> Blocked | None:
        """The value as an image in blocks of any size, without moving data; none where its size is not known."""
        from tvm import relax

        held = self._blocked.get(value)
        if held is not None and held.whole:
            return held
        shape = value.shape
        if shape is None or len(shape) != 4 or not all(isinstance(size, int) for size in shape[1:]):
            return None
        c, h, w = (int(size or 0) for size in shape[1:])
        x = self.plain(value)
        return Blocked(self.emit(relax.op.reshape(x, (x.ty.shape[0], c, h * w, 1))), c, h, w, 1)

    def packed(self, value: Value) -> Blocked | None:
        """The value in blocks of the machine's size, packed where it is not yet so; none where it does not fit."""
        from tvm import relax

        held = self._blocked.get(value)
        if held is not None and held.whole:
            return held
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
        return self.bb.emit_te(
            lambda *found: function(*found, **options),
            *tensors,
            primfunc_name_hint=function.__name__,
            primfunc_attrs={"op_pattern": pattern},
        )

    def _parameter(self, index: int, value: Value) -> relax.Var:
        from tvm import relax, tirx

        kind = value.type
        if not isinstance(kind, TensorType) or kind.sparse or kind.dtype is DType.STRING:
            raise TargetError(f"TVM takes dense tensors of numbers, which input '{value.name}' is not; build for onnx")
        if kind.dtype in _PACKED:
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

    def _unpack(self, held: Blocked) -> relax.Expr:
        from tvm import relax

        if held.height * held.width == 1 and held.whole:
            shape = (held.expr.ty.shape[0], held.channels, 1, 1)
            return self.emit(relax.op.reshape(held.expr, shape))
        return self.te(
            layout.unpack,
            held.expr,
            pattern=INJECTIVE,
            channels=held.channels,
            height=held.height,
            width=held.width,
        )

    def _take(self, node: Node) -> None:
        try:
            self._lower(node)
        except OptcError:
            raise
        except Exception as error:
            raise without_kernel(node, error) from error

    def _lower(self, node: Node) -> None:
        from .lowering import LOWERINGS
        from .rules.call import Call
        from .rules.indices import PLACES, within
        from .rules.table import RULES

        if all(0 in (value.static_shape or ()) for value in node.outputs):
            for value in node.outputs:
                assert value.dtype is not None
                self._plain[value] = constant(np.zeros(value.static_shape or (), value.dtype.numpy))
            return
        rule = LOWERINGS.get(node.op) if node.domain == "" else None
        held = [value for value in node.inputs if value in self.held]
        moves = node.op in MOVES and node.inputs[0] in held and (node.op != "Concat" or len(held) == len(node.inputs))
        if held and not moves and node.op not in CODED:
            rule = None
        lowered: Any = rule(self, node) if rule is not None else None
        if lowered is None and node.domain == "" and not moves and (kernel := RULES.get(node.op)) is not None:
            lowered = kernel(Call(self, node))
        if lowered is None:
            take = self.flat if moves else self.plain
            operands = [None if v is None else take(v) for v in node.inputs]
            if node.op in PLACES and node.domain == "":
                place = PLACES[node.op]
                operands[place] = within(Call(self, node), operands[0], operands[place])
            lowered = self.convert(node, operands)
        if moves:
            self.held.update(node.outputs)
        results = lowered if isinstance(lowered, list) else [lowered]
        if missing := [value.name for value in node.outputs[len(results) :] if value.uses]:
            raise TargetError(f"{where(node)} cannot be compiled: no kernel gives '{missing[0]}'; build for onnx")
        for value, one in zip(node.outputs, results):
            if isinstance(one, Blocked):
                self._blocked[value] = one
            else:
                self._plain[value] = one
                self._check(node, value, one)

    def _check(self, node: Node, value: Value, expr: Any) -> None:
        """Raises `TargetError` where a value is made in another type or of other sizes than ONNX gives it."""
        from tvm import relax

        if value.dtype is None or value in self.held or not isinstance(expr.ty, relax.TensorType):
            return
        dtype = str(expr.ty.dtype.dtype)
        if dtype != value.dtype.numpy.name:
            raise TargetError(f"{where(node)} would give {dtype} for {value.dtype.text} '{value.name}'; build for onnx")
        sizes = None if expr.ty.shape is None else [number(size) for size in expr.ty.shape]
        wanted = value.shape
        if sizes is None or wanted is None:
            return
        pairs = zip(sizes, wanted, strict=False)
        if len(sizes) != len(wanted) or any(isinstance(b, int) and a not in (None, b) for a, b in pairs):
            raise TargetError(f"{where(node)} would give {sizes} for {list(wanted)} '{value.name}'; build for onnx")

    def convert(self, node: Node, inputs: Sequence[Any]) -> relax.Expr | list[Any]:
        """The node through TVM's ONNX converter."""
        from tvm import relax
        from tvm.relax.frontend.onnx import onnx_frontend as frontend

        from ..legal.lifting import POOLS
        from ..support import CONVERTED
        from .rules.table import RULES

        place = where(node)
        known = frontend._get_convert_map()
        several = "Sequence" in node.op  # the converter's tuples would be taken for the outputs of the node
        foreign = node.domain == "" and node.op not in CONVERTED and node.op not in RULES
        if node.domain not in ("", "com.microsoft") or node.op not in known or node.bodies or several or foreign:
            raise TargetError(
                f"TVM does not take {place}; {_ADVICE.get(node.op, 'replace it by other operators, or build for onnx')}"
            )
        if node.op in POOLS and node.get_string("auto_pad", "").startswith("SAME"):  # else its pads are written out
            fix = "fix those of the inputs with --shape, or build for onnx"
            raise TargetError(f"TVM does not take {place}; its auto_pad needs known sizes: {fix}")
        importer = frontend.ONNXGraphImporter({}, "float32")
        importer.bb = self.bb
        attributes: dict[str, Any] = {name: _attribute(held.value) for name, held in node.attributes.items()}
        attributes["tvm_custom"] = {"name": node.name, "num_outputs": len(node.outputs)}
        # The converter prints what it stumbles over.
        try:
            with redirect_stdout(io.StringIO()):
                converted = importer._convert_operator(
                    node.op, frontend.onnx_input(inputs), attributes, self.graph.opset(node.domain)
                )
        except Exception as error:
            raise without_kernel(node, error) from error
        if isinstance(converted, relax.Tuple):
            return [self._bound(field) for field in converted.fields]
        if isinstance(converted.ty, relax.TupleType):
            held = self.emit(converted)
            return [self.emit(relax.TupleGetItem(held, i)) for i in range(len(held.ty.fields))]
        return self._bound(converted)

    def _bound(self, expr: relax.Expr) -> relax.Expr:
        from tvm import relax

        return self.emit(expr) if isinstance(expr, relax.Call) else expr


def constant(array: npt.NDArray[np.generic]) -> relax.Expr:
    """A constant of the array's own type: TVM would take int64 for int32 and doubles for floats."""
    from tvm import relax

    return relax.const(np.asarray(array, order="C"), str(array.dtype))


def number(size: object) -> int | None:
    """A size where it is known."""
    from tvm import tirx

    return int(size) if isinstance(size, int | tirx.IntImm) else None


def _attribute(value: AttributeValue) -> Any:
    """An attribute as the converters of TVM expect it: text as bytes, tensors as ONNX holds them."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, Tensor):
        from onnx import numpy_helper

        return numpy_helper.from_array(value.numpy())
    if isinstance(value, tuple):
        return tuple(_attribute(one) for one in value)
    return value


_ADVICE = {
    **dict.fromkeys(
        ("LSTM", "GRU", "RNN"),
        "it is written out where its steps (at most 512) and batch are known: fix them with --shape, or build for onnx",
    ),
    "If": "its branches must give the same known sizes: fix those of the inputs with --shape, or build for onnx",
    **dict.fromkeys(
        ("Loop", "Scan"), "its rounds must be known when it is built: fix sizes with --shape, or build for onnx"
    ),
}
