"""The rules of ONNX: what a graph must hold so that the model written from it is one.

Operators of ONNX's own domains are held against onnx's schemas: number of inputs and outputs, required inputs, names
and kinds of attributes. Operators of other domains pass, for nothing is known of them here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ..attributes import Attribute, AttributeKind
from ..graph import Function, Graph, Node, Output, Value
from ..onnx.signature import Signature, onnx_domains, signature_of
from ..tensor import SparseTensor, Tensor
from ..types import DType, MapType, OpaqueType, OptionalType, SequenceType, TensorType, Type
from .rule import CheckedGraph, Fault, VerifierRule

_SCALARS: dict[AttributeKind, Callable[[object], bool]] = {
    AttributeKind.FLOAT: lambda v: isinstance(v, float),
    AttributeKind.INT: lambda v: isinstance(v, int) and not isinstance(v, bool),
    AttributeKind.STRING: lambda v: isinstance(v, str | bytes),
    AttributeKind.TENSOR: lambda v: isinstance(v, Tensor) and not isinstance(v, SparseTensor),
    AttributeKind.GRAPH: lambda v: isinstance(v, Graph),
    AttributeKind.SPARSE_TENSOR: lambda v: isinstance(v, SparseTensor),
    AttributeKind.TYPE_PROTO: lambda v: isinstance(v, TensorType | SequenceType | OptionalType | MapType | OpaqueType),
}
_LISTS = {AttributeKind[f"{kind.name}S"]: fits for kind, fits in _SCALARS.items()}
_ALWAYS = 1 << 31
UNSPECIFIED = {
    **dict.fromkeys(("ATen", "Affine", "ConstantFill", "Crop", "DynamicSlice", "GRUUnit", "GivenTensorFill"), _ALWAYS),
    **dict.fromkeys(("ImageScaler", "ParametricSoftplus", "Scale", "ScaledTanh"), _ALWAYS),
    **dict.fromkeys(("MemcpyFromHost", "MemcpyToHost", "SimplifiedLayerNormalization"), _ALWAYS),
    "LayerNormalization": 16, "MeanVarianceNormalization": 8, "ThresholdedRelu": 9,
}  # fmt: skip
"""Operators of the ONNX domain that onnx has no schema of, with the last opset in which it has none: old models have
them, and ONNX Runtime has registered some there for itself, which its optimiser and exporters write into models."""
_ELEMENT_TYPES = frozenset(DType) - {DType.UNDEFINED}


def _interface(place: CheckedGraph) -> Iterator[Fault]:
    if not place.outermost:
        return
    inputs: dict[str, Value] = {}
    for value in place.graph.inputs:
        if not value.name or inputs.setdefault(value.name, value) is not value:
            yield Fault(f"two inputs are called {value.name!r}, or one has no name; name each", None, value)
    outputs: dict[str, Output] = {}
    for output in place.graph.outputs:
        if not output.name or outputs.setdefault(output.name, output) is not output:
            yield Fault(f"two outputs are called {output.name!r}, or one has no name; name each", None, output)
        if inputs.get(output.name, output.value) is not output.value:
            yield Fault(f"output {output.name!r} has the name of an input that it is not; rename one", None, output)


def _output_types(place: CheckedGraph) -> Iterator[Fault]:
    for output in place.graph.outputs:
        declared, actual = output.type, output.value.type
        if not isinstance(declared, TensorType) or not isinstance(actual, TensorType):
            if declared is not None and actual is not None and type(declared) is not type(actual):
                yield Fault(f"output {output.name!r} is declared another kind of type than its value", None, output)
        elif declared.dtype is not actual.dtype and DType.UNDEFINED not in (declared.dtype, actual.dtype):
            yield Fault(
                f"output {output.name!r} is declared {declared.dtype.text} and its value is {actual.dtype.text}; "
                "cast the value: the interface does not change",
                None,
                output,
            )


def _constants(place: CheckedGraph) -> Iterator[Fault]:
    for value in place.graph.constants:
        if value.constant is not None:
            yield from _data(value, value.type, value.constant)
    for value in place.graph.inputs:
        if value.default is not None and value.type is not None:
            yield from _data(value, value.type, value.default)


def _data(value: Value, declared: Type | None, tensor: Tensor) -> Iterator[Fault]:
    fits = isinstance(declared, TensorType) and declared.dtype is tensor.dtype
    if fits and isinstance(declared, TensorType) and declared.shape is not None:
        sizes = zip(declared.shape, tensor.shape, strict=False)
        fits = len(declared.shape) == len(tensor.shape) and all(d == s or not isinstance(d, int) for d, s in sizes)
    if not fits:
        from ..text.literal import type_text

        content = f"{tensor.dtype.text}{list(tensor.shape)}"
        yield Fault(f"its type is {type_text(declared)} and its data {content}; make a new constant", None, value)


def _attributes(place: CheckedGraph) -> Iterator[Fault]:
    for node in place.graph:
        for name, attribute in node.attributes.items():
            if problem := _misfit(attribute):
                yield Fault(f"attribute {name!r} {problem}", node)
    if place.function is not None and place.outermost:
        for name, attribute in place.function.defaults.items():
            if problem := _misfit(attribute) or ("refers to another attribute" if attribute.ref else ""):
                yield Fault(f"the default of attribute {name!r} of the function {problem}")


def _misfit(attribute: Attribute) -> str:
    kind, value = attribute.kind, attribute.value
    if value is None or attribute.ref:
        return "" if value is None and attribute.ref else "needs a value or a reference, and not both"
    scalar = _SCALARS.get(kind)
    if scalar is not None:
        fits = scalar(value)
    else:
        fits = kind in _LISTS and isinstance(value, tuple) and all(map(_LISTS[kind], value))
    return "" if fits else f"is of kind {kind.name} and holds a {type(value).__name__}; use Node.set_attribute"


def _references(place: CheckedGraph) -> Iterator[Fault]:
    function = place.function
    for node in place.graph:
        for name, attribute in node.attributes.items():
            if not attribute.ref:
                continue
            if function is None:
                yield Fault(
                    f"attribute {name!r} refers to {attribute.ref!r} outside of a function; give it a value", node
                )
            elif attribute.ref not in function.attributes and attribute.ref not in function.defaults:
                yield Fault(
                    f"attribute {name!r} refers to {attribute.ref!r}, which the function does not declare", node
                )


def _opsets(place: CheckedGraph) -> Iterator[Fault]:
    imported = place.graph.root.opsets
    if place.outermost:
        from onnx.defs import onnx_opset_version

        newest = onnx_opset_version()
        if not 0 < imported.get("", 1) <= newest:
            yield Fault(f"opset {imported['']} is unknown; the installed onnx knows 1 to {newest}: upgrade it")
    for node in place.graph:
        if node.domain not in imported:
            domain = node.domain or "ai.onnx"
            yield Fault(f"no version of the operator set {domain!r} is imported; add it to Graph.opsets", node)


def _schemas(place: CheckedGraph) -> Iterator[Fault]:
    imported, functions = place.graph.root.opsets, place.model.functions
    for node in place.graph:
        version = imported.get(node.domain, 0)
        if not version or (functions and (node.domain, node.op, node.overload) in functions):
            continue
        if node.domain not in onnx_domains():
            continue
        signature = signature_of(node.op, node.domain, version)
        if signature is None and not node.domain and version <= UNSPECIFIED.get(node.op, 0):
            continue
        if signature is None:
            text = f"there is no operator {node.op} in opset {version} of {node.domain or 'ai.onnx'}"
            yield Fault(f"{text}; correct its name, or the opset that the model imports", node)
        else:
            yield from _against(signature, node)


def _against(signature: Signature, node: Node) -> Iterator[Fault]:
    inputs, outputs = node._inputs, node._outputs
    low, high = signature.inputs
    if not low <= len(inputs) <= high:
        yield Fault(f"it has {len(inputs)} inputs and takes {_span(low, high)}", node)
    low, high = signature.outputs
    if not low <= len(outputs) <= high:
        yield Fault(f"it has {len(outputs)} outputs and makes {_span(low, high)}", node)
    for index in signature.required:
        if index < len(inputs) and inputs[index] is None:
            yield Fault(f"input {index} is absent and the operator needs it", node)
    for name in signature.needed:
        if name not in node.attributes:
            yield Fault(f"attribute {name!r} is missing and the operator needs it", node)
    for name, attribute in node.attributes.items():
        kind = signature.kinds.get(name)
        # onnx reserves names that begin with two underscores for tools.
        if kind is None and not name.startswith("__"):
            yield Fault(f"the operator has no attribute {name!r} in this opset; remove it", node)
        elif kind is not None and attribute.kind is not kind:
            yield Fault(f"attribute {name!r} is of kind {attribute.kind.name}; the operator takes {kind.name}", node)


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} or more" if high > 1 << 30 else f"{low} to {high}"


def _element_types(place: CheckedGraph) -> Iterator[Fault]:
    for node in place.graph:
        if not node.attributes or node.domain:
            continue
        for name in ("to", "dtype"):
            attribute = node.attributes.get(name)
            if attribute is not None and attribute.kind is AttributeKind.INT and not attribute.ref:
                value = attribute.value
                if value not in _ELEMENT_TYPES:
                    yield Fault(f"attribute {name!r} is {value!r}, which is no element type of ONNX", node)


def _bodies(place: CheckedGraph) -> Iterator[Fault]:
    for node in place.graph:
        if node.domain or node.op not in ("If", "Loop", "Scan"):
            continue
        takes, returns = len(node._inputs), len(node._outputs)
        if node.op == "If":
            takes = 0
        elif node.op == "Loop":
            takes, returns = max(takes, 2), returns + 1
        elif place.graph.opset() < 9:
            takes -= 1
        for body in node.bodies:
            if (len(body._inputs), len(body._outputs)) != (takes, returns):
                form = f"takes {len(body._inputs)} and returns {len(body._outputs)}"
                yield Fault(f"its body {body.name!r} {form}; it must take {takes} and return {returns}", node)


def _calls(place: CheckedGraph) -> Iterator[Fault]:
    functions = place.model.functions
    if not functions and place.function is None:
        for node in place.graph:
            if node.overload:
                yield Fault(f"it calls overload {node.overload!r} of a function, and the model has none", node)
        return
    for node in place.graph:
        key = (node.domain, node.op, node.overload)
        function = functions.get(key)
        if function is None:
            if node.overload:
                yield Fault(f"it calls overload {node.overload!r}, and the model has no such function", node)
            continue
        if len(node._inputs) > len(function.graph._inputs) or len(node._outputs) > len(function.graph._outputs):
            yield Fault("it has more inputs or outputs than the function that it calls", node)


def _functions(place: CheckedGraph) -> Iterator[Fault]:
    if not place.outermost or place.function is not None:
        return
    functions = place.model.functions
    for key, function in functions.items():
        if key != (function.domain, function.name, function.overload):
            yield Fault(f"a function is kept under {key} and calls itself {function.domain}.{function.name}")
    called = {key: [k for k in _called(function) if k in functions] for key, function in functions.items()}
    done: set[tuple[str, str, str]] = set()
    while ready := [key for key in called if key not in done and done.issuperset(called[key])]:
        done.update(ready)
    for key in called:
        if key not in done:
            yield Fault(
                f"function {'.'.join(key[:2])} calls itself, by itself or through others; ONNX has no recursion"
            )
            return


def _called(function: Function) -> Iterable[tuple[str, str, str]]:
    return {(node.domain, node.op, node.overload) for node in function.graph.walk()}


CONFORMANCE = (
    VerifierRule("interface", "inputs and outputs have names, each its own", _interface),
    VerifierRule("output-types", "a value has the element type its output declares", _output_types),
    VerifierRule("constants", "the data of constants and defaults is of the type they are declared", _constants),
    VerifierRule("attributes", "an attribute holds a value of its kind, or a reference", _attributes),
    VerifierRule("references", "a reference names an attribute of the function around it", _references),
    VerifierRule("opsets", "every operator set used is imported, in a version that exists", _opsets),
    VerifierRule("schemas", "ONNX's operators have the inputs, outputs and attributes their schemas ask", _schemas),
    VerifierRule("element-types", "an attribute that names an element type names one", _element_types),
    VerifierRule("bodies", "the bodies of If, Loop and Scan take and return what their node does", _bodies),
    VerifierRule("calls", "calls of functions resolve, and give no more than the function takes", _calls),
    VerifierRule("functions", "functions are kept under their names and do not recurse", _functions),
)
