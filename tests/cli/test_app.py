"""The command line through real processes: what it prints, what it writes, how it ends."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from processes import MATMUL, assert_one_line, model, optc, write

from optc.cli.app import app, run
from optc.project.matrix import Job, Result

META = {"--help", "-h", "--version"}


def test_the_collector_does_not_look_over_what_is_imported() -> None:
    code = """
import gc, sys
from optc.__main__ import main
before = [one["collections"] for one in gc.get_stats()]
sys.argv = ["optc", "passes"]
try:
    main()
finally:
    collections = [one["collections"] - count for one, count in zip(gc.get_stats(), before)]
    print([*collections, len(gc.get_objects())], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    young, middle, whole, last = json.loads(done.stderr)
    assert young < 20
    assert middle + whole < 4
    assert last < 100  # that is left to look over when the process ends


@pytest.fixture
def good(tmp_path: Path) -> str:
    return write(tmp_path / "good.onnx", model([MATMUL]))


def test_weights_are_for_architectures(good: str, tmp_path: Path) -> None:
    done = optc(good, "--weights", "w.npz", "--passes", "clean", "-o", str(tmp_path / "out.onnx"))
    assert_one_line(done, 2, f"--weights fills an architecture of the zoo, zoo:NAME, not a model file like '{good}'")


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    out.write_bytes(b"what was there before")
    done = optc(
        "zoo:digits_resnet", "--passes", "clean", "--no-check", "-q", "-o", str(out), limits={"RLIMIT_FSIZE": 20_000}
    )
    assert_one_line(done, 2, "out.onnx")
    assert os.listdir(tmp_path) == ["out.onnx"]
    assert out.read_bytes() == b"what was there before"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_at_once_and_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    (tmp_path / "temporary").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "optc", "zoo:digits_resnet", "--passes", "prune,svd,quant", "-o", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "temporary")},
    )
    assert process.stderr is not None
    # The first line says that `clean` has run: the build is then in the middle of its work.
    assert process.stderr.readline().startswith("clean")
    start = time.monotonic()
    process.send_signal(number)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert rest.strip().splitlines()[-1] == "optc: interrupted; no output was written"
    assert "Traceback" not in rest
    assert time.monotonic() - start < 30
    assert os.listdir(tmp_path) == ["temporary"]
    assert os.listdir(tmp_path / "temporary") == []


@pytest.mark.slow
def test_the_main_road_on_a_shipped_model(tmp_path: Path) -> None:
    out, record = tmp_path / "small.onnx", tmp_path / "report.json"
    done = optc("zoo:digits_resnet", "--passes", "prune,svd,quant", "-o", str(out), "--report", str(record))
    assert done.returncode == 0, done.stderr
    report = json.loads(record.read_text())
    assert report["schema"] == "optc.build/1"
    assert [one["name"] for one in report["passes"]] == ["clean", "prune", "svd", "quant", "load-time"]
    for one in report["passes"]:
        for layer in one["layers"]:
            assert layer["outcome"] in ("done", "skipped", "reverted")
            assert layer["outcome"] == "done" or layer["reason"]
    assert out.stat().st_size == report["after"]["bytes"] <= 0.45 * report["before"]["bytes"]
    assert report["agreement"]["share"] >= 0.95
    assert "small.onnx" in done.stdout
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[0] == "N", "the dynamic batch stays"
    assert sorted(os.listdir(tmp_path)) == ["report.json", "small.onnx"]


