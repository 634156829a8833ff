"""What onnx's schemas say of an operator: inputs, outputs, attributes and their kinds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from ..attributes import AttributeKind


@dataclass(frozen=True, slots=True)
class Signature:
    """`inputs` and `outputs` bound how many there are, ends included; `required` are the places of inputs that may not
    be absent, `needed` the names of attributes that may not."""

    inputs: tuple[int, int]
    outputs: tuple[int, int]
    required: tuple[int, ...]
    kinds: dict[str, AttributeKind]
    needed: tuple[str, ...]


@cache
def onnx_domains() -> frozenset[str]:
    """The domains whose operators the installed onnx knows."""
    from onnx.defs import get_all_schemas

    return frozenset(schema.domain for schema in get_all_schemas())


@cache
def signature_of(op: str, domain: str, version: int) -> Signature | None:
    """The signature of an operator in a version of its operator set, `None` where there is none."""
    from onnx.defs import OpSchema, SchemaError, get_schema

    try:
        schema = get_schema(op, version, domain)
    except SchemaError:
        return None
    single = OpSchema.FormalParameterOption.Single
    return Signature(
        (schema.min_input, schema.max_input),
        (schema.min_output, schema.max_output),
        tuple(index for index, parameter in enumerate(schema.inputs) if parameter.option == single),
        {name: AttributeKind[str(attribute.type).rpartition(".")[2]] for name, attribute in schema.attributes.items()},
        tuple(name for name, attribute in schema.attributes.items() if attribute.required),
    )
