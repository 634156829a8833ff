"""What the page holds: every figure of the record as the record has it, every name escaped, nothing from outside."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from written_page import EVIL, WORSE, Written

from optc.compiler import Data, compile
from optc.errors import OutputError
from optc.report.page import evidence, write
from optc.report.page.write import page


class Reader(HTMLParser):
    """The tags of a page, and the text of elements that are asked for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def at(document: Any, path: str) -> Any:
    for part in path.split("."):
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


def test_every_figure_is_the_records(written: Written) -> None:
    figures = [attributes for tag, attributes in Reader(written.text).tags if tag == "data"]
    for one in figures:
        value = at(written.document, str(one["data-json"]))
        assert one["value"] == ("" if value is None else str(value)), one
    shown = {one["data-json"] for one in figures}
    assert {"before.bytes", "after.bytes", "after.macs", "latency.ratio", "agreement.share", "seed"} <= shown
    assert {"budget.limits.0.got", "passes.1.after.bytes", "passes.1.agreement.share"} <= shown
    assert {f"agreement.outputs.0.{key}" for key in ("top1", "kl", "sqnr_db", "cosine")} <= shown


def test_the_page_carries_the_whole_record(written: Written) -> None:
    match = re.search(r'<script type="application/json" id="report">(.*?)</script>', written.text, re.DOTALL)
    assert match is not None
    assert json.loads(match[1]) == written.document


def test_counts_of_answers_are_those_of_the_record(written: Written) -> None:
    gathered = evidence.gather(written.build).answers
    assert gathered is not None
    assert gathered.samples == written.document["agreement"]["samples"]
    assert gathered.agreed / gathered.rows == written.document["agreement"]["outputs"][0]["top1"]


def test_layers_add_up_to_the_model(written: Written) -> None:
    rows = evidence.gather(written.build).rows.all
    assert sum(row.before.macs for row in rows) == written.document["before"]["macs"]
    assert sum(row.after.macs for row in rows) == written.document["after"]["macs"]
    by_name = {row.name: row for row in rows}
    assert {EVIL, "block/conv", "gemm"} <= by_name.keys()
    conv = by_name["block/conv"]
    # Codes, scales and bias of the convolution count at the convolution.
    assert 8 * 8 * 9 <= conv.after.bytes < conv.before.bytes == 8 * 8 * 9 * 4
    assert conv.snr_db is not None
    assert 10 < conv.snr_db < 200
    assert conv.changed
    assert by_name["block/conv"].before.seconds is not None


def test_names_cannot_become_tags(written: Written) -> None:
    page = Reader(written.text)
    assert sum(tag == "script" for tag, _ in page.tags) == 2
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert not any(tag in ("i", "b") for tag, _ in page.tags)
    assert EVIL not in written.text
    assert html.escape(EVIL) in written.text
    assert EVIL in "".join(page.text)
    assert WORSE in "".join(page.text)


def test_nothing_comes_from_outside(written: Written) -> None:
    links = re.findall(r'(?:src|href|xlink:href)="([^"]*)"', written.text)
    assert links
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    outside = re.sub(r'xmlns(:xlink)?="[^"]*"', "", written.text)
    assert not re.search(r"url\((?!#)|@import|https?://", outside)


def test_the_policy_allows_only_the_pages_own_script_and_style(written: Written) -> None:
    page = Reader(written.text)
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for name in ("page.css", "page.js"):
        text = files("optc.report.page").joinpath(name).read_text(encoding="utf-8")
        assert text in written.text
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy
    assert not any("style" in attributes for _, attributes in page.tags)


def test_the_same_evidence_gives_the_same_page(written: Written) -> None:
    gathered = evidence.gather(written.build)
    assert page(written.build, gathered) == page(written.build, gathered)


def test_ids_are_unique_and_every_link_leads_somewhere(written: Written) -> None:
    page = Reader(written.text)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {a["href"] for tag, a in page.tags if tag == "a"}
    assert {str(link).removeprefix("#") for link in links} <= {str(one) for one in ids}


def test_budget_and_outcomes_are_told(written: Written) -> None:
    text = "".join(Reader(written.text).text)
    assert "budget missed" in text
    assert "size=0.9x" in text
    assert "quant done" in text
    assert "Samples that disagree most" in text
    assert "data:image/png" in written.text


def test_without_a_run_the_page_says_so(written: Written) -> None:
    bare = replace(written.build, judges=lambda: None)
    text = page(bare, evidence.gather(bare))
    assert "there are no times and no answers to compare" in text
    assert 'id="answers"' not in text
    assert 'id="distributions"' not in text
    assert "SNR" in text


def test_the_command_is_shown_as_it_was_given(written: Written, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write(written.build, path, "optc model.onnx --data 'my samples.npz'")
    assert html.escape("--data 'my samples.npz'") in path.read_text(encoding="utf-8")


def test_matplotlib_missing_is_one_line(monkeypatch: pytest.MonkeyPatch, written: Written, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(OutputError, match=r"pip install 'optc\[html\]'"):
        write(written.build, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_the_command_line_writes_the_page_beside_the_record(written: Written, tmp_path: Path) -> None:
    model, one, other = written.build.report.model, tmp_path / "page.html", tmp_path / "record.json"
    reports = ["--report", str(one), "--report", str(other)]
    command = [sys.executable, "-m", "optc", model, "--passes", "prune:ratio=0.3", "-o", str(tmp_path / "out.onnx")]
    command += ["--threads", "1", "--cache", str(tmp_path / "cache"), *reports]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    document = json.loads(other.read_text(encoding="utf-8"))
    text = one.read_text(encoding="utf-8")
    for tag, attributes in Reader(text).tags:
        if tag == "data":
            value = at(document, str(attributes["data-json"]))
            assert attributes["value"] == ("" if value is None else str(value))
    assert "--passes prune:ratio=0.3" in text
    out = (tmp_path / "out.onnx").read_bytes()
    assert not document["cached"]
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert json.loads(other.read_text(encoding="utf-8"))["cached"], "a page does not keep a build out of the cache"
    assert one.read_text(encoding="utf-8") == text, "the page is that of the build that was measured"
    assert (tmp_path / "out.onnx").read_bytes() == out


def test_a_build_out_of_the_cache_has_a_page_of_its_own(written: Written, tmp_path: Path) -> None:
    """A page that is not in the cache itself, as where the result has another name, is made of samples drawn anew."""
    same = {"passes": "clean", "output": tmp_path / "out.onnx", "cache": tmp_path / "cache", "threads": 1}
    data = Data({"x": np.random.default_rng(1).normal(size=(40, 3, 16, 16)).astype(np.float32)})
    first, second = (compile(written.build.report.model, data=data, trail=True, **same) for _ in range(2))
    assert second.report.cached
    assert second.held_out is not None
    assert first.held_out is not None
    assert [feeds["x"].tobytes() for feeds in first.held_out.batches(8)] == [
        feeds["x"].tobytes() for feeds in second.held_out.batches(8)
    ]
    write(second, tmp_path / "page.html")
    assert 'id="answers"' in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_colours_can_be_told_apart_from_what_they_stand_on() -> None:
    """WCAG 2.1: text needs a contrast of 4.5, by light and by dark."""
    style = files("optc.report.page").joinpath("page.css").read_text(encoding="utf-8")
    themes = [
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    ]
    assert len(themes) >= 2
    for theme in themes[:2]:
        for text in ("ink", "soft", "after", "good", "alarm"):
            for ground in ("paper", "panel", "tint"):
                assert contrast(theme[text], theme[ground]) >= 4.5, (text, ground, theme)


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
