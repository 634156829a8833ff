"""What a rule sees: one node, where its operands are, and how its kernels are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt
from tvm import relax, te

from .....errors import TargetError
from .....ir.node import Node, Value
from ...open_sizes import follows
from ..expressions import OPAQUE

if TYPE_CHECKING:
    from ..importer import Importer

_ADVICE = "build for onnx, or replace it by other operators"


class LoweringCall:
    """One node. Operands are counted as ONNX counts them; results have the sizes that the graph gives them."""

    def __init__(self, importer: Importer, node: Node) -> None:
        self.importer = importer
        self.node = node

    def has(self, index: int) -> bool:
        """Whether an operand is there."""
        return self.node.input(index) is not None

    def value(self, index: int) -> Value:
        """An operand. Raises `TargetError` where it is absent."""
        value = self.node.input(index)
        if value is None:
            self.refuse(f"it has no input {index}")
        return value

    def expr(self, index: int) -> relax.Expr:
        """An operand, in plain layout."""
        return self.importer.plain(self.value(index))

    def array(self, index: int) -> npt.NDArray[Any] | None:
        """An operand that is a constant; none where it is absent or computed."""
        value = self.node.input(index)
        return None if value is None or value.constant is None else value.constant.numpy()

    def stored(self, index: int) -> npt.NDArray[Any]:
        """An operand that is a constant. Raises `TargetError` where it is computed as the model runs."""
        array = self.array(index)
        if array is None:
            self.refuse(f"its operand {index + 1} is computed as the model runs")
        return array

    def ints(self, index: int, attribute: str) -> tuple[int, ...] | None:
        """Whole numbers that are an attribute in old forms of the operator and a constant operand in new ones; none
        where they are absent. Raises `TargetError` where they are computed as the model runs."""
        if self.has(index):
            array = self.array(index)
            if array is None:
                self.refuse(f"its {attribute} are computed as the model runs")
            return tuple(int(one) for one in np.ravel(array))
        return self.node.get_ints(attribute) if attribute in self.node.attributes else None

    def is_known(self, index: int) -> bool:
        """Whether an operand is absent or a constant."""
        return not self.has(index) or self.array(index) is not None

    def sizes(self, index: int) -> tuple[int, ...]:
        """The sizes of an operand. Raises `TargetError` where one is open."""
        return self._fixed(self.value(index))

    def result(self, index: int = 0) -> tuple[int, ...]:
        """The sizes of a result. Raises `TargetError` where one is open."""
        return self._fixed(self.node.outputs[index])

    def open_sizes(self, index: int) -> tuple[Any, ...]:
        """The sizes of an operand: numbers, and expressions of those of the inputs. Raises `TargetError` for others."""
        value = self.value(index)
        return value.static_shape or self.importer.sizes.shape(value) or self._fixed(value)

    def open_result(self, index: int = 0) -> tuple[Any, ...]:
        """The sizes of a result: numbers, and expressions of those of the inputs. Raises `TargetError` for others."""
        value = self.node.outputs[index]
        return value.static_shape or self.importer.sizes.shape(value) or self._fixed(value)

    def elements(self, index: int) -> tuple[Any, ...] | None:
        """The elements of an operand of whole numbers, as numbers and as expressions of the sizes of the inputs; none
        where they are known only when the model runs."""
        array = self.array(index)
        if array is not None:
            return tuple(array.ravel().tolist())
        return self.importer.sizes.elements(self.value(index))

    def dtype(self, index: int = 0) -> str:
        """The type of a result, as TVM spells it. Raises `TargetError` where it is not known."""
        return str(self.numpy(index).name)

    def numpy(self, index: int = 0) -> np.dtype[Any]:
        """The type of a result. Raises `TargetError` where it is not known."""
        dtype = self.node.outputs[index].dtype
        if dtype is None:
            self.refuse(f"the type of '{self.node.outputs[index].name}' is not known")
        return dtype.numpy

    def te(
        self, function: Callable[..., te.Tensor], *operands: relax.Expr, pattern: int = OPAQUE, **options: Any
    ) -> relax.Expr:
        """A kernel of ours, which other work is fused to only where `pattern` says so."""
        return self.importer.te(function, *operands, pattern=pattern, **options)

    def emit(self, expr: relax.Expr) -> relax.Expr:
        return self.importer.emit(expr)

    def cast(self, expr: relax.Expr, dtype: str) -> relax.Expr:
        """An expression in a type."""
        return expr if str(expr.ty.dtype.dtype) == dtype else self.emit(relax.op.astype(expr, dtype))

    def reshape(self, expr: relax.Expr, sizes: Sequence[int]) -> relax.Expr:
        return self.emit(relax.op.reshape(expr, tuple(sizes)))

    def squeeze(self, expr: relax.Expr, axis: int) -> relax.Expr:
        """An expression without an axis of size one."""
        return self.emit(relax.op.reshape(expr, [size for at, size in enumerate(expr.ty.shape) if at != axis]))

    def require(self, truth: relax.Expr, what: str) -> None:
        """The artifact fails, and says `what` was not so, where a bool of rank 0 is not true when it runs."""
        from ...blame import where

        self.importer.require(truth, f"{where(self.node)}: {what}")

    def refuse(self, reason: str, advice: str = _ADVICE) -> NoReturn:
        """Raises `TargetError` naming the node."""
        from ...blame import where

        raise TargetError(f"{where(self.node)} cannot be compiled: {reason}; {advice}")

    def _fixed(self, value: Value) -> tuple[int, ...]:
        sizes = value.static_shape
        if sizes is None:
            sized = all(one is None or one.static_shape is not None for one in self.node.inputs)
            if sized and value in self.node.outputs and not follows(value):
                self.refuse(f"how large '{value.name}' is depends on data, and the model declares no size of it")
            self.refuse(f"'{value.name}' has open sizes", "fix those of the inputs: --shape INPUT=1x3x224x224")
        return sizes