@pytest.mark.slow
def test_the_same_build_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    outs = [tmp_path / name for name in ("a.onnx", "b.onnx")]
    for out in outs:
        done = optc(
            "zoo:digits_dscnn", "--passes", "prune:ratio=0.3,quant:slower=int8", "-o", str(out), "--no-guard", "-q"
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_without_data_the_user_is_told(good: str, tmp_path: Path) -> None:
    done = optc(good, "--passes", "quant", "--json", "-o", str(tmp_path / "out.onnx"))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["samples"]["synthetic"] is True
    assert any("--data" in note for note in report["notes"])


def test_a_user_function_over_graphsurgeon(good: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def rename(graph):\n    graph.nodes[0].name = 'renamed'\n    return graph\n"
        "def crash(graph):\n    raise RuntimeError('boom')\n"
    )
    done = optc(good, "--passes", "mine.py:rename", "-o", "out.onnx", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert onnx.load(tmp_path / "out.onnx").graph.node[0].name == "renamed"
    (tmp_path / "temporary").mkdir()
    environment = {"TMPDIR": str(tmp_path / "temporary")}
    crashed = optc(good, "--passes", "mine.py:crash", "-o", "out2.onnx", cwd=tmp_path, environment=environment)
    assert_one_line(crashed, 1, "RuntimeError: boom", f"to reproduce: optc {tmp_path}")
    (kept,) = (tmp_path / "temporary").iterdir()
    assert sorted(os.listdir(kept)) == ["before.onnx", "command.txt"]
    assert not (tmp_path / "out2.onnx").exists()


def test_the_runtime_sends_nothing_home_and_leaves_nothing_behind(good: str, tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    environment = {"TMPDIR": str(tmp_path / "temporary"), "HOME": str(tmp_path / "home")}
    done = optc(good, "--passes", "quant", "-q", environment=environment)
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path / "temporary") == []
    assert sorted(os.listdir(tmp_path)) == ["good.onnx", "good.optc.onnx", "temporary"]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_names_that_the_terminal_cannot_show(encoding: str, tmp_path: Path) -> None:
    odd = os.fsdecode(b"odd-\xff\xe2\x9c\x93[red].onnx")
    proto = model([helper.make_node("MatMul", ["x", "w"], ["y"], "[red]\u2713 %s")])
    write(tmp_path / odd, proto)
    environment = {"PYTHONIOENCODING": encoding}
    for flags in (["-o", "out.onnx", "--verbose", "--report", "r.json"], ["-o", "out.onnx", "--json"]):
        done = optc(odd, "--passes", "clean", *flags, cwd=tmp_path, environment=environment)
        assert done.returncode == 0, done.stderr
        assert "[red]" in done.stdout
    assert json.loads((tmp_path / "r.json").read_bytes())["model"] == odd
    shown = optc("inspect", odd, "--text", cwd=tmp_path, environment=environment)
    assert shown.returncode == 0, shown.stderr


def test_the_stages_of_a_pass_are_listed() -> None:
    stages = json.loads(optc("passes", "quant", "--stages", "--json").stdout)
    assert [one["name"] for one in stages][:2] == ["pool", "spell"]
    assert "GlobalAveragePool" in optc("passes", "quant", "--stages").stdout
    refused = optc("passes", "--stages")
    assert refused.returncode == 2
    assert "name it" in refused.stderr


def test_closed_streams_and_a_narrow_terminal(good: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "optc", good, "--passes", "clean", "-o", str(tmp_path / "out.onnx")]
    done = subprocess.run(["/bin/sh", "-c", '"$@" <&- >&- 2>&-', "sh", *command], check=False)
    assert done.returncode == 0
    assert (tmp_path / "out.onnx").exists()
    narrow = optc("passes", "quant", environment={"COLUMNS": "20"}).stdout
    assert narrow == optc("passes", "quant", environment={"COLUMNS": "80"}).stdout


def test_names_stand_whole_in_a_pipe(tmp_path: Path) -> None:
    name = "encoder/layers/0/attention/self/query/a_name_that_goes_on_for_longer_than_a_terminal_is_wide/MatMul"
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name=name)
    path = write(tmp_path / f"{'m' * 70}.onnx", model([node]))
    assert sum(name in line for line in optc("inspect", path).stdout.splitlines()) >= 2
    shown = optc(path, "--passes", "quant", "-o", str(tmp_path / "o.onnx"), "-v")
    assert any(name in line and "MatMul" in line.replace(name, "") for line in shown.stdout.splitlines())


@pytest.mark.parametrize("words", [["-"], ["inspect", "-"], ["zoo:digits_resnet", "-o", "-"]])
def test_streams_are_no_files(words: list[str]) -> None:
    assert_one_line(optc(*words), 2, "'-' is no file")


def test_the_list_of_commands_holds_no_examples() -> None:
    shown = optc("--help").stdout
    assert "List the targets" in shown
    assert "Examples --" not in shown
    assert "Examples:\n    optc targets\n" in optc("targets", "--help").stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no device that is always full")
def test_a_full_disk_behind_standard_output_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "optc", "passes"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["optc: standard output cannot be written: its disk is full"]


def test_dump_writes_the_graph_after_every_pass(good: str, tmp_path: Path) -> None:
    done = optc(good, "--passes", "quant", "--dump", str(tmp_path / "dump"), "-o", str(tmp_path / "out.onnx"))
    assert done.returncode == 0, done.stderr
    written = sorted(os.listdir(tmp_path / "dump"))
    assert written[:4] == ["000_input.txt", "001_clean.txt", "002_quant.txt", "003_onnx-version.txt"]
    assert all(name.startswith(f"{position:03d}_") for position, name in enumerate(written))


def test_inspect_prints_one_node_a_line() -> None:
    done = optc("inspect", "zoo:digits_dscnn", "--text")
    assert done.returncode == 0, done.stderr
    assert "Conv" in done.stdout
    assert done.stdout.count("\n") > 10


def test_help_names_every_command() -> None:
    done = optc("--help")
    assert done.returncode == 0
    for word in ("inspect", "diff", "check", "bench", "explain", "passes", "targets", "zoo", "--passes", "--data"):
        assert word in done.stdout


@pytest.mark.parametrize("command", ["", *(name for name in app if name not in META)])
def test_the_help_of_every_command_ends_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command.split(), "--help"]) == 0
    examples = capsys.readouterr().out.rpartition("Examples:\n")[2].rstrip().splitlines()
    assert examples
    for line in examples:
        assert line.startswith(f"    optc {command}".rstrip()), (
            "an example too wide for 80 columns, or of another command"
        )


