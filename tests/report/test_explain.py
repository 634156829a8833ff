"""What happened to a layer, out of the record of a build."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from optc.compiler import compile
from optc.errors import DataError, SpecError
from optc.report.build import BuildReport
from optc.report.explain import events, load, render


@pytest.fixture(scope="module")
def report() -> BuildReport:
    return compile("zoo:digits_dscnn", "svd,quant", threads=1, check=False).report


def test_every_pass_speaks_of_a_layer(report: BuildReport) -> None:
    document = json.loads(report.to_json())
    listed = events(document, "block5.pointwise")
    assert [event.spec for event in listed] == ["svd", "quant"]
    assert [event.position for event in listed] == [2, 3]
    for event, step in zip(listed, document["passes"][1:3], strict=True):
        (layer,) = (one for one in step["layers"] if one["name"] == "block5.pointwise")
        assert (event.outcome, event.reason, event.detail) == (layer["outcome"], layer["reason"], layer["detail"])


def test_a_glob_finds_many_layer_by_layer(report: BuildReport) -> None:
    listed = events(json.loads(report.to_json()), "block[12].*")
    names = [event.layer for event in listed]
    assert set(names) == {"block1.depthwise", "block1.pointwise", "block2.depthwise", "block2.pointwise"}
    assert sorted(set(names), key=names.index) == [name for i, name in enumerate(names) if name not in names[:i]]
    console = Console(file=io.StringIO(), width=200)
    console.print(render(listed))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for event in listed:
        assert event.layer in text
        assert event.reason in text


def test_a_name_with_glob_characters_is_a_name() -> None:
    layer = {"name": "conv[0]", "op": "Conv", "outcome": "done", "reason": "", "detail": {}}
    other = {**layer, "name": "conv0"}
    document = {"passes": [{"spec": "quant", "layers": [layer, other]}]}
    assert [event.layer for event in events(document, "conv[0]")] == ["conv[0]"]


def test_an_unknown_layer_gets_the_nearest_name(report: BuildReport) -> None:
    document = json.loads(report.to_json())
    with pytest.raises(SpecError, match=r"Did you mean 'block5\.pointwise'"):
        events(document, "block5.pointwize")
    with pytest.raises(SpecError, match="No pass of this build looked"):
        events({"passes": []}, "x")


def test_of_hundreds_of_layers_one_line_names_some() -> None:
    layers = [{"name": f"node{i}", "op": "Conv", "outcome": "done", "reason": "", "detail": {}} for i in range(700)]
    with pytest.raises(SpecError, match=r"Known: node0, .* and 640 more\.$") as raised:
        events({"passes": [{"spec": "quant", "layers": layers}]}, "xyz*")
    assert len(str(raised.value)) < 800


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"\xff\xfe", "is not JSON"),
        (b"{", "is not JSON"),
        (b"[]", "its schema is None"),
        (b'{"schema": "optc.build/99"}', "optc.build/99"),
    ],
)
def test_what_is_no_record(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        load(str(path))


@pytest.mark.parametrize("passes", [None, [{}], [{"spec": "quant", "layers": [{"name": "a"}]}], [3]])
def test_a_damaged_record_is_told(passes: object) -> None:
    with pytest.raises(DataError, match="damaged"):
        events({"passes": passes}, "a")
