"""Argv to commands to an exit status: the only place that decides one."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Sequence

from cyclopts import App, CycloptsError, UnusedCliTokensError

from .. import __version__
from ..errors import OptcError, lacks_memory
from .bench import bench
from .build import build
from .check import check
from .compile import compile_model
from .completion import completion
from .console import listening, out, silence
from .diff import diff
from .explain import explain
from .help import examples, unfold
from .init import init
from .inspect import inspect
from .listing import passes, targets, zoo
from .profile import profile
from .run import run_artifact
from .search import search

_INTERRUPTED = 130


COMMANDS: dict[str, Callable[..., int]] = {
    "": compile_model,
    "build": build,
    "search": search,
    "init": init,
    "inspect": inspect,
    "diff": diff,
    "check": check,
    "bench": bench,
    "profile": profile,
    "run": run_artifact,
    "explain": explain,
    "passes": passes,
    "targets": targets,
    "zoo": zoo,
}
"""Every command by its word; that of no word compiles."""
EXAMPLES = {word: examples(command) for word, command in COMMANDS.items()}
for command in COMMANDS.values():
    unfold(command)
app = App(
    name="optc",
    version=__version__,
    version_flags=["--version"],
    help="Make a trained ONNX model smaller and faster, and show what was lost.",
    help_epilogue=EXAMPLES[""],
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
    default_command=compile_model,
)
for word, command in COMMANDS.items():
    if word:
        app.command(command, name=word, help_epilogue=EXAMPLES[word])
install_completion = completion(app)
app.command(install_completion, name="--install-completion", help_epilogue=examples(install_completion))


def run(argv: Sequence[str], *, interrupted: Callable[[], bool] = lambda: False) -> int:
    """Run one command line and return the exit status.

    `interrupted` tells whether a signal came: an extension that is imported meanwhile makes another error of it.

    0 done, 1 a fault of ours, 2 the user's input, 3 a missed budget, 130 interrupted. What a user did wrong is one
    line on standard error; a traceback is shown only where `--traceback` asks for it.
    """
    # A caller may have closed them; what is said then goes nowhere.
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names in a model may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    if "-" in argv:
        return _fail("'-' is no file: models are read from files and written to files; name one", 2)
    try:
        with listening(argv):
            status = app(argv, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except UnusedCliTokensError as error:
        rest = " ".join(error.unused_tokens or ())
        return _fail(f"one MODEL or command is taken at a time, and this is left over: {rest} (see optc --help)", 2)
    except CycloptsError as error:
        return _fail(_first_line(error), 2)
    except OptcError as error:
        if "--traceback" in argv:
            raise
        if interrupted():
            return _fail(f"interrupted: {error}", _INTERRUPTED)
        return _fail(str(error), error.exit_status)
    except KeyboardInterrupt as stop:
        return _fail(str(stop) or "interrupted", _INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone, as `| head` does; that is no error, and there is nobody left to tell.
        silence()
        return 0
    except SystemExit:
        # What prints help and the version ends so where its reader has gone.
        silence()
        return 0
    except Exception as error:
        if "--traceback" in argv:
            raise
        if interrupted():
            return _fail("interrupted", _INTERRUPTED)
        if lacks_memory(error):
            return _fail("out of memory; use fewer samples (--samples) or a machine with more", 2)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
            silence()
            return _fail("standard output cannot be written: its disk is full", 2)
        where = "run again with --traceback and report what it shows"
        return _fail(f"internal error: {type(error).__name__}: {' '.join(str(error).split())}; {where}", 1)
    return status if isinstance(status, int) else 0


def _fail(message: str, status: int) -> int:
    out(f"optc: {message}", error=True)
    return status


def _first_line(error: CycloptsError) -> str:
    return " ".join(str(error).split())