def test_a_budget_is_a_gate(good: str, tmp_path: Path) -> None:
    forms = [word for name in ("r.json", "r.md", "r.xml") for word in ("--report", name)]
    missed = optc(good, "--passes", "clean", "--budget", "size=1B,macs=1x", "-o", "out.onnx", *forms, cwd=tmp_path)
    assert missed.returncode == 3
    assert missed.stderr.splitlines()[-1].startswith("optc: the budget was missed: size: wanted at most 1 B, got")
    assert sorted(os.listdir(tmp_path)) == ["good.onnx", "out.onnx", "r.json", "r.md", "r.xml"]
    budget = json.loads((tmp_path / "r.json").read_text())["budget"]
    assert [one["met"] for one in budget["limits"]] == [False, True]
    assert "**missed**" in (tmp_path / "r.md").read_text()
    assert 'failures="1"' in (tmp_path / "r.xml").read_text()
    assert "look at these layers first" in missed.stdout
    met = optc("check", "out.onnx", "--against", good, "--budget", "size=1.5x,agreement=99%", "-q", cwd=tmp_path)
    assert (met.returncode, met.stdout, met.stderr) == (0, "", "")
    gate = optc("check", "out.onnx", "--against", good, "--budget", "size=1B", "-q", cwd=tmp_path)
    assert_one_line(gate, 3, "the budget was missed: size: wanted at most 1 B")


