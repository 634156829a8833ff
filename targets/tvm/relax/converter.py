"""Operators through TVM's own converter of ONNX, which takes what no kernel of ours does."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

from tvm import relax

from ....errors import TargetError
from ....ir.attributes import AttributeValue
from ....ir.node import Node
from ....ir.tensor import Tensor
from ..blame import where, without_kernel
from ..legal.lifting import POOLS
from .importer import Importer
from .table import CONVERTED, RULES


def convert(importer: Importer, node: Node, inputs: Sequence[Any]) -> relax.Expr | list[Any]:
    """The node through TVM's ONNX converter."""
    from tvm.relax.frontend.onnx import onnx_frontend as frontend

    place = where(node)
    converters = frontend._get_convert_map()
    several = "Sequence" in node.op  # the converter's tuples would be taken for the outputs of the node
    foreign = node.domain == "" and node.op not in CONVERTED and node.op not in RULES
    if node.domain not in ("", "com.microsoft") or node.op not in converters or node.bodies or several or foreign:
        raise TargetError(f"TVM does not take {place}; replace it by other operators, or build for onnx")
    if node.op in POOLS and node.get_string("auto_pad", "").startswith("SAME"):  # else its pads are written out
        fix = "fix those of the inputs with --shape, or build for onnx"
        raise TargetError(f"TVM does not take {place}; its auto_pad needs known sizes: {fix}")
    theirs = frontend.ONNXGraphImporter({}, "float32")
    theirs.bb = importer.bb
    attributes: dict[str, Any] = {name: _attribute(one.value) for name, one in node.attributes.items()}
    attributes["tvm_custom"] = {"name": node.name, "num_outputs": len(node.outputs)}
    # The converter prints what it stumbles over.
    try:
        with redirect_stdout(io.StringIO()):
            converted = theirs._convert_operator(
                node.op, frontend.onnx_input(inputs), attributes, importer.graph.opset(node.domain)
            )
    except Exception as error:
        raise without_kernel(node, error) from error
    if isinstance(converted, relax.Tuple):
        return [_bound(importer, field) for field in converted.fields]
    if isinstance(converted.ty, relax.TupleType):
        fields = importer.emit(converted)
        return [importer.emit(relax.TupleGetItem(fields, i)) for i in range(len(fields.ty.fields))]
    return _bound(importer, converted)


def _bound(importer: Importer, expr: relax.Expr) -> relax.Expr:
    return importer.emit(expr) if isinstance(expr, relax.Call) else expr


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
