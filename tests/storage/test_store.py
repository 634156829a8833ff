"""The store keeps what it is given, whole or not at all, within its bounds, for any number of processes."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sharing import add, fill

from optc.storage.fingerprint import file_digest
from optc.storage.plain import restored
from optc.storage.store import Store, cache_folder


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "cache"))
    digest = add(store, b"content")
    store.put("a" * 40, b"document")
    again = Store(str(tmp_path / "cache"))
    path = again.object(digest)
    assert path is not None
    assert Path(path).read_bytes() == b"content"
    assert again.get("a" * 40) == b"document"
    assert again.get("b" * 40) is None
    assert again.object("b" * 40) is None
    assert again.object("../etc") is None
    assert not again.faults


@pytest.mark.parametrize("damage", [b"", b"contemt", b"content and more"])
def test_a_damaged_entry_is_noticed_and_removed(damage: bytes, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    digest = add(store, b"content")
    store.put("a" * 40, b"document")
    for place in (store.place("objects", digest), store.place("records", "a" * 40)):
        Path(place).write_bytes(damage)
    assert store.object(digest) is None
    assert store.get("a" * 40) is None
    assert len(store.faults) == 2
    assert "damaged" in store.faults[0]
    assert add(store, b"content") == digest
    assert store.object(digest) is not None


def test_what_was_used_least_recently_goes_first(tmp_path: Path) -> None:
    store = Store(str(tmp_path), limit=10_000)
    digests = [add(store, bytes([i]) * 2000) for i in range(5)]
    for age, digest in enumerate(digests):
        os.utime(store.place("objects", digest), (1e9 + age, 1e9 + age))
    assert store.object(digests[0]) is not None, "using it makes it the newest"
    digests.append(add(store, b"x" * 2000))
    store.trim()
    kept = [store.object(digest) is not None for digest in digests]
    assert kept == [True, False, False, True, True, True]


def test_what_is_too_large_is_not_kept(tmp_path: Path) -> None:
    store = Store(str(tmp_path), limit=1000)
    digest = add(store, b"x" * 300)
    assert store.object(digest) is None
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = Store(str(tmp_path))

    def write(file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.add(write)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_a_folder_that_cannot_be_made_keeps_nothing_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(str(tmp_path / "file" / "cache"))
    digest = add(store, b"content")
    store.put("a" * 40, b"document")
    assert len(digest) == 40
    assert store.object(digest) is None
    assert store.get("a" * 40) is None
    assert len(store.faults) == 1
    assert "cannot be written" in store.faults[0]


def test_processes_share_one_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        # A process that dies takes its task along: without a limit that would be waited for without end.
        assert all(pool.starmap_async(fill, [(str(tmp_path), seed) for seed in range(3)]).get(timeout=300))
    assert not list(tmp_path.glob(".optc-*"))


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from optc.storage.store import Store\n"
        "def write(file):\n"
        "    file.write(b'half'); print('ready', flush=True); time.sleep(60)\n"
        f"Store({str(tmp_path)!r}).add(write)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        assert len(list(tmp_path.glob(".optc-*"))) == 2
        processes[0].kill()
        processes[0].wait()
        Store(str(tmp_path)).trim()
        assert len(list(tmp_path.glob(".optc-*"))) == 1, "the other one is still being written"
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_folder_that_others_can_write_in_is_not_used(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "cache"))
    digest = add(store, b"content")
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    for mode in (0o777, 0o770, 0o1777):
        (tmp_path / "cache").chmod(mode)
        open_to_all = Store(str(tmp_path / "cache"))
        assert open_to_all.object(digest) is None
        other = add(open_to_all, b"other content")
        assert "other users can write" in open_to_all.faults[0]
        (tmp_path / "cache").chmod(0o700)
        assert store.object(other) is None


def test_the_folder_of_another_user_is_only_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = add(Store(str(tmp_path / "cache")), b"content")
    owner = os.stat(tmp_path / "cache").st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    monkeypatch.setattr("optc.storage.store.ROOT", -1)
    store = Store(str(tmp_path / "cache"))
    assert store.object(digest) is not None
    other = add(store, b"other content")
    assert store.object(other) is None
    assert store.faults == [f"the cache {tmp_path / 'cache'} is another user's, and is only read"]


def test_room_is_made_of_entries_alone(tmp_path: Path) -> None:
    """A folder that is named as the cache may hold files of the user's, also where entries lie."""
    own = [tmp_path / "objects" / "film.mp4", tmp_path / "records" / "ab" / "notes.txt",
           tmp_path / "objects" / "ab" / f"ab{0:038}", tmp_path / "records" / "ab" / f"ab{1:038}"]  # fmt: skip
    elsewhere = tmp_path / "elsewhere"
    for path in (*own, elsewhere / ("cd" + "0" * 38)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(20_000))
        os.utime(path, (1e9, 1e9))
    (tmp_path / "objects" / "cd").symlink_to(elsewhere)
    store = Store(str(tmp_path), limit=10_000)
    store.put("ee" + "0" * 38, b"document")
    oldest = add(store, b"content")
    os.utime(store.place("objects", oldest), (1e9, 1e9))
    store.trim()
    assert store.object(oldest) is None
    assert all(path.exists() for path in own)
    assert len(list(elsewhere.iterdir())) == 1


