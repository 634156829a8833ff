"""Kernels built in this process and timed: here, or on a device over RPC."""

from __future__ import annotations

import os
import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

import tvm
from tvm.target import Target

from ....storage.workspace import Workspace
from ... import tuning
from ..cpu import toolchain
from ..cpu.machine import Machine
from ..remote.connection import Connection
from .kernel import TunedKernel, inputs

Timed: TypeAlias = Callable[[int], float]
"""So many runs of a kernel, and the seconds of one of them."""

_STRETCH = 1e-3
"""Seconds of runs that one measurement is the mean of."""
_REPEATS = 3
_ROUNDS = 7


class Runner(ABC):
    """Where kernels of `machine` run."""

    def __init__(self, machine: Machine, threads: int) -> None:
        self.machine = machine
        self.threads = threads

    @abstractmethod
    def load(self, kernel: TunedKernel) -> Timed:
        """The kernel ready to run. Raises `TargetError` where a device fails."""

    def close(self) -> None:  # noqa: B027 - what runs here needs no end
        """Give back what was taken."""

    def build(self, kernel: TunedKernel) -> Any:
        with tvm.transform.PassContext(config={"tirx.disable_assert": True}):
            return tvm.tirx.build(kernel.mod, target=Target(self.machine.target()))


class Here(Runner):
    """This process."""

    def __init__(self, machine: Machine, threads: int) -> None:
        super().__init__(machine, threads)
        tvm.get_global_func("runtime.config_threadpool")(1, threads or os.cpu_count() or 1)

    def load(self, kernel: TunedKernel) -> Timed:
        return _timed(self.build(kernel), tvm.cpu(), kernel)


class There(Runner):
    """A device over RPC; the library of each kernel is sent there."""

    def __init__(self, machine: Machine, threads: int, device: tuning.Device) -> None:
        super().__init__(machine, threads)
        self._connection = Connection(device)
        self._connection.attempt("setting threads", self._set_threads)

    def _set_threads(self) -> None:
        self._connection.session.get_function("runtime.config_threadpool")(1, self.threads)

    def load(self, kernel: TunedKernel) -> Timed:
        built = self.build(kernel)
        name = self._connection.name()
        with Workspace() as folder:
            built.write_to_file(os.path.join(folder, "kernel.o"), "o")
            command = [toolchain.compiler(self.machine), *self.machine.flags, "-shared", "kernel.o", "-o", name]
            toolchain.run(command, folder=folder, what="linking a kernel")
            there = self._connection.attempt("loading a kernel", lambda: self._sent(os.path.join(folder, name), name))
        session = self._connection.session
        timer = self._connection.attempt("sending numbers", lambda: _timed(there, session.cpu(), kernel))
        return lambda runs: self._connection.attempt("timing a kernel", lambda: timer(runs))

    def _sent(self, path: str, name: str) -> Any:
        self._connection.session.upload(path)
        return self._connection.session.load_module(name)

    def close(self) -> None:
        self._connection.close()


def _timed(module: Any, device: Any, kernel: TunedKernel) -> Timed:
    tensors = [tvm.runtime.tensor(array, device) for array in inputs(kernel)]

    def timed(runs: int) -> float:
        evaluate = module.time_evaluator("main", device, number=runs, repeat=_REPEATS)
        return float(min(evaluate(*tensors).results))

    return timed


def seconds(timed: Timed) -> float:
    """Of one run, measured once."""
    return timed(max(1, round(_STRETCH / max(timed(1), 1e-7))))


def ratio(first: Timed, other: Timed, rounds: int = _ROUNDS) -> float:
    """What `other` takes of the time of `first`: the two in turns, the median over rounds."""
    runs = max(1, round(_STRETCH / max(first(1), 1e-7)))
    return statistics.median(other(runs) / first(runs) for _ in range(rounds))
