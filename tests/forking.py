"""A process that has loaded `optc` and forks for every command line, so that each runs in a process of its own without
paying for the imports. Reads a request a line from standard input, answers with the exit status."""

from __future__ import annotations

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
import rich.progress  # noqa: F401

import optc.cli.app
import optc.compiler
import optc.gate
import optc.report.page  # noqa: F401
from optc.__main__ import main


def become(request: dict[str, Any]) -> None:
    """Be the process that was asked for: its folder, variables, streams and limits."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None
    if request["file_limit"] is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_limit"],) * 2)
    for descriptor, path in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
        os.dup2(os.open(path, os.O_RDONLY if not descriptor else os.O_WRONLY), descriptor)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding=os.environ.get("PYTHONIOENCODING", "utf-8"))  # type: ignore[union-attr]
    sys.argv = ["optc", *request["arguments"]]


def serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        child = os.fork()
        if not child:
            become(json.loads(line))
            status: object = 1
            try:
                main()
            except SystemExit as end:
                status = end.code
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status if isinstance(status, int) else 0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)


if __name__ == "__main__":
    serve()
