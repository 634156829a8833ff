"""What several processes do to one folder at the same time; here, because they have to import it by its name."""

from __future__ import annotations

import os

from optc.storage.fingerprint import file_digest
from optc.storage.store import Store


def add(store: Store, data: bytes) -> str:
    return store.add(lambda file: file.write(data) and None)


def fill(folder: str, seed: int) -> bool:
    store = Store(folder, limit=200_000)
    for i in range(60):
        digest = add(store, bytes([i % 20]) * 5000)
        store.put(f"{i % 20:040x}", bytes([i % 20]) * 100)
        data = store.get(f"{(i + seed) % 20:040x}")
        if data is not None and data != bytes([(i + seed) % 20]) * 100:
            return False
        path = store.object(digest)
        if i % 10 == 9:
            store.trim()
        if path is not None and os.path.exists(path) and file_digest(path) != digest:
            return False
    return not store.faults
