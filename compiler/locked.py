"""What a lock file says of one build: digests of what went in and what came out, versions, and the guard's rulings.

A build with a lock takes the rulings that are recorded rather than measuring anew. A *strict* one fails where anything
differs from what is recorded, before anything is run for what goes in, before anything is written for what comes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import LockError
from ..passes.cached import Ruling
from ..report.build import BuildReport

_WORDS = {
    "model": "the model",
    "data": "the samples",
    "options": "the options",
    "code": "the code of optc or of a pass",
}


@dataclass(frozen=True, slots=True)
class Locked:
    """`hashes`, `versions`, `outputs` and `rulings` as in `BuildReport`."""

    hashes: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    rulings: Mapping[str, Ruling] = field(default_factory=dict)
    strict: bool = False

    @staticmethod
    def of(report: BuildReport) -> Locked:
        return Locked(report.hashes, report.versions, report.outputs, report.rulings)

    def check_inputs(self, hashes: Mapping[str, str], versions: Mapping[str, str]) -> None:
        """Raises `LockError` where a strict lock says otherwise."""
        if not self.strict:
            return
        differences = [
            f"{name} is {versions.get(name, 'not there')}, not {self.versions.get(name, 'there')}"
            for name in sorted({*versions, *self.versions})
            if versions.get(name) != self.versions.get(name)
        ]
        # A new version of a package comes with new code; one of the two says it all.
        differences += [
            f"{what} changed"
            for name, what in _WORDS.items()
            if hashes.get(name) != self.hashes.get(name) and not (name == "code" and differences)
        ]
        if differences:
            raise LockError(f"differs from the lock: {'; '.join(differences)}; build without --locked to renew it")

    def check_outputs(self, outputs: Mapping[str, str]) -> None:
        """Raises `LockError` where a strict lock says otherwise."""
        if self.strict and dict(outputs) != dict(self.outputs):
            names = [name for name in sorted({*outputs, *self.outputs}) if outputs.get(name) != self.outputs.get(name)]
            raise LockError(
                f"the same inputs gave other bytes than the lock records for {', '.join(names)} (another CPU or number "
                "of threads?); nothing was written; build without --locked to renew it"
            )
