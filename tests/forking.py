"""A process that has loaded `optc` and forks for every command line, so that each runs in a process of its own without
paying for the imports. Reads a request a line from standard input, answers with the exit status, the highest number of
bytes resident, and the seconds of the processor."""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import tempfile
from typing import Any

import numpy  # noqa: F401
import onnx  # noqa: F401
import onnxruntime  # noqa: F401
import pytest
import rich.progress  # noqa: F401
import scipy.linalg
import scipy.optimize  # noqa: F401
from short_timing import shorten

import optc.cli.app
import optc.compiler.stages
import optc.gate
import optc.report.page  # noqa: F401
from optc.__main__ import main
from optc.passes import table


def become(request: dict[str, Any]) -> None:
    """Be the process that was asked for: its folder, variables, streams and limits."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None
    if "RLIMIT_FSIZE" in request["limits"]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        sys.dont_write_bytecode = True  # half of it would be taken for a module by whoever comes next
    for name, most in request["limits"].items():
        resource.setrlimit(getattr(resource, name), (most, most))
    for descriptor, path in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
        os.dup2(os.open(path, os.O_RDONLY if not descriptor else os.O_WRONLY), descriptor)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding=os.environ.get("PYTHONIOENCODING", "utf-8"))  # type: ignore[union-attr]
    sys.argv = ["optc", *request["arguments"]]


def serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    list(table.classes())
    shorten(pytest.MonkeyPatch())
    for line in sys.stdin:
        request = json.loads(line)
        for name in request["modules"]:
            importlib.import_module(name)
        child = os.fork()
        if not child:
            become(request)
            status: object = 1
            try:
                main()
            except SystemExit as end:
                status = end.code
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status if isinstance(status, int) else 0)
        _, status, used = os.wait4(child, 0)
        taken = [os.waitstatus_to_exitcode(status), used.ru_maxrss << 10, used.ru_utime + used.ru_stime]
        print(json.dumps(taken), file=answers, flush=True)


if __name__ == "__main__":
    serve()
