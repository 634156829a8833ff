"""`optc.lock`: what every build was made of and what came out, beside the configuration that asked for it.

JSON with sorted keys, so that it can be kept under version control and its changes read. Hashes of the model, the
samples, the options and the code; versions; hashes of the files made; and the guard's rulings, so that a rebuild does
not depend on how busy the machine is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..compiler.locked import Locked
from ..errors import LockError
from ..report.build import BuildReport
from ..storage.atomic import write_text
from ..storage.plain import plain, restored
from ..storage.plain_file import read_text

SCHEMA = "optc.lock/1"


@dataclass(slots=True)
class Lock:
    """The builds of one lock file by their name, `model@target`."""

    path: str
    builds: dict[str, Locked] = field(default_factory=dict)

    @staticmethod
    def read(path: str, *, strict: bool = False) -> Lock:
        """The lock in a file; an empty one where there is none, unless it is to be strict. Raises `LockError`."""
        try:
            document = json.loads(read_text(path))
            if document["schema"] != SCHEMA:
                raise LockError(f"{path}: is of the form {document['schema']}, not {SCHEMA}; delete it to begin anew")
            builds: dict[str, Locked] = {
                name: restored(Locked, {**one, "strict": strict}) for name, one in document["builds"].items()
            }
        except FileNotFoundError:
            if strict:
                raise LockError(f"{path}: there is no lock file; build once without --locked to write it") from None
            return Lock(path)
        except OSError as error:
            raise LockError(f"{path}: cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise LockError(f"{path}: is no lock file, or is damaged; delete it to begin anew") from error
        return Lock(path, builds)

    def of(self, name: str, *, strict: bool = False) -> Locked | None:
        """The record of one build. Raises `LockError` where a strict lock has none."""
        build = self.builds.get(name)
        if build is None and strict:
            raise LockError(f"{self.path}: has no build {name}; build once without --locked to record it")
        return build

    def keep(self, name: str, report: BuildReport) -> None:
        """Record one build, and write the file."""
        self.builds[name] = Locked.of(report)
        self.write()

    def write(self) -> None:
        """Write the file, whole or not at all; the same bytes for the same builds. Raises `OutputError`."""
        builds: Mapping[str, object] = {
            name: {key: value for key, value in _fields(one).items() if key != "strict"}
            for name, one in self.builds.items()
        }
        text = json.dumps({"schema": SCHEMA, "builds": builds}, indent=2, sort_keys=True) + "\n"
        write_text(self.path, text)


def _fields(one: Locked) -> Mapping[str, object]:
    fields = plain(replace(one, strict=False))
    assert isinstance(fields, dict)
    return fields


def build_name(model: str, target: str) -> str:
    """What a build is called: `classifier@onnx`."""
    return f"{model}@{target}"
