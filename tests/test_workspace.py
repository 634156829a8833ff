"""Only what this program made, and can prove it made, is ever removed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from optc.compiler.place import staging
from optc.errors import OutputError
from optc.storage.store import Store
from optc.storage.workspace import Workspace, files, remove_abandoned
from optc.targets.tvm.artifact.folder import check_folder

KILLED = """
import os, signal, sys
from optc.storage.workspace import Workspace
one = Workspace(sys.argv[1])
open(os.path.join(one.name, "half"), "w").close()
if len(sys.argv) > 2:
    os.mkdir(os.path.join(one.name, "inner"))
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(folder: Path, *more: str) -> Path:
    """The workspace that a killed process left in `folder`."""
    before = set(folder.iterdir())
    subprocess.run([sys.executable, "-c", KILLED, str(folder), *more], check=False)
    (left,) = set(folder.iterdir()) - before
    return left


def old(path: Path) -> None:
    os.utime(path, (time.time() - 3600,) * 2, follow_symlinks=False)


def foreign(folder: Path) -> None:
    """What others may have called as we call ours."""
    (folder / ".optc-cache").mkdir()
    (folder / ".optc-cache" / "thesis.txt").write_text("three years of work")
    (folder / ".optc-notes_of_mine").mkdir()
    (folder / ".optc-notes_of_mine" / ".owner").write_text("me")
    (folder / ".optc-12345678").write_text("a file")
    (folder / ".optc-1234-0.tmp").write_text("a file")
    (folder / ".optc-abcdefgh").symlink_to(folder / ".optc-cache")
    os.mkfifo(folder / ".optc-pipe_pipe")
    (folder / ".optc-with_pipe").mkdir()
    os.mkfifo(folder / ".optc-with_pipe" / ".owner")
    for path in folder.rglob("*"):
        old(path)


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_what_is_not_ours_stays_whatever_it_is_called(tmp_path: Path) -> None:
    foreign(tmp_path)
    before = everything(tmp_path)
    remove_abandoned(str(tmp_path))
    with staging(str(tmp_path / "model.onnx")):
        pass
    Store(str(tmp_path)).trim()
    assert everything(tmp_path) == before


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    left = killed(tmp_path)
    assert files(str(left)) == ["half"]
    remove_abandoned(str(tmp_path))
    assert not everything(tmp_path)


def test_no_folder_is_entered_nor_a_link_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    left = killed(tmp_path, "with a folder")
    linked = killed(tmp_path)
    (linked / "link").symlink_to(tmp_path / "mine")
    remove_abandoned(str(tmp_path))
    assert (left / "inner").is_dir()
    assert not linked.exists()
    assert (tmp_path / "mine").read_text() == "mine"


def test_what_somebody_works_in_stays(tmp_path: Path) -> None:
    with Workspace(str(tmp_path)) as folder:
        remove_abandoned(str(tmp_path))
        assert os.path.isdir(folder)
    assert not everything(tmp_path)


def test_what_belongs_to_another_user_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = killed(tmp_path)
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    remove_abandoned(str(tmp_path))
    assert left.exists()


@pytest.mark.parametrize("text", ["{}", '{"name": "an app", "files": {"keep.txt": ""}}', "no json", "[" * 100_000])
def test_a_folder_with_a_manifest_of_its_own_is_no_artifact(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    (tmp_path / "keep.txt").write_text("mine")
    with pytest.raises(OutputError, match="no part of an artifact"):
        check_folder(str(tmp_path))


def test_an_artifact_with_something_beside_its_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"schema": "optc.library/1", "files": {"model.so": ""}}')
    (tmp_path / "model.so").write_text("")
    check_folder(str(tmp_path))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.txt"):
        check_folder(str(tmp_path))
