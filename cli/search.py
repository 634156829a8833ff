"""`optc search MODEL`: the best model under a budget, by a search over the options of all passes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from ..compiler.options import AGAIN, RUN
from ..errors import SpecError
from .chosen import Chosen, choose
from .console import MISSED, OUTPUT, PLAINLY, Voice, console, heard, out
from .flags import GROUPS, READING, OptionValues, takes
from .values import cache_place, check_apart

if TYPE_CHECKING:
    from ..searcher import Search

_SEARCHED = (
    "target",
    "output",
    *READING,
    "freeze",
    "seed",
    "threads",
    "clean",
    "budget",
    "latency_table",
)
_AGAIN, _RUN = GROUPS[AGAIN], GROUPS[RUN]
AUTO = "auto"
"""What stands for passes that are to be searched for."""
DEFAULT_TIME, STRATEGY = 300.0, "knapsack"
"""Seconds and strategy of a search that is told neither."""
_NOT_SEARCHED = ("student", "tune", "tune_records", "min_agreement", "guard")
"""Options of `optc MODEL` that are of a build whose passes are named."""


@takes(*_SEARCHED)
def search(
    model: str,
    /,
    *,
    options: OptionValues,
    time: Annotated[str, Parameter(group=_RUN)] = "5m",
    strategy: Annotated[str, Parameter(group=_RUN)] = STRATEGY,
    teach: Annotated[bool, Parameter(group=_RUN)] = True,
    forms: Annotated[str | None, Parameter(group=_RUN)] = None,
    candidates: Annotated[int, Parameter(group=_RUN, validator=Number(gte=0))] = 0,
    keep: Annotated[list[str] | None, Parameter(group=_RUN, negative=())] = None,
    plan: str | None = None,
    config: Annotated[str | None, Parameter(group=_AGAIN)] = None,
    cache: Annotated[str | None, Parameter(group=_AGAIN, negative=())] = None,
    no_cache: Annotated[bool, Parameter(name="--no-cache", group=_AGAIN, negative=())] = False,
    scheduler: Annotated[str | None, Parameter(group=_RUN)] = None,
    report: Annotated[list[str] | None, Parameter(group=OUTPUT, negative=())] = None,
    voice: Voice = PLAINLY,
) -> int:
    """Search the options of all passes for the best MODEL that keeps a budget, and write it with its plan.

    Parameters
    ----------
    model
        An ONNX file, or zoo:NAME for a model that ships or an architecture (see `optc zoo`).
    time
        How long to search, such as 90s, 5m or 1h; what is being built then is finished.
    strategy
        How candidates are proposed: knapsack, evolution, reinforce, gradient, or random as a control.
    teach
        Let the end of the time go to the pass `distill` on the best candidate (yes, unless --no-teach).
    forms
        Forms that layers may compute in, parted by commas: float, int8, dynamic (ranges found as the model runs), none
        (only weights stored); those worth trying under the budget unless given.
    candidates
        Stop after so many candidates; 0 lets the time alone decide.
    keep
        Leave layers whose names fit this pattern as they are; may be given several times.
    plan
        Configuration that receives the answer, for `optc build --config`; beside the result as NAME.plan.toml unless
        given.
    config
        Configuration whose options for MODEL hold where the command line gives none; optc.toml beside MODEL unless
        given (see `optc init`).
    cache
        Folder of what was surveyed and judged; that of OPTC_CACHE, or one in the user's cache, unless given.
    no_cache
        Neither use nor fill the cache.
    scheduler
        Address of a Dask scheduler whose workers build the candidates, such as tcp://host:8786; needs optc[dask], and
        on every worker the same versions as here.
    report
        File that receives the record of the search, in the form its extension names: .json, or .html (a page to look
        at; needs optc[html]). May be given several times.

    Examples
    --------
        optc search model.onnx --data samples.npz --budget size=10%,agreement=98%
        optc search model.onnx --budget macs=50% --time 20m --report search.html
    """
    from ..targets.tuning import duration

    chosen = choose(model, config, options.values, keep or ())
    place, seconds = cache_place(cache, no_cache), duration(time, "--time")
    return run(chosen, seconds, strategy, plan, place, report or [], voice, teach, candidates, forms, scheduler)


def searches(chosen: Chosen, options: OptionValues) -> bool:
    """Whether `optc MODEL` searches: passes are to be found, or a budget is given and nothing says by which passes."""
    if chosen.options.passes == AUTO:
        return True
    return options.get("budget") is not None and options.get("passes") is None and chosen.entry is None


def refuse(own: Mapping[str, object], options: OptionValues) -> None:
    """Raises `SpecError` for an option of `optc MODEL` that a search does not know."""
    words = [flag for flag, value in own.items() if value is not None]
    words += [f"--{word.replace('_', '-')}" for word in options.words if word in _NOT_SEARCHED]
    if words:
        raise SpecError(f"{words[0]} is of a build whose passes are named, and not of a search: give --passes too")


def run(
    chosen: Chosen,
    seconds: float,
    strategy: str,
    plan: str | None,
    cache: str | None,
    report: list[str],
    voice: Voice,
    teach: bool = True,
    candidates: int = 0,
    forms: str | None = None,
    scheduler: str | None = None,
) -> int:
    """Search as `chosen`, and tell; the exit status."""
    from ..report.search_files import check, write
    from ..report.search_terminal import show
    from ..searcher import Stopped
    from ..searcher.function import search_with

    out_path = chosen.output
    if plan is None:
        plan = os.path.splitext(out_path)[0] + ".plan.toml"
    data = chosen.options.data_path
    others = {"MODEL": chosen.model, "--data": data, "--config": chosen.config}
    check_apart(out_path, "-o", others)
    check_apart(plan, "--plan", {**others, "-o": out_path})
    for path in report:
        check_apart(path, "--report", {**others, "-o": out_path, "--plan": plan})
        check(path)
    if plan.rpartition(".")[2] != "toml":
        raise SpecError(f"--plan names a configuration, NAME.toml, not {plan}")
    errors = console(stderr=True)
    stopped: Stopped | None = None
    result: Search | None
    with voice.progress() as progress:

        def tell(line: str) -> None:
            if voice.loud:
                errors.print(line, markup=False, highlight=False, soft_wrap=True)

        try:
            whole = replace(
                chosen.options, target=chosen.target, output=out_path, cache=cache, progress=progress, observers=()
            )
            words = forms.split(",") if forms else ()
            result = search_with(
                chosen.model, whole, seconds, strategy, teach, candidates, words, plan, tell, scheduler
            )
        except Stopped as stop:
            result, stopped = stop.search, stop
    if result is not None:
        for path in report:
            write(result.report, path)
        with heard():
            if voice.json:
                sys.stdout.write(result.report.to_json())
            elif voice.loud:
                show(result.report, console(), layers=voice.verbose)
                out(f"wrote {plan}")
    if stopped is not None:
        raise stopped
    assert result is not None
    if result.met:
        return 0
    from ..report.verdict import sentence

    missed = "; ".join(map(sentence, result.report.budget.misses))
    out(f"optc: the budget was missed: {missed}; what comes nearest is at {out_path}", error=True)
    return MISSED
