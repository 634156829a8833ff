"""Asking TVM's RPC tracker for a device: a greeting of four bytes each way, then JSON behind its length."""

from __future__ import annotations

import json
import socket
import struct
import time

from ....errors import TargetError

_MAGIC = 0x2F271
_REQUEST, _SUCCESS = 4, 0
_LONGEST = 1 << 16
"""Bytes of an answer: an address and a name."""


def request(host: str, port: int, key: str, *, connecting: float, waiting: float) -> tuple[str, int, str]:
    """Host, port and name of a device of the kind `key`, waited for until one is free.

    Raises `TargetError` where no tracker answers within `connecting` seconds, or no device is free within `waiting`.
    """
    where = f"{host}:{port}"
    try:
        with socket.create_connection((host, port), timeout=connecting) as tracker:
            tracker.sendall(struct.pack("<i", _MAGIC))
            if struct.unpack("<i", _received(tracker, 4, connecting))[0] != _MAGIC:
                raise TargetError(f"what answers at {where} is no RPC tracker; a device is named by --rpc")
            question = json.dumps([_REQUEST, key, "", 1]).encode()
            tracker.sendall(struct.pack("<i", len(question)) + question)
            try:
                size = struct.unpack("<i", _received(tracker, 4, waiting))[0]
                code, answer = json.loads(_received(tracker, size, waiting))
            except TimeoutError:
                raise TargetError(f"the tracker at {where} had no device '{key}' free in {waiting:.0f} s") from None
            if code != _SUCCESS:
                raise TargetError(f"the tracker at {where} gives no device '{key}'")
            there, number, name, *_ = answer
            if not _is_host(there) or type(number) is not int or not 0 < number < 65536 or not isinstance(name, str):
                raise ValueError("that is no address of a device")
            return there, number, name
    except OSError as error:
        raise TargetError(f"no tracker answers at {where}: {error.strerror or error}") from error
    except (ValueError, TypeError, LookupError, RecursionError, struct.error) as error:
        raise TargetError(f"what answers at {where} is no RPC tracker; a device is named by --rpc") from error


def _is_host(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text) < 256 and text.isascii() and text.isprintable() and " " not in text


def _received(tracker: socket.socket, size: int, seconds: float) -> bytes:
    """So many bytes, all of them within so many seconds."""
    if not 0 <= size <= _LONGEST:
        raise ValueError("an answer of that length is none")
    received, end = b"", time.monotonic() + seconds
    while len(received) < size:
        tracker.settimeout(max(1e-3, end - time.monotonic()))
        piece = tracker.recv(size - len(received))
        if not piece:
            raise ConnectionResetError("the connection was closed")
        received += piece
    return received
