"""`optc passes`, `optc targets`, `optc zoo`: what there is to choose from."""

from __future__ import annotations

from ..errors import SpecError
from .console import PLAINLY, Voice


def passes(name: str | None = None, /, *, stages: bool = False, voice: Voice = PLAINLY) -> int:
    """List the passes with their options and defaults.

    Parameters
    ----------
    name
        Only this pass.
    stages
        List the stages that the pass named takes a graph through.

    Examples
    --------
        optc passes
        optc passes quant --verbose
        optc passes quant --stages
        optc passes --json
    """
    from ..report import listing

    if stages:
        if name is None:
            raise SpecError("--stages lists those of one pass: name it, as in 'optc passes quant --stages'")
        steps = listing.stages(name)
        voice.say(steps, listing.render_stages(steps))
        return 0
    rows = listing.passes(name)
    voice.say(rows, listing.render_passes(rows, whole=voice.verbose))
    return 0


def targets(*, operators: bool = False, voice: Voice = PLAINLY) -> int:
    """List the targets and the facts that passes take from them.

    Parameters
    ----------
    operators
        List ONNX's operators instead, and which of them the targets of TVM take.

    Examples
    --------
        optc targets
        optc targets --operators
        optc targets --json
    """
    from ..report import listing

    if operators:
        rows = listing.operators()
        voice.say(rows, listing.render_operators(rows))
        return 0
    entries = listing.targets()
    voice.say(entries, listing.render_targets(entries))
    return 0


def zoo(*, voice: Voice = PLAINLY) -> int:
    """List the models that ship; compile one with `optc zoo:NAME`.

    Examples
    --------
        optc zoo
        optc zoo --json
    """
    from ..report import listing

    rows = listing.zoo()
    voice.say(rows, listing.render_zoo(rows))
    return 0
