"""What there is: passes, targets, models that ship. As plain values, and as tables."""

from __future__ import annotations

import inspect
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table

from ..ir.types import DType
from ..passes import table as pass_table
from ..passes.spec import options
from ..targets import table as target_table
from .shown import shown
from .tables import table

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Rows = list[dict[str, Any]]


def passes(name: str | None = None) -> Rows:
    """Every pass, or the one called `name`, with its options. Raises `SpecError` for an unknown name."""
    chosen = pass_table.classes() if name is None else [pass_table.find(name)]
    return [
        {
            "name": cls.name,
            "lossy": cls.lossy,
            "help": _first_sentence(cls),
            "about": inspect.getdoc(cls) or "",
            "options": _options(cls),
        }
        for cls in chosen
    ]


def stages(name: str) -> Rows:
    """The stages of the pass called `name`, in order. Raises `SpecError` for an unknown name."""
    return [{"name": stage, "help": text} for stage, text in pass_table.find(name).stages().items()]


def targets() -> Rows:
    """Every target with its options, and its facts as they are when none is given."""
    entries = [target_table.find(name)() for name in target_table.names()]
    return [
        {
            "name": target.name,
            "help": target.help,
            "options": _options(type(target)),
            "facts": {
                key: value.text if isinstance(value, DType) else value for key, value in asdict(target.facts).items()
            },
        }
        for target in entries
    ]


def operators() -> Rows:
    """Every operator of ONNX, and how the targets of TVM take it: none where they refuse it."""
    from ..targets.tvm.support import table

    return [
        {"operator": one.operator, "by": one.way or None, "by_gpus": one.gpu or None, "note": one.note}
        for one in table()
    ]


def _options(cls: type[DataclassInstance]) -> Rows:
    return [
        {
            "name": one.name.replace("_", "-"),
            "type": one.type_text,
            "default": one.default if isinstance(one.default, str | int | float | None) else str(one.default),
            "help": one.help,
        }
        for one in options(cls)
    ]


def zoo() -> Rows:
    """Every model that ships."""
    from ..models.zoo import entries

    return [{"name": one.name, "kind": one.kind, "help": one.description} for one in entries()]


def render_passes(rows: Rows, *, whole: bool = False) -> Group:
    """Every pass with its options; `whole` descriptions, or the first sentence of each."""
    return Group(*(part for row in rows for part in _pass(row, whole)))


def render_stages(rows: Rows) -> Table:
    listed = table("stage", "what it does")
    for row in rows:
        listed.add_row(row["name"], shown(row["help"]))
    return listed


def render_targets(rows: Rows) -> Group:
    tables: list[RenderableType] = []
    for row in rows:
        facts = table("fact", "value")
        for key, value in row["facts"].items():
            if key != "name":
                facts.add_row(key.replace("_", " "), str(value))
        own: list[RenderableType] = [_option_table(row), ""] if row["options"] else []
        tables += [f"[bold]{row['name']}[/]  {shown(row['help'])}", *own, facts, ""]
    return Group(*tables)


def render_operators(rows: Rows) -> Table:
    listed = table("operator", "CPUs", "GPUs", "what is taken, where not all, or why not")
    for row in rows:
        ways = (row[key] or "refused" for key in ("by", "by_gpus"))
        listed.add_row(row["operator"], *ways, shown(row["note"]))
    return listed


def render_zoo(rows: Rows) -> Table:
    listed = table("name", "kind", "")
    for row in rows:
        listed.add_row(f"[bold]{row['name']}[/]", row["kind"], shown(row["help"]))
    return listed


def _pass(row: dict[str, Any], whole: bool) -> tuple[RenderableType, ...]:
    kind = "lossy" if row["lossy"] else "lossless"
    about = f"{shown(row['about'])}\n" if whole else shown(row["help"])
    return f"[bold]{row['name']}[/] ({kind})  {about}", _option_table(row), ""


def _option_table(row: dict[str, Any]) -> Table:
    listed = table("option", "type", "default", "")
    for one in row["options"]:
        default = "none" if one["default"] is None else str(one["default"]).lower()
        listed.add_row(one["name"], shown(one["type"]), default, shown(one["help"]))
    return listed


def _first_sentence(cls: type) -> str:
    return " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())
