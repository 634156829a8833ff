"""Only what this program made, and can prove it made, is ever removed."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from optc.compiler.place import staging
from optc.errors import OutputError
from optc.storage.abandoned import remove_abandoned
from optc.storage.exchange import exchange
from optc.storage.store import Store
from optc.storage.workspace import Workspace, files
from optc.targets.tvm.artifact.folder import check_folder, place_folder

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


REPLACED = """
import os, signal, sys
from optc.storage import workspace
from optc.targets.tvm.artifact import folder
where, staged, path, exchanges = sys.argv[1:]
step = 0
def dying(kind, one):
    def done(*words, **more):
        global step
        if kind == "before" and step == int(where):
            os.kill(os.getpid(), signal.SIGKILL)
        step += 1
        return one(*words, **more)
    return done
if exchanges == "no":
    folder.exchange = lambda one, other: False
for place, names in ((os, ("mkdir", "replace", "unlink", "rmdir")), (folder, ("exchange", "unpack"))):
    for name in names:
        setattr(place, name, dying("before", getattr(place, name)))
folder.place_folder(staged, path)
"""


def artifact(path: Path, *names: str) -> Path:
    """A .tar with a manifest that answers for files of these names."""
    import tarfile

    path.mkdir()
    document = {"schema": "optc.library/1", "files": dict.fromkeys(names, "")}
    (path / "manifest.json").write_text(json.dumps(document))
    for name in names:
        (path / name).write_text(path.name)
    with tarfile.open(f"{path}.tar", "w") as tar:
        for name in ("manifest.json", *names):
            tar.add(path / name, name)
    return Path(f"{path}.tar")


def content(path: Path) -> dict[str, str]:
    return {one.name: one.read_text() for one in path.iterdir()}


@pytest.mark.parametrize("exchanges", ["yes", "no"])
def test_an_artifact_in_a_folder_is_replaced_by_a_process_that_is_killed(exchanges: str, tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    first = artifact(tmp_path / "from" / "first", "a.so", "b.bin")
    second = artifact(tmp_path / "from" / "second", "a.so", "c.bin")
    wanted = [content(tmp_path / "from" / one) for one in ("first", "second")]
    words = [sys.executable, "-c", REPLACED]
    for step in range(1, 40):
        place = tmp_path / f"place{step}"
        place.mkdir()
        place_folder(str(first), str(place / "out"))
        status = subprocess.run([*words, str(step), str(second), str(place / "out"), exchanges], check=False).returncode
        remove_abandoned(str(place))
        there = [content(path) for path in (place / "out", *place.glob(".optc-*/old")) if path.exists()]
        assert there, f"nothing is left, killed at step {step}"
        assert all(one in wanted for one in there), f"half of one is left, killed at step {step}"
        if exchanges == "yes":
            assert everything(place / "out") == sorted(there[0])
            assert os.listdir(place) == ["out"]
        if status == 0:
            assert there == wanted[1:]
            break
    else:
        pytest.fail("it was killed at every step")
    assert step > 6


def test_what_was_planted_in_a_recorded_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a").write_text("mine")
    code = """
import os, signal, sys
from optc.storage.workspace import Workspace
one = Workspace(sys.argv[1])
one.record("new", ["a", "b", "../../mine/a", "link"])
one.record("..", ["mine"])
one.record("../mine", ["a"])
one.record("linked", ["a"])
one.record("", ["etc"])
os.mkdir(os.path.join(one.name, "new"))
for name in "ab":
    open(os.path.join(one.name, "new", name), "w").close()
os.kill(os.getpid(), signal.SIGKILL)
"""
    plants = {
        "nothing": lambda left: None,
        "a file": lambda left: (left / "new" / "theirs").write_text("theirs"),
        "a folder": lambda left: (left / "new" / "inner").mkdir(),
        "a linked file": lambda left: (left / "new" / "link").symlink_to(tmp_path / "mine" / "a"),
        "a linked folder": lambda left: (left / "linked").symlink_to(tmp_path / "mine"),
        "a pipe": lambda left: os.mkfifo(left / "new" / "link"),
    }
    for what, plant in plants.items():
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
        (left,) = tmp_path.glob(".optc-*")
        plant(left)
        remove_abandoned(str(tmp_path))
        assert (tmp_path / "mine" / "a").read_text() == "mine", what
        assert not (left / "new" / "a").exists(), what
        assert left.exists() == (what not in ("nothing", "a linked folder")), what
        shutil.rmtree(left, ignore_errors=True)


STORED = """
import os, signal, sys
from optc.storage.exchange import exchange
from optc.storage.store import Store
from optc.storage.workspace import Workspace
folder = Workspace(sys.argv[1])
store = Store(folder.name)
for index in range(3):
    store.add(lambda file: file.write(bytes([index])))
    store.put(f"{index:040x}", b"document")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_temporary_cache_of_a_killed_process_goes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", STORED, str(tmp_path)], check=False)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 7, "what was kept, and what tells of it"
    (left,) = tmp_path.iterdir()
    (left / "objects" / "mine").write_text("mine")
    remove_abandoned(str(tmp_path))
    assert everything(left) == [".owner", "objects", "objects/mine"]
    (left / "objects" / "mine").unlink()
    (left / "objects").rmdir()
    remove_abandoned(str(tmp_path))
    assert not everything(tmp_path)


