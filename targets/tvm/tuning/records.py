"""What was measured, one line of JSON a trial, in a file that only grows.

A trial is known by the machine, the versions, the workload and the tile. Its `ratio` is its time over that of the
default, both timed in turns; a tile that cannot be built has none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from ....errors import DataError, OutputError
from ....storage.fingerprint import Fingerprint
from ....storage.plain import plain, restored
from ....storage.plain_file import read_text
from ..compute.workload import Workload
from ..cpu.machine import Machine
from ..cpu.tiling import Tile

MARGIN = 0.03
"""A tile must be faster than the default by this share to be taken."""


@dataclass(frozen=True, slots=True)
class KernelTrial:
    """`seconds` are those of the tile `default`, `ratio` what `tile` takes of them."""

    machine: str
    versions: str
    workload: Workload
    tile: Tile
    default: Tile
    seconds: float
    ratio: float | None

    @property
    def line(self) -> str:
        return json.dumps(plain(self), sort_keys=True)


class Records:
    """The trials of one machine. Raises `DataError` where `path` holds something else."""

    def __init__(self, path: str | None, machine: Machine, threads: int) -> None:
        self.path = path
        self.machine, self.versions = machine_text(machine, threads), versions()
        self._cpu = machine
        self._trials: dict[Workload, dict[Tile, KernelTrial]] = {}
        for line in [] if path is None else _lines(path):
            try:
                trial: KernelTrial = restored(KernelTrial, json.loads(line))
            except (ValueError, RecursionError):
                continue  # cut off when it was written, or by another version
            same = (trial.machine, trial.versions) == (self.machine, self.versions)
            if same and trial.default == trial.workload.default(machine):
                self._keep(trial)

    def ratio(self, work: Workload, tile: Tile) -> float | None:
        """What the tile takes of the default's time; `None` where that is not known, or it cannot be built."""
        trial = self._trials.get(work, {}).get(tile)
        return None if trial is None else trial.ratio

    def tried(self, work: Workload, tile: Tile) -> bool:
        return tile in self._trials.get(work, {})

    def add(self, work: Workload, tile: Tile, seconds: float, ratio: float | None) -> None:
        """Keep a trial, in the file at once. Raises `OutputError`."""
        trial = KernelTrial(self.machine, self.versions, work, tile, work.default(self._cpu), seconds, ratio)
        self._keep(trial)
        if self.path is None:
            return
        try:
            os.makedirs(os.path.dirname(os.path.abspath(self.path)), exist_ok=True)
            with open(self.path, "ab+") as file:
                end = file.seek(0, os.SEEK_END)
                if end:
                    file.seek(end - 1)
                    start = b"" if file.read(1) == b"\n" else b"\n"
                else:
                    start = b""
                file.write(start + trial.line.encode() + b"\n")
        except OSError as error:
            raise OutputError(
                f"{self.path} cannot be written: {error.strerror}; name another: --tune-records"
            ) from error

    def best(self, work: Workload, default: Tile) -> Tile:
        """The fastest tile where it wins by more than the margin, else the default."""
        measured = [(one.ratio, tile) for tile, one in self._trials.get(work, {}).items() if one.ratio is not None]
        ratio, tile = min(measured, key=lambda one: one[0], default=(1.0, default))
        return tile if ratio < 1 - MARGIN else default

    def gain(self, counts: Mapping[Workload, int]) -> float:
        """What the best tiles should take of the time of all workloads that were tried, each met so often."""
        before = after = 0.0
        for work, count in counts.items():
            trials = self._trials.get(work, {}).values()
            if trials:
                seconds = count * min(one.seconds for one in trials)
                least = min((one.ratio for one in trials if one.ratio is not None), default=1.0)
                before += seconds
                after += seconds * (least if least < 1 - MARGIN else 1.0)
        return after / before if before else 1.0

    def digest(self, counts: Mapping[Workload, int]) -> str:
        """Of the trials of these workloads."""
        lines = sorted(one.line for work in counts for one in self._trials.get(work, {}).values())
        return Fingerprint("trials", *lines).text

    def _keep(self, trial: KernelTrial) -> None:
        self._trials.setdefault(trial.workload, {})[trial.tile] = trial


def machine_text(machine: Machine, threads: int) -> str:
    """What of a machine decides about times."""
    dot = machine.dot.name if machine.dot is not None else "none"
    words = [machine.triple, machine.cpu, *machine.features, f"lanes={machine.lanes}", f"block={machine.block}"]
    return " ".join([*(word for word in words if word), f"dot={dot}", f"threads={threads}"])


def versions() -> str:
    from importlib.metadata import version

    from .... import __version__

    return f"optc {__version__} apache-tvm {version('apache-tvm')}"


def _lines(path: str) -> list[str]:
    try:
        lines = read_text(path).splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise DataError(f"{path} cannot be read: {why}; name another file: --tune-records") from error
    if lines and not lines[0].startswith('{"default"'):
        raise DataError(f"{path} holds no records of tuning; name another file: --tune-records")
    return lines
