"""Cases played through the api: equal ones once, side by side where that is sooner."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmsim import api, side_by_side
from cmsim.errors import InputError
from cmsim.published.case import Case
from cmsim.results import Infeasible, Result
from cmsim.units import GB, TERA

#: more than any rank needs: what was measured did fit
_ROOMY_GB = 1e6


@dataclass(frozen=True)
class PlayedCase:
    """What became of a case. Without a time there is a reason.

    step_time_s           of one optimizer step [s]
    rate                  tokens a second and accelerator [1/s]
    memory_B              what the fullest rank holds [B]
    model_FLOPps          causal model FLOPs a second and accelerator [FLOP/s]
    notes                 what had to be changed to run it
    """

    step_time_s: float | None = None
    rate: float | None = None
    memory_B: float | None = None
    model_FLOPps: float | None = None
    reason: str = ""
    notes: tuple[str, ...] = ()


def play_all(
    cases: Sequence[Case], *, jobs: int | None = 1, progress: Callable[[float], None] | None = None
) -> list[PlayedCase]:
    """What becomes of each case, in their order; equal scenarios are played once.

    jobs: processes    progress: called with the share that is done, 0 to 1
    """
    with tempfile.TemporaryDirectory(prefix="cmsim-") as folder:
        texts = [json.dumps(with_files(one, Path(folder)), sort_keys=True) for one in cases if one.scenario]
        items = list(dict.fromkeys(zip(texts, [one.extras for one in cases if one.scenario], strict=True)))
        done: dict[tuple[str, tuple[str, ...]], PlayedCase] = {}
        for number, played in enumerate(side_by_side.in_order(_play_text, _play_text, items, jobs), 1):
            done[items[number - 1]] = played
            if progress is not None:
                progress(number / len(items))
    waiting = iter(zip(texts, [one.extras for one in cases if one.scenario], strict=True))
    return [done[next(waiting)] if one.scenario else PlayedCase(reason=one.reason) for one in cases]


def play(case: Case) -> PlayedCase:
    """One case by itself."""
    return play_all([case])[0]


def with_files(case: Case, folder: Path) -> dict[str, Any]:
    """The scenario of a case; sizes of a model that stand in it go to a file of ``folder``, named by what it holds."""
    scenario = copy.deepcopy(dict(case.scenario or {}))
    model = scenario["workload"]["model"]
    if isinstance(model, Mapping):
        text = json.dumps(model, sort_keys=True)
        path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        path.write_text(text, encoding="utf-8")
        scenario["workload"]["model"] = str(path)
    return scenario


def _play_text(item: tuple[str, tuple[str, ...]]) -> PlayedCase:
    text, extras = item
    outcome, notes = tried(json.loads(text), extras)
    if isinstance(outcome, str):
        return PlayedCase(reason=outcome, notes=notes)
    value_of = functools.partial(_metric, outcome)
    return PlayedCase(
        step_time_s=value_of("step_time_s"),
        rate=value_of("tokens_per_s_per_accelerator"),
        memory_B=value_of("memory_peak_B"),
        model_FLOPps=(value_of("model_TFLOPps_per_accelerator") or 0.0) * TERA or None,
        notes=notes,
    )


def tried(
    scenario: dict[str, Any], extras: Sequence[str], notes: tuple[str, ...] = ()
) -> tuple[Result | str, tuple[str, ...]]:
    """The result of a scenario of one run, or why there is none, and what had to be changed for it: where it is refused
    for a key of ``extras``, it is run without; where it does not fit, with room, for what was measured did fit."""
    try:
        (outcome,) = api.run(scenario, record="summary").outcomes
    except InputError as error:
        # the first problem says enough; the others often follow from it
        reason, said = f"refused: {error.problems[0].message}", str(error)
    else:
        if isinstance(outcome, Infeasible) and not _has_room(scenario):
            return tried(roomy(scenario), extras, (*notes, f"{_unfit(outcome)}; played as if it did"))
        if isinstance(outcome, Result):
            return outcome, notes
        reason, said = f"{outcome.outcome}: {outcome.message}", outcome.message
    for key in extras:
        name = key.rsplit(".", 1)[-1]
        if name in said or name.replace("_", " ") in said:
            note = f"without {key} {_drop(scenario, key)} ({reason})"
            return tried(scenario, [one for one in extras if one != key], (*notes, note))
    return reason, notes


def _unfit(outcome: Infeasible) -> str:
    needed, there = ((outcome.budget or {}).get(key, 0.0) / GB for key in ("needed_B", "available_B"))
    return f"does not fit: {needed:.1f} GB of {there:.1f} GB" if needed else f"does not fit ({outcome.message})"


def _metric(outcome: Result, name: str) -> float | None:
    value = outcome.metrics.get(name)
    return None if value is None else float(value)


def _drop(scenario: dict[str, Any], key: str) -> Any:
    *path, last = key.split(".")
    at = scenario["workload"]
    for name in path:
        at = at[name]
    return at.pop(last)


def _has_room(scenario: Mapping[str, Any]) -> bool:
    return bool(scenario["systems"][0].get("set", {}).get("accelerator.memory_GB") == _ROOMY_GB)


def roomy(scenario: dict[str, Any]) -> dict[str, Any]:
    out = copy.deepcopy(scenario)
    out["systems"][0].setdefault("set", {})["accelerator.memory_GB"] = _ROOMY_GB
    return out
