"""The RPC server in C++: who may connect, what a session may take, and what is left of it."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from processes import alive
from sent import library, started

from optc.errors import TargetError
from optc.targets.tuning import Device
from optc.targets.tvm.cpu import toolchain
from optc.targets.tvm.remote.connection import Connection
from optc.targets.tvm.remote.run import Remote

__all__ = ["library"]


@pytest.fixture(scope="module")
def native(library: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The server in C++, built for this machine."""
    import tvm
    import tvm_ffi

    folder = tmp_path_factory.mktemp("native")
    libraries = [str(Path(one.__file__ or "").parent / "lib") for one in (tvm, tvm_ffi)]
    include = str(Path(tvm_ffi.__file__ or "").parent / "include")
    command = ["g++", "-std=c++17", "-O1", "-I", include, f"{toolchain.SOURCES}/rpc_server.cc"]
    command += [word for one in libraries for word in (f"-L{one}", f"-Wl,-rpath,{one}")]
    linked = ["-Wl,--no-as-needed", "-ltvm_runtime", "-ltvm_ffi", "-Wl,--allow-shlib-undefined"]
    subprocess.run([*command, *linked, "-o", "rpc_server"], cwd=folder, check=True)
    return str(folder / "rpc_server")


def answer(library: Path, port: int) -> object:
    remote = Remote(str(library), Connection(Device(f"127.0.0.1:{port}")), threads=1)
    try:
        return remote.run({"x": np.ones((1, 4), np.float32)})[0].tolist()
    finally:
        remote.close()


def test_an_open_server_asks_for_its_key(
    library: Path, native: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.run([native, "--host", "0.0.0.0"], capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 2
    assert "give --key-file" in done.stderr
    (tmp_path / "key").write_text("secret\n")
    with started(native, "--host", "0.0.0.0", "--key-file", str(tmp_path / "key")) as port:
        for wrong in ("", "secre", "secret2", "other"):
            monkeypatch.setenv("OPTC_RPC_KEY", wrong)
            with pytest.raises(TargetError, match="failed while connecting"):
                answer(library, port)
        monkeypatch.setenv("OPTC_RPC_KEY", "secret")
        assert answer(library, port) == [[18, 22, 26]]


def test_a_silent_client_keeps_nobody_waiting(library: Path, native: str) -> None:
    with started(native) as port, contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        began = time.monotonic()
        assert answer(library, port) == [[18, 22, 26]]
        assert time.monotonic() - began < 9, "less than a silent one is waited for"


def test_slow_clients_keep_nobody_waiting(library: Path, native: str) -> None:
    """Those that never stop greeting, as many as there is room for."""
    hello = struct.pack("<ii", 0xFF271, 4096) + b"c" * 4096
    with started(native) as port, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(64)]
        answered: object = None
        for at in range(25):
            for one in slow:
                with contextlib.suppress(OSError):
                    one.sendall(hello[at : at + 1])
            time.sleep(1)
            with contextlib.suppress(TargetError):
                answered = answer(library, port)
                break
        assert answered == [[18, 22, 26]]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_sessions_go_with_the_server(
    how: signal.Signals, library: Path, native: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    process = subprocess.Popen([native], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    connection = Connection(Device(f"127.0.0.1:{int(process.stdout.readline())}"))
    Remote(str(library), connection, threads=1)
    assert len(list(tmp_path.glob("rpc_server-*"))) == 1
    process.send_signal(how)
    process.wait()
    end = time.monotonic() + 10
    while list(tmp_path.glob("rpc_server-*")) or alive(process.pid):
        assert time.monotonic() < end, "something outlives the server"
        time.sleep(0.05)
    process.stdout.close()
    connection.close()


def test_a_session_has_its_time(library: Path, native: str) -> None:
    with started(native, "--seconds", "1") as port:
        remote = Remote(str(library), Connection(Device(f"127.0.0.1:{port}")), threads=1)
        time.sleep(2)
        with pytest.raises(TargetError, match="failed while running"):
            remote.run({"x": np.ones((1, 4), np.float32)})
        remote.close()
        assert answer(library, port) == [[18, 22, 26]]


def test_a_session_has_its_part_of_the_disk(library: Path, native: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tvm import rpc

    monkeypatch.setenv("TMPDIR", str(library.parent))
    with started(native, "--disk", "3", "--files", "5") as port:
        for size, most in ((1 << 20, 3), (10, 5)):
            session = rpc.connect("127.0.0.1", port)
            for index in range(most):
                session.upload(bytearray(size), f"{index}")
            with pytest.raises(Exception, match="a session holds at most 3 MiB in 5 files"):
                session.upload(bytearray(size), "beyond")
            (folder,) = library.parent.glob("rpc_server-*")
            assert len(list(folder.iterdir())) == most
            del session
            gone(library.parent)
        assert answer(library, port) == [[18, 22, 26]]


WRITER = """
#include <stdio.h>
#include <string.h>
#include <unistd.h>
static char block[1 << 20];
__attribute__((constructor)) static void fill(void) {
  char name[32];
  memset(block, 1, sizeof block);
  for (int i = 0;; ++i, usleep(10000)) {
    sprintf(name, "%d", i);
    FILE* file = fopen(name, "w");
    if (file) fwrite(block, 1, sizeof block, file), fclose(file);
  }
}
"""


def test_a_library_that_fills_the_disk_ends_its_session(
    library: Path, native: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tvm import rpc

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "w.c").write_text(WRITER)
    subprocess.run(["g++", "-x", "c", "-shared", "-fPIC", "w.c", "-o", "w.so"], cwd=tmp_path, check=True)
    with started(native, "--disk", "8") as port:
        session = rpc.connect("127.0.0.1", port)
        session.upload(str(tmp_path / "w.so"))
        with pytest.raises(Exception, match=r"kShutdown|[Rr]eset"):
            session.load_module("w.so")
        gone(tmp_path)
        assert answer(library, port) == [[18, 22, 26]]


def gone(folder: Path) -> None:
    """Wait until no session has a folder there."""
    end = time.monotonic() + 20
    while list(folder.glob("rpc_server-*")):
        assert time.monotonic() < end, "a session's folder stays"
        time.sleep(0.05)
