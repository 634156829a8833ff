"""Every example is run with the tool that it is for, where that is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from optc.ir.onnx.reader import load
from optc.ir.onnx.writer import save
from optc.models import zoo
from optc.project.config import load as load_config

EXAMPLES = Path(__file__).parents[1] / "examples"
PASSES = "prune:ratio=0.3"
TOOLS = str(Path(sys.executable).parent)
"""Where the tools of the environment are that runs the tests."""

pytestmark = pytest.mark.slow


class Project:
    """A copy of an example with a model and samples, and `optc` on the path."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = folder / name
        shutil.copytree(EXAMPLES / name, self.folder)
        save(zoo.load("digits_dscnn"), self.folder / "model.onnx")
        self.samples(40)
        (folder / "bin").mkdir()
        for command, words in {"optc": "-m optc", "python": "", "pip": "-c pass #"}.items():
            script = folder / "bin" / command
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
            script.chmod(0o755)
        path = os.pathsep.join([str(folder / "bin"), TOOLS, os.environ["PATH"]])
        self.place = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}

    def samples(self, count: int) -> None:
        arrays = {name: array[:count] for name, array in zoo.samples("digits_dscnn", "calib").items()}
        np.savez(self.folder / "calib.npz", **arrays)  # type: ignore[arg-type]

    def run(self, *words: str, status: int = 0, absent: str = "") -> str:
        """What the command says; skips the test where there is no such command, for the reason `absent`."""
        tool = shutil.which(words[0], path=self.place["PATH"])
        if tool is None:
            pytest.skip(absent or f"{words[0]} is not installed; pip install '.[test]'")
        done = subprocess.run(words, cwd=self.folder, env=self.place, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


def newer(path: Path, than: float) -> bool:
    return path.stat().st_mtime > than


def builds_again_when_the_samples_change(project: Project, result: str, *words: str) -> None:
    project.run(*words)
    path = project.folder / result
    load(path)
    os.utime(path, ns=(path.stat().st_mtime_ns,) * 2)
    first = path.stat().st_mtime
    project.run(*words)
    assert not newer(path, first), "nothing changed"
    project.samples(36)
    later = first + 5
    os.utime(project.folder / "calib.npz", (later, later))
    project.run(*words)
    assert newer(path, first)


def test_make(tmp_path: Path) -> None:
    builds_again_when_the_samples_change(Project("make", tmp_path), "model.optc.onnx", "make", f"PASSES={PASSES}")


def test_ninja(tmp_path: Path) -> None:
    project = Project("ninja", tmp_path)
    project.edit("build.ninja", "passes = prune,svd,quant", f"passes = {PASSES}".replace(":", "$:"))
    builds_again_when_the_samples_change(project, "model.optc.onnx", "ninja")


@pytest.mark.parametrize("generator", ["Ninja", "Unix Makefiles"])
def test_cmake(generator: str, tmp_path: Path) -> None:
    project = Project("cmake", tmp_path)
    if shutil.which("ninja" if generator == "Ninja" else "make") is None:
        pytest.skip(f"what {generator} needs is not installed")
    project.run("cmake", "-B", "build", "-G", generator, f"-DPASSES={PASSES}")
    builds_again_when_the_samples_change(project, "build/model.optc.onnx", "cmake", "--build", "build")


def test_cmake_without_optc_says_so(tmp_path: Path) -> None:
    project = Project("cmake", tmp_path)
    for tool in ("cmake", "make"):
        if (path := shutil.which(tool, path=project.place["PATH"])) is not None:
            (tmp_path / "tools").mkdir(exist_ok=True)
            (tmp_path / "tools" / tool).symlink_to(path)
    project.place["PATH"] = os.pathsep.join([str(tmp_path / "tools"), "/usr/bin", "/bin"])
    assert "Optc" in project.run("cmake", "-B", "build", status=1)


def test_bazel(tmp_path: Path) -> None:
    project = Project("bazel", tmp_path)
    project.edit("BUILD.bazel", "prune,svd,quant", PASSES)
    # Without a server, and with nothing left in the user's own folders. PATH must not change what a rule is known by.
    words = ["bazel", "--batch", f"--output_user_root={tmp_path / 'root'}", "build", "--action_env=PATH"]
    project.run(*words, "//:model", absent="bazel is in no registry of Python packages; Debian has bazel-bootstrap")
    load(project.folder / "bazel-bin" / "model.optc.onnx")


def test_the_genrule_is_a_command_that_runs(tmp_path: Path) -> None:
    """Without Bazel: what it would run, its variables filled in."""
    if shutil.which("bazel"):
        pytest.skip("Bazel itself runs it")
    project = Project("bazel", tmp_path)
    block = (project.folder / "BUILD.bazel").read_text().partition('" ".join([')[2].partition("])")[0]
    words = " ".join(re.findall(r'"([^"]*)"', block)).replace("prune,svd,quant", PASSES)
    command = re.sub(r"\$\(location ([^)]*)\)", r"\1", words).replace("$@", "out.onnx")
    project.run("sh", "-c", command)
    load(project.folder / "out.onnx")


def test_the_workflow_parses_and_its_commands_run(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    project = Project("github", tmp_path)
    project.edit("optc.toml", "prune,svd,quant", PASSES)
    project.place |= {"GITHUB_STEP_SUMMARY": str(tmp_path / "step.md"), "OPTC_CACHE": str(tmp_path / "cache")}
    workflow = yaml.safe_load((project.folder / "optc.yml").read_text())
    (job,) = workflow["jobs"].values()
    runs = [step["run"] for step in job["steps"] if "run" in step]
    assert len(runs) == 3
    project.run("optc", "build")
    for command in runs:
        project.run("sh", "-ec", command)
    assert "`model@onnx` | done" in (tmp_path / "step.md").read_text()
    behind = job["steps"][[step.get("name") for step in job["steps"]].index("Build") + 1 :]
    assert len(behind) == 2
    assert all(step["if"] == "always()" for step in behind), "a missed budget hides no summary"
    load(project.folder / "model.optc.onnx")
    project.samples(36)
    assert "the samples changed" in project.run("sh", "-ec", "optc build --locked", status=2)


def test_the_hook_of_pre_commit(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    project = Project("pre-commit", tmp_path)
    project.edit("optc.toml", "prune,svd,quant", PASSES)
    project.place["OPTC_CACHE"] = str(tmp_path / "cache")
    document = yaml.safe_load((project.folder / ".pre-commit-config.yaml").read_text())
    ((hook,),) = (repo["hooks"] for repo in document["repos"])
    for name in ("a/model.onnx", "calib.npz", "optc.toml", "optc.lock"):
        assert re.search(hook["files"], name)
    assert "no lock file" in project.run("sh", "-c", hook["entry"], status=2)


def test_pre_commit_runs_the_hook(tmp_path: Path) -> None:
    project = Project("pre-commit", tmp_path)
    project.edit("optc.toml", "prune,svd,quant", PASSES)
    project.place |= {"OPTC_CACHE": str(tmp_path / "cache"), "PRE_COMMIT_HOME": str(tmp_path / "hooks")}
    project.run("pre-commit", "--version")
    project.run("git", "init", "-q")
    project.run("optc", "build")
    project.run("git", "add", ".")
    assert "Passed" in project.run("pre-commit", "run", "--all-files")
    project.edit("optc.toml", "0.3", "0.4")
    project.run("git", "add", ".")
    said = project.run("pre-commit", "run", status=1)
    assert "Failed" in said
    assert "the options changed" in said


def test_the_build_script(tmp_path: Path) -> None:
    project = Project("python", tmp_path)
    project.edit("build.py", "agreement < 0.8", "agreement < 0.5")
    assert "bytes, agreement" in project.run("python", "build.py", PASSES)
    load(project.folder / "model.optc.onnx")


def test_the_configurations_of_the_examples_are_read() -> None:
    paths = sorted(EXAMPLES.rglob("optc.toml"))
    assert len(paths) >= 2
    for path in paths:
        assert load_config(str(path)).entries