def test_a_cache_of_the_users_records_nothing(tmp_path: Path) -> None:
    """Whatever it is called, and whatever it holds."""
    for name, text in ((".optc-my_cache", "mine"), ("cache", "cache"), (".optc-12345678", "")):
        (tmp_path / name).mkdir(0o700)
        (tmp_path / name / ".owner").write_text(text)
        Store(str(tmp_path / name)).put("a" * 40, b"document")
        assert (tmp_path / name / ".owner").read_text() == text


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


AT_EVERY_LINE = """
import os, signal, sys
from optc.storage import workspace
from optc.storage.abandoned import remove_abandoned
def life(last):
    line = 0
    def trace(frame, event, _):
        nonlocal line
        if frame.f_code.co_filename != workspace.__file__:
            return None
        line += event == "line"
        if line == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace
    sys.settrace(trace)
    workspace.Workspace(sys.argv[1]).cleanup()
    os._exit(0)
last, kinds = 0, set()
while True:
    last += 1
    child = os.fork() or life(last)
    _, status = os.waitpid(child, 0)
    left = os.listdir(sys.argv[1])
    folders = [os.path.join(sys.argv[1], name) for name in left if not name.endswith(".claim")]
    kinds.add((len(left), sum(len(os.listdir(folder)) for folder in folders)))
    remove_abandoned(sys.argv[1])
    if left := os.listdir(sys.argv[1]):
        sys.exit(f"killed at line {last}: {left} stays")
    if status == 0:
        break
print(last, sorted(kinds))
"""


def test_a_process_that_is_killed_at_any_line_of_a_workspaces_life_leaves_nothing_for_long(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    words = [sys.executable, "-c", AT_EVERY_LINE, str(tmp_path / "place")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines, kinds = done.stdout.split(maxsplit=1)
    assert int(lines) > 25
    # Nothing; a claim alone; a claim and an empty folder; both and what says whose it is; a folder that says so.
    assert kinds.strip() == "[(0, 0), (1, 0), (1, 1), (2, 0), (2, 1)]"


def test_an_empty_folder_that_nothing_claims_stays(tmp_path: Path) -> None:
    """Nor does a claim prove a folder that holds anything, or one that others made."""
    names = [f".optc-{number:012x}" for number in range(6)]
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / (names[1] + ".claim")).write_text(names[1])
    (tmp_path / (names[2] + ".claim")).symlink_to(names[1])
    for name in names[3:]:
        (tmp_path / (name + ".claim")).symlink_to(name)
    (tmp_path / names[3] / "mine").write_text("mine")
    (tmp_path / names[4] / ".owner").write_text("me")
    (tmp_path / names[5] / ".owner").symlink_to(tmp_path / names[3] / "mine")
    before = everything(tmp_path)
    remove_abandoned(str(tmp_path))
    assert everything(tmp_path) == before


def test_a_workspace_is_made_though_another_process_takes_it_for_abandoned(tmp_path: Path) -> None:
    code = """
import sys
from optc.storage.abandoned import remove_abandoned
from optc.storage.workspace import Workspace
def trace(frame, event, _):
    if "storage/workspace" in frame.f_code.co_filename and event == "line" and not done.get(frame.f_lineno):
        done[frame.f_lineno] = True
        sys.settrace(None)
        remove_abandoned(sys.argv[1])
        sys.settrace(trace)
    return trace
done = {}
sys.settrace(trace)
with Workspace(sys.argv[1]) as folder:
    open(folder + "/half", "w").close()
print(len(done))
"""
    words = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 25
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


def test_what_comes_into_an_artifact_while_it_is_replaced_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optc.targets.tvm.artifact import folder

    (tmp_path / "from").mkdir()
    first, second = (artifact(tmp_path / "from" / one, "a.so") for one in ("first", "second"))
    place = tmp_path / "out"
    place_folder(str(first), str(place))

    def slow(fresh: str, path: str) -> bool:
        (place / "thesis").mkdir()
        (place / "thesis" / "text").write_text("three years of work")
        return exchange(fresh, path)

    monkeypatch.setattr(folder, "exchange", slow)
    place_folder(str(second), str(place))
    gc.collect()
    assert content(place) == content(tmp_path / "from" / "second")
    (kept,) = tmp_path.glob(".optc-*/new/thesis/text")
    remove_abandoned(str(tmp_path))
    assert kept.read_text() == "three years of work"


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


def test_a_folder_or_a_link_that_a_manifest_calls_a_file_is_no_part_of_an_artifact(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"schema": "optc.library/1", "files": {"photos": "", "link": ""}}')
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.png").write_text("mine")
    with pytest.raises(OutputError, match="photos"):
        check_folder(str(tmp_path))
    (tmp_path / "photos" / "one.png").unlink()
    (tmp_path / "photos").rmdir()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OutputError, match="link"):
        check_folder(str(tmp_path))
