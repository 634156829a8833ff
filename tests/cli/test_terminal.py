"""Names from files are shown, and do nothing to the terminal."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from processes import ended

from optc import report
from optc.cli import console
from optc.cli.app import run
from optc.cli.console import as_json
from optc.ir.printable import MOST, spelled
from optc.passes.base import Report
from optc.report.build import BuildReport, PassRecord, Size
from optc.report.terminal import show

HOSTILE = ["[/x]", "[bold red]x[/]", "[link=file:///etc]x[/link]", ":smile:", "a\\", "[", "\x1b]0;title\x07", "\x9b2J"]
NAMES = [name for name in HOSTILE if name.isprintable()]

COMMANDS = [
    ["inspect", "m.onnx"],
    ["inspect", "m.onnx", "--json"],
    ["diff", "m.onnx", "m.onnx"],
    ["m.onnx", "--passes", "clean", "-v"],
    ["m.onnx", "--passes", "svd,quant"],
]
ZOO = "zoo:digits_dscnn"


def model(name: str, path: Path) -> None:
    x, y = (helper.make_tensor_value_info(one, TensorProto.FLOAT, [1, 4]) for one in (f"x{name}", f"y{name}"))
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), f"w{name}")
    nodes = [
        helper.make_node("MatMul", [f"x{name}", f"w{name}"], ["h"], name),
        helper.make_node(name, ["h"], [f"y{name}"], name, domain=f"own{name}"),
    ]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(f"own{name}", 1)]
    graph = helper.make_graph(nodes, f"net{name}", [x], [y], [weight])
    proto = helper.make_model(graph, ir_version=10, opset_imports=opsets, producer_name=f"me{name}\x1b[2J")
    proto.doc_string = "\x9b"
    path.write_bytes(proto.SerializeToString())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("words", COMMANDS)
def test_names_reach_the_terminal_as_they_are_spelled(
    name: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model(name, tmp_path / "m.onnx")
    status = run(words)
    shown = capsys.readouterr()
    assert status in (0, 2), shown.err
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown.out + shown.err)
    if words[0] == "inspect":
        assert name in shown.out.replace("\n", "") or name.replace("\\", "\\\\") in shown.out


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_asked_for_is_named_as_it_is_spelled(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["inspect", name], [name], [ZOO, "--data", name], [ZOO, "--target", name], [ZOO, "--passes", name],
                  [name, name], ["explain", name, name]):  # fmt: skip
        assert run(words) == 2
        said = capsys.readouterr().err
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", said)


def test_json_spells_control_characters() -> None:
    import json

    text = as_json({"a": "\x9b2J\x1b[2J é \u202e"})
    assert text.isprintable()
    assert json.loads(text) == {"a": "\x9b2J\x1b[2J é \u202e"}
    assert spelled("a\x1bb\nc", lines=True) == "a\\x1bb\nc"


def test_only_one_file_prints() -> None:
    folder = Path(console.__file__).parent
    for path in folder.glob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = {node.func.id for node in calls if isinstance(node.func, ast.Name)}
        assert path.name == "console.py" or not names & {"print", "Console"}, path


def test_only_one_function_takes_text_into_what_is_drawn() -> None:
    folder = Path(report.__file__).parent
    for path in folder.rglob("*.py"):
        assert path.name == "shown.py" or "rich.markup" not in path.read_text(), path


@pytest.mark.parametrize("text", ["x" * 100_000, "x y " * 25_000, "[b]" * 30_000, "/a" * 50_000])
def test_text_too_long_to_be_read_is_cut(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    record = BuildReport("m.onnx", "prune", "onnx", 0, {}, *[Size(0, 0, 0, 0)] * 2)
    passed = Report(spec="prune", notes=[text] * 20)
    passed.skipped(text, text, text)
    record.steps, record.notes = [PassRecord("prune", passed, record.before)], [text]
    start = time.process_time()
    show(record, console.console(), layers=True)
    console.out(text, error=True)
    assert time.process_time() - start < 3
    said = capsys.readouterr()
    assert len(said.out) < 30 * MOST * 2
    assert len(said.err) < 2 * MOST
    assert f"({len(text) - MOST} characters more)" in said.err


def test_links_that_lead_around_in_circles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "loops").mkdir(parents=True)
    np.save("data/0.npy", np.zeros((1, 1, 16, 16), np.float32))
    for name in "abc":
        (tmp_path / "data" / "loops" / name).symlink_to(".")
    (tmp_path / "optc.toml").write_text(
        'passes = "clean"\noutput = "out"\n[[model]]\npath = "zoo:digits_dscnn"\ndata = "data"\n'
    )
    words = [sys.executable, "-m", "optc", "build", "--no-cache"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "hang up"])
def test_nothing_outlives_a_build(how: str, tmp_path: Path) -> None:
    models = "".join(f'[[model]]\npath = "zoo:{name}"\n' for name in ("digits_dscnn", "digits_resnet"))
    (tmp_path / "optc.toml").write_text(f'passes = "prune,svd,prune,quant"\noutput = "out"\n{models}')
    process = subprocess.Popen([sys.executable, "-m", "optc", "build", "--no-cache", "--jobs", "3"], cwd=tmp_path,
                               start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env={**os.environ, "TMPDIR": str(tmp_path)})  # fmt: skip
    time.sleep(6)
    process.send_signal(signal.SIGKILL if how == "kill" else signal.SIGHUP)
    process.wait()
    assert process.returncode == (-signal.SIGKILL if how == "kill" else 130)
    ended(process.pid)


def test_a_full_output_does_not_stop_the_other_builds(tmp_path: Path) -> None:
    models = "".join(f'[[model]]\npath = "zoo:{name}"\n' for name in ("digits_dscnn", "digits_resnet"))
    (tmp_path / "optc.toml").write_text(f'passes = "clean"\ncheck = false\noutput = "out"\n{models}')
    words = [sys.executable, "-m", "optc", "build", "--no-cache", "--jobs", "1"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "its disk is full" in done.stderr
    assert len(list((tmp_path / "out").rglob("*.onnx"))) == 2
