"""`optc passes`, `optc targets`, `optc zoo`: what there is to choose from."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter

from .console import console


def passes(name: str | None = None, /, *, json_: Annotated[bool, Parameter(name="--json", negative=())] = False) -> int:
    """List the passes with their options and defaults.

    Parameters
    ----------
    name
        Only this pass.
    json_
        Print the list as JSON.

    Examples
    --------
        optc passes
        optc passes quant
        optc passes --json
    """
    from ..report import listing

    found = listing.passes(name)
    if json_:
        print(json.dumps(found, indent=2))
    else:
        console().print(listing.render_passes(found))
    return 0


def targets(*, json_: Annotated[bool, Parameter(name="--json", negative=())] = False) -> int:
    """List the targets and the facts that passes take from them.

    Parameters
    ----------
    json_
        Print the list as JSON.

    Examples
    --------
        optc targets
        optc targets --json
    """
    from ..report import listing

    found = listing.targets()
    if json_:
        print(json.dumps(found, indent=2))
    else:
        console().print(listing.render_targets(found))
    return 0


def zoo(*, json_: Annotated[bool, Parameter(name="--json", negative=())] = False) -> int:
    """List the models that ship; compile one with `optc zoo:NAME`.

    Parameters
    ----------
    json_
        Print the list as JSON.

    Examples
    --------
        optc zoo
        optc zoo --json
    """
    from ..report import listing

    found = listing.zoo()
    if json_:
        print(json.dumps(found, indent=2))
    else:
        console().print(listing.render_zoo(found))
    return 0
