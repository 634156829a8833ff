"""Overrides as a configuration file spells them: `{ match = "head.*", keep = true }`, `{ op = "Gemm", passes = … }`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import SpecError, nearest
from ..passes import table
from ..passes.base import Override
from ..passes.spec import convert, options


def override(section: Mapping[str, Any]) -> Override:
    """The override that a table of plain values spells. Raises `SpecError`.

    `passes` maps a pass to "keep", or to a table of the options that a layer can have of its own, `keep` among them.
    """
    match, op, keep = section.get("match", "*"), section.get("op", ""), section.get("keep", False)
    if not isinstance(match, str) or not isinstance(op, str) or not isinstance(keep, bool):
        raise SpecError("an override takes match and op as texts, and keep as true or false")
    if "match" not in section and "op" not in section:
        raise SpecError('an override says which layers it is for: match = "head.*", or op = "Gemm"')
    passes = section.get("passes", {})
    if not isinstance(passes, dict):
        raise SpecError('passes is a table of options by pass: passes = { svd = { ratio = 0.5 }, quant = "keep" }')
    if not keep and not passes:
        raise SpecError("an override without keep and without passes overrides nothing")
    skips: set[str] = set()
    values: dict[str, dict[str, object]] = {}
    for name, wanted in passes.items():
        cls = table.find(name)
        if wanted == "keep":
            skips.add(name)
            continue
        if not isinstance(wanted, dict):
            raise SpecError(f"'{name}' takes \"keep\" or a table of options, not {wanted!r}")
        choices = {choice.name.replace("_", "-"): choice for choice in options(cls)}
        single = sorted(key for key, choice in choices.items() if choice.layer)
        for key, value in wanted.items():
            word = key.replace("_", "-")
            if word == "keep" and "keep" not in single:
                if value is True:
                    skips.add(name)
                continue
            if word not in choices:
                raise SpecError(f"'{name}' has no option '{key}'.{nearest(word, [*single, 'keep'])}")
            if word not in single:
                one = f"; a layer can have its own {', '.join(single)}" if single else "; a layer can only be kept"
                raise SpecError(f"option '{key}' of '{name}' holds for the whole model{one}")
            text = str(value).lower() if isinstance(value, bool) else str(value)
            try:
                values.setdefault(name, {})[choices[word].name] = convert(choices[word], text)
            except ValueError as error:
                raise SpecError(str(error)) from None
    return Override(match, op, keep, tuple(sorted(skips)), values)