@pytest.mark.parametrize("form", ["--json", "--verbose"])
def test_a_missed_budget_is_one_though_nobody_reads_on(
    form: str, good: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`optc check … | true`: the gate is the exit status."""
    words = [good, "--budget", "size=1B", "--threads", "1", form]
    for command in (["check", *words, "--against", good], [*words, "--passes", "clean", "-o", str(tmp_path / "o")]):
        reader, writer = os.pipe()
        os.close(reader)
        with monkeypatch.context() as patch, os.fdopen(writer, "w") as out:
            patch.setattr(sys, "stdout", out)
            assert run(command) == 3


def test_an_interrupted_command_says_what_was_written(
    good: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "".join(f'[[model]]\npath = "{good}"\nname = "{name}"\n' for name in "ab")
    (tmp_path / "optc.toml").write_text('passes = "clean"\n' + text)

    def stopped(jobs: list[Job], *_: object, tell: Callable[[Result], None], **__: object) -> int:
        tell(Result(jobs[0], 0, "done"))
        raise KeyboardInterrupt

    monkeypatch.setattr("optc.project.matrix.build", stopped)
    assert run(["build", "--config", str(tmp_path / "optc.toml")]) == 130
    assert capsys.readouterr().err == "optc: interrupted; 1 of 2 builds were written\n"


def test_shell_completion_is_written_to_its_usual_place(tmp_path: Path) -> None:
    done = optc("--install-completion", "--shell", "fish", environment={"HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    (script,) = tmp_path.rglob("optc.fish")
    assert str(script) in done.stdout
    for word in ("inspect", "explain", "budget"):
        assert word in script.read_text()


def test_every_command_speaks_alike(good: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To people, to programs (`--json`), more (`--verbose`) or nothing (`--quiet`); colours are for terminals."""
    assert optc(good, "-o", "small.onnx", "--passes", "quant", "--report", "r.json", "-q", cwd=tmp_path).stdout == ""
    (tmp_path / "optc.toml").write_text(
        '[[model]]\nname = "good"\npath = "good.onnx"\npasses = "clean"\ncheck = false\n'
    )
    np.savez(tmp_path / "rows.npz", x=np.ones((2, 4), np.float32))
    write(tmp_path / "other.onnx", model([MATMUL]))
    monkeypatch.setenv("HOME", str(tmp_path))
    lines = {
        "compile": f"{good} -o again.onnx --passes clean --no-check",
        "build": "build --no-cache",
        "init": "init good.onnx -o new.toml",
        "inspect": "inspect good.onnx",
        "inspect --text": "inspect good.onnx --text",
        "diff": "diff good.onnx small.onnx --no-run",
        "check": "check small.onnx --against good.onnx --threads 1",
        "bench": "bench good.onnx --seconds 0.01 --threads 1",
        "profile": "profile good.onnx -o table.json",
        "run": "run small.onnx --data rows.npz",
        "search": "search other.onnx --budget size=2x --time 1s --candidates 1 --data rows.npz -o best.onnx --no-cache",
        "explain": "explain matmul --report r.json",
        "passes": "passes clean",
        "targets": "targets",
        "zoo": "zoo",
        "--install-completion": "--install-completion --shell fish",
    }
    assert {name.split()[0] for name in lines} == {"compile", *app} - META
    for name, line in lines.items():
        said = {}
        for flag in ("", "--json", "--verbose", "--quiet", *(("-v", "-q") if name == "passes" else ())):
            (tmp_path / "new.toml").unlink(missing_ok=True)
            out, err = io.StringIO(), io.StringIO()
            with contextlib.chdir(tmp_path), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                assert run([*line.split(), *flag.split()]) == 0, (name, flag, err.getvalue())
            said[flag] = out.getvalue()
            assert "\x1b" not in out.getvalue() + err.getvalue(), (name, flag)
            if flag in ("--json", "--quiet", "-q"):
                assert err.getvalue() == "", (name, flag)
        assert said[""].strip(), name
        assert json.loads(said["--json"]), name
        assert said["--quiet"] == said.get("-q", "") == "", name
        assert len(said["--verbose"]) >= 0.5 * len(said[""])


def test_diff_can_be_a_gate(good: str, tmp_path: Path) -> None:
    other = write(tmp_path / "other.onnx", model([helper.make_node("MatMul", ["x", "w"], ["y"], "renamed")]))
    assert run(["diff", good, other, "--no-run", "--quiet"]) == 0
    assert run(["diff", good, other, "--no-run", "--quiet", "--exit-code"]) == 3
    assert run(["diff", good, good, "--no-run", "--quiet", "--exit-code"]) == 0


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("can't start new thread"),
        RuntimeError("std::bad_alloc"),
        ImportError("state.so: failed to map segment from shared object"),
        MemoryError(),
    ],
    ids=str,
)
def test_where_there_is_no_memory_that_is_said(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def out_of_it(*_: object, **__: object) -> int:
        raise error

    monkeypatch.setattr("optc.cli.app.app", out_of_it)
    assert run(["zoo"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("optc: out of memory; use fewer samples")
    assert said.count("\n") == 1
    with pytest.raises(type(error)):
        run(["zoo", "--traceback"])
