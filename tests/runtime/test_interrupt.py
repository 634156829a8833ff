"""A process that is told to end while native code runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals that a thread hears of"),
]

LISTENING = """
import hashlib, os, signal, subprocess, sys, time
from optc.runtime.interrupt import ENDS, listen
from optc.storage.workspace import Workspace
listen((signal.SIGINT, *ENDS), signal.default_int_handler)
"""
# One call into native code, which takes minutes and lets other threads of Python run.
DEAF = """
subprocess.Popen(["sleep", "60"])
with Workspace() as work:
    open(os.path.join(work, "part.o"), "w").close()
    print("starts", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
    print("done")
"""
SLOW_TO_TIDY = """
try:
    print("starts", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    hashlib.pbkdf2_hmac("sha256", b"", b"", 6 * 10**6)
    print("kept")
    sys.exit(130)
"""
FREED = """
class Freed:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)
try:
    print("starts", flush=True)
    one = Freed()
    del one
    time.sleep(30)
except KeyboardInterrupt:
    sys.exit(130)
"""
# As the extensions do that Cython wrote, for their views of memory.
SWALLOWING = """
with open(os.path.join(os.environ["TMPDIR"], "swallowing.py"), "w") as module:
    module.write('''
import signal, time
try:
    signal.raise_signal(signal.SIGTERM)
    time.sleep(0.1)
except BaseException:
    pass
time.sleep(LONG)
''')
try:
    print("starts", flush=True)
    sys.path.insert(0, os.environ["TMPDIR"])
    import swallowing
    time.sleep(30)
except KeyboardInterrupt:
    sys.exit(130)
"""


def start(text: str, tmp_path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENING + text],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "starts\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_in_native_code_ends_with_its_tools_and_workspaces(number: int, tmp_path: Path) -> None:
    process = start(DEAF, tmp_path)
    assert len(os.listdir(tmp_path)) == 1
    time.sleep(1.5)  # signals are heard while it starts
    process.send_signal(number)
    said = process.communicate(timeout=20)  # to the end of all who hold the streams: of the tool, too
    assert process.returncode == 130
    assert said == ("", "optc: interrupted; nothing unfinished is left\n")
    assert os.listdir(tmp_path) == []


def test_who_has_heard_it_may_take_its_time(tmp_path: Path) -> None:
    process = start(SLOW_TO_TIDY, tmp_path)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60) == ("kept\n", "")
    assert process.returncode == 130


def test_an_interrupt_while_an_object_is_freed_is_not_lost(tmp_path: Path) -> None:
    process = start(FREED, tmp_path)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 130


@pytest.mark.parametrize("seconds", [0, 50])
def test_an_interrupt_while_a_module_is_imported_is_not_lost(seconds: int, tmp_path: Path) -> None:
    start_at = time.monotonic()
    process = start(SWALLOWING.replace("LONG", str(seconds)), tmp_path)
    assert process.communicate(timeout=40) == ("", "")
    assert process.returncode == 130
    assert time.monotonic() - start_at < 25


BROKEN = """
import optc.__main__ as entry
import optc.cli.app as app
from optc.errors import SpecError
def broken(*words, **more):
    try:
        print("starts", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:  # as the import of an extension does
        raise ERROR from None
app.app = broken
sys.argv = ["optc", "inspect", "m.onnx"]
entry.main()
"""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("SystemError('error return without exception set')", "optc: interrupted\n"),
        ("ImportError('numpy._core failed to import')", "optc: interrupted\n"),
        ("SpecError('torch is not installed')", "optc: interrupted: torch is not installed\n"),
    ],
)
def test_an_interrupt_that_an_extension_makes_another_error_of(error: str, said: str, tmp_path: Path) -> None:
    process = start(BROKEN.replace("ERROR", error), tmp_path)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20) == ("", said)
    assert process.returncode == 130
