"""The answer written down: `plan.toml`, an ordinary configuration that `optc build` carries out, and its lock file.

The lock file holds what the clock decided while the answer was built, so that the plan gives the same bytes on any day.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence

from ..compiler.locked import Locked
from ..compiler.model import stem_of
from ..compiler.option import declared
from ..compiler.options import Options
from ..passes.base import Override
from ..project.config import parse
from ..project.lock import Lock, build_name
from ..report.build import BuildReport
from ..storage.atomic import Replacement
from .plan import Plan

_HEAD = "# Written by optc search: build it again with optc build --config {name}\n\n[[model]]\n"
_OWN = ("passes", "overrides", "output", "target", "guard", "budget")


def write_plan(path: str, model: str, output: str, options: Options, plan: Plan, report: BuildReport) -> None:
    """Write `plan` for `model` as the configuration `path`, and its lock file beside it.

    Raises `OutputError`, and `SpecError` where the text would not be read back.
    """
    budget = None if report.budget is None else str(report.budget.budget)
    text = plan_text(path, model, output, options, plan, report.target, budget)
    config = parse(path, text)
    with Replacement(path) as files:
        files.open().write(text.encode())
    lock = Lock(config.lock_path)
    lock.builds[build_name(stem_of(model), report.target)] = Locked.of(report)
    lock.write()


def plan_text(path: str, model: str, output: str, options: Options, plan: Plan, target: str, budget: str | None) -> str:
    folder = os.path.dirname(os.path.abspath(path))

    def place(one: str) -> str:
        return one if one.startswith("zoo:") else os.path.relpath(os.path.abspath(one), os.path.realpath(folder))

    keys: dict[str, object] = {
        "path": place(model),
        "output": place(output),
        "targets": [target],
        "passes": plan.passes,
        "guard": plan.guard,
    }
    if budget:
        keys["budget"] = budget
    unset = Options()
    for name, one in declared(Options).items():
        value = getattr(options, name)
        if one.configured and name not in _OWN and value != getattr(unset, name):
            if isinstance(value, str | os.PathLike) and one.kind.path:
                keys[one.flag] = place(os.fspath(value))
            elif name != "data":  # samples that are no file are given anew
                keys[one.flag] = _plain(name, value)
    lines = [f"{key} = {_toml(value)}" for key, value in keys.items()]
    text = _HEAD.format(name=os.path.basename(path)) + "\n".join(lines) + "\n"
    return text + "".join(map(_override, (*options.overrides, *plan.overrides)))


def _plain(name: str, value: object) -> object:
    """An option's value as a configuration spells it."""
    if isinstance(value, Mapping):
        return [f"{key}={'x'.join(map(str, one)) if isinstance(one, Sequence) else one}" for key, one in value.items()]
    if name == "resize":
        sizes = value if isinstance(value, tuple) else (value, value)
        return "x".join(map(str, sizes))
    if name == "tune":
        return f"{value}s"
    return list(value) if isinstance(value, tuple) else value


def _override(one: Override) -> str:
    lines = ["", "[[model.override]]", f"match = {_toml(one.match)}"]
    lines += [f"op = {_toml(one.op)}"] if one.op else []
    lines += ["keep = true"] if one.keep else []
    wanted: dict[str, object] = dict.fromkeys(one.skips, "keep")
    wanted |= {
        name: {key.replace("_", "-"): value for key, value in options.items()} for name, options in one.passes.items()
    }
    lines += [f"passes = {_toml(wanted)}"] if wanted else []
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    """A value in TOML, whose texts, numbers and truths are those of JSON."""
    if isinstance(value, Mapping):
        inner = ", ".join(
            f"{_toml(key) if not str(key).isidentifier() else key} = {_toml(one)}" for key, one in value.items()
        )
        return f"{{ {inner} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)
