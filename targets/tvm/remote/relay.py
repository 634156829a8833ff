"""A local end of a connection to a device that is cut when the device falls silent.

TVM's client waits for an answer as long as it takes, and a device that hangs would hold it for ever. So it speaks to a
port of this machine, where a process of its own (the client holds this one while it waits) passes on what is said both
ways, and ends where a question is not answered in time. That process runs this file alone.

What a device says is passed on in whole messages: the client makes room for as much as one claims to be.

    greeting   magic (int32), length of the key (int32), key
    message    length (uint64), what it says
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import time

_LOOK = 0.2
"""Seconds between two looks at the clock."""
_PIECE = 1 << 16
_MOST = 1 << 29
"""Bytes of one answer."""
_MAGIC = 0xFF271
_KEY = 1 << 12
"""Bytes of the name by which a device greets."""
_SILENT = 3
"""The status with which the process ends where the device did not answer."""


class Relay:
    """Passes on bytes between `port`, here, and the device behind `there`, for one client.

    The first answer is waited for `greeting` seconds, every other one `silence` seconds.
    """

    def __init__(self, there: socket.socket, greeting: float, silence: float) -> None:
        with socket.socket() as listening, there:
            listening.bind(("127.0.0.1", 0))
            listening.listen(1)
            self.port: int = listening.getsockname()[1]
            ends = (listening.fileno(), there.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, *map(str, (*ends, greeting, silence))],
                pass_fds=ends,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # an interrupt from the keyboard is not for it
            )

    @property
    def silent(self) -> bool:
        """Whether the device did not answer in time; asked when the connection is lost."""
        try:
            return self._process.wait(timeout=5 * _LOOK) == _SILENT
        except subprocess.TimeoutExpired:
            return False

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


class Messages:
    """What a device has said, held back until a message is whole."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._greeted = False

    def whole(self, data: bytes) -> bytes:
        """What can be passed on, now that `data` has come. Raises `OSError` where a message claims to be too long."""
        self._waiting += data
        end = 0
        while (size := self._size(end)) is not None and end + size <= len(self._waiting):
            end += size
            self._greeted = True
        passed = bytes(self._waiting[:end])
        del self._waiting[:end]
        return passed

    def _size(self, at: int) -> int | None:
        """The bytes of the message that begins there; none where that is not told yet."""
        here = len(self._waiting) - at
        if not self._greeted:
            if here >= 4 and int.from_bytes(self._waiting[at : at + 4], "little") != _MAGIC:
                return here  # no device of ours, as the client finds by itself
            key = int.from_bytes(self._waiting[at + 4 : at + 8], "little", signed=True)
            if here >= 8 and not 0 <= key <= _KEY:
                raise OSError("a key that is too long")
            return 8 + key if here >= 8 else None
        size = int.from_bytes(self._waiting[at : at + 8], "little")
        if here >= 8 and size > _MOST:
            raise OSError("an answer that is too long")
        return 8 + size if here >= 8 else None


def _pass(listening: socket.socket, there: socket.socket, greeting: float, silence: float) -> int:
    listening.settimeout(greeting)
    here, _ = listening.accept()
    here.setblocking(True)
    patience = greeting
    began, answered = None, 0
    messages = Messages()
    for one in (here, there):
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while True:
        ready, _, _ = select.select([here, there], [], [], _LOOK)
        if here in ready:
            data = here.recv(_PIECE)
            if not data:
                return 0
            there.sendall(data)
            began, answered = time.monotonic(), 0
        if there in ready:
            data = there.recv(_PIECE)
            if not data:
                return 0
            here.sendall(messages.whole(data))
            began, patience = None, silence
            answered += len(data)
            if answered > _MOST + _PIECE:
                return 0
        elif began is not None and time.monotonic() - began > patience:
            return _SILENT


if __name__ == "__main__":
    _ends = [socket.socket(fileno=int(word)) for word in sys.argv[1:3]]
    for _end in _ends:
        _end.setblocking(True)
    try:
        sys.exit(_pass(_ends[0], _ends[1], *map(float, sys.argv[3:5])))
    except OSError:
        sys.exit(0)  # one of the two went away