@pytest.mark.parametrize("kind", ["objects", "records"])
@pytest.mark.parametrize("deep", [False, True])
def test_no_link_in_the_cache_is_followed(kind: str, deep: bool, tmp_path: Path) -> None:
    digest = add(Store(str(tmp_path / "other")), b"content")
    name = digest if kind == "objects" else "a" * 40
    link, there = tmp_path / "cache" / kind, tmp_path / "there"
    folder = there if deep else there / name[:2]
    if deep:
        link /= name[:2]
    folder.mkdir(parents=True)
    link.parent.mkdir(parents=True)
    link.symlink_to(there)
    store = Store(str(tmp_path / "cache"))
    add(store, b"content")
    store.put("a" * 40, b"document")
    assert not list(folder.iterdir()), "nothing is put elsewhere"
    (folder / name).write_bytes(b"content")
    os.utime(folder / name, (1e9, 1e9))
    assert (store.object(name) if kind == "objects" else store.get(name)) is None
    store.trim()
    assert (folder / name).stat().st_mtime == 1e9
    assert any("is a link" in fault for fault in store.faults)


def test_what_others_could_write_in_the_cache_is_not_taken(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "cache"))
    digests = [add(store, content) for content in (b"one", b"two")]
    first, second = (Path(store.place("objects", digest)) for digest in digests)
    assert first.stat().st_mode & 0o777 == 0o600
    assert first.parent.stat().st_mode & 0o777 == 0o700
    first.chmod(0o622)
    second.parent.chmod(0o777)
    assert [store.object(digest) for digest in digests] == [None, None]
    assert all("other users can write" in fault for fault in store.faults)


def test_a_record_answers_to_its_own_key_alone(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.put("a" * 40, b"of a")
    store.put("b" * 40, b"of b")
    a, b = (Path(store.place("records", name * 40)) for name in "ab")
    a.write_bytes(b.read_bytes())
    assert store.get("a" * 40) is None
    assert store.get("b" * 40) == b"of b"


def test_a_record_that_no_memory_holds_is_not_read(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.put("a" * 40, b"x")
    with open(store.place("records", "a" * 40), "r+b") as file:
        file.truncate(1 << 42)
    assert store.get("a" * 40, most=1000) is None
    store.put("b" * 40, bytes(1001))
    assert store.get("b" * 40, most=1000) is None
    store.put("b" * 40, bytes(1000))
    assert store.get("b" * 40, most=1000) is not None


def test_each_entry_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    kept, piped, lost = (add(store, text) for text in (b"one", b"two", b"three"))
    os.unlink(store.place("objects", piped))
    os.mkfifo(store.place("objects", piped))

    def refuse(path: str, *rest: object) -> None:
        raise PermissionError(1, "Operation not permitted", path)

    monkeypatch.setattr(os, "utime", refuse)
    assert store.object(kept) is not None
    assert store.object(piped) is None, "a pipe would be waited for"
    monkeypatch.setattr(
        "optc.storage.store.file_digest", lambda path: refuse(path) if lost in path else file_digest(path)
    )
    assert store.object(lost) is None
    assert store.object(kept) is not None
    assert store.object(add(store, b"four")) is not None


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPTC_CACHE", "off")
    assert cache_folder() is None
    monkeypatch.setenv("OPTC_CACHE", str(tmp_path))
    assert cache_folder() == str(tmp_path)
    monkeypatch.delenv("OPTC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    folder = cache_folder()
    assert folder is not None
    assert folder.endswith("optc")


@pytest.mark.parametrize("hint", [float, int, int | str, list[int | float]])
def test_integers_that_no_float_holds(hint: object) -> None:
    assert restored(float, 3) == 3.0
    with pytest.raises(ValueError, match=r"integer is too large|is no"):
        restored(hint, [10**400] if hint == list[int | float] else 10**400)
