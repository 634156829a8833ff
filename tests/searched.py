"""A small network to search, its samples, and a search of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from walked import residual_net

import optc
from optc.searcher import Search


def model(folder: Path) -> str:
    path = folder / "net.onnx"
    optc.save(residual_net(), path)
    return str(path)


def samples(folder: Path, count: int = 40) -> str:
    path = folder / "samples.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(count, 8, 6, 6)).astype(np.float32))
    return str(path)


def search(folder: Path, budget: str = "macs=60%", **options: Any) -> Search:
    """A search of a few candidates, kept in `folder`."""
    whole: dict[str, Any] = {
        "data": samples(folder),
        "output": folder / "out.onnx",
        "plan": folder / "plan.toml",
        "cache": folder / "cache",
        "threads": 1,
        "teach": False,
        "candidates": 6,
        "time": 3600.0,
    }
    return optc.search(model(folder), budget, **{**whole, **options})
