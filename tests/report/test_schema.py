"""The published schema describes what is written: every real report keeps to it, and it knows every field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from optc.compiler import compile
from optc.report.build import SCHEMA

jsonschema = pytest.importorskip("jsonschema")
PATH = Path(__file__).parents[2] / "docs" / "report.schema.json"


@pytest.fixture(scope="module")
def schema() -> Any:
    return json.loads(PATH.read_text())


@pytest.fixture(scope="module")
def document() -> Any:
    budget = "size=0.1x,macs=1M,agreement=1%,kl=9,snr=1,params=1x,latency=9s"
    return json.loads(compile("zoo:digits_dscnn", "svd,quant", budget=budget, threads=1).report.to_json())


def unknown(value: Any, schema: Any, root: Any, at: str = "") -> list[str]:
    """The fields of a document that its schema does not describe."""
    while "$ref" in schema or "anyOf" in schema:
        if "anyOf" in schema:
            schema = next(one for one in schema["anyOf"] if one.get("type") != "null")
        if "$ref" in schema:
            schema = root["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    if isinstance(value, list):
        return [name for one in value for name in unknown(one, schema["items"], root, f"{at}[]")]
    if not isinstance(value, dict):
        return []
    fields = []
    for key, inner in value.items():
        described = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
        fields += [f"{at}.{key}"] if described is None else unknown(inner, described, root, f"{at}.{key}")
    return fields


def test_the_schema_is_one_and_names_its_version(schema: Any) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"] == schema["properties"]["schema"]["const"] == SCHEMA


def test_real_reports_keep_to_the_schema(schema: Any, document: Any) -> None:
    jsonschema.validate(document, schema)
    assert not unknown(document, schema, schema)
    plain = json.loads(compile("zoo:digits_dscnn", "clean", check=False).report.to_json())
    jsonschema.validate(plain, schema)
    assert plain["budget"] is plain["agreement"] is None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), "optc.build/2"),
        (("before", "bytes"), -1),
        (("budget", "limits", 0, "metric"), "drop"),
        (("passes", 0, "seconds"), "fast"),
        (("passes", 1, "layers", 0, "reason"), ""),
        (("agreement", "outputs", 0, "kind"), "guesses"),
    ],
)
def test_the_schema_refuses_what_is_wrong(
    path: tuple[str | int, ...], value: object, schema: Any, document: Any
) -> None:
    broken = json.loads(json.dumps(document))
    at = broken
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    if path[-1] == "reason":
        at["outcome"] = "skipped"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)
