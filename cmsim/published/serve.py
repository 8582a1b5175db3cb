"""Services of rows, run through the api: those of equal plans one after the other, groups side by side."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmsim import api, side_by_side
from cmsim.errors import InputError
from cmsim.published.case import Case
from cmsim.published.play import drop, has_room, roomy, with_files
from cmsim.results import Infeasible, Result

#: what differs between services whose steps are the same
_LOAD = ("arrivals", "lengths", "batching", "slo", "routing")


@dataclass(frozen=True)
class PlayedService:
    """What became of a service. Without times there is a reason.

    ttft_s, tpot_s   means over requests [s]    output_tokens_per_s  of all replicas [1/s]
    notes            what had to be changed to run it
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    output_tokens_per_s: float | None = None
    reason: str = ""
    notes: tuple[str, ...] = ()


_Item = tuple[str, tuple[str, ...]]


def serve_all(
    cases: Sequence[Case], *, jobs: int | None = 1, progress: Callable[[float], None] | None = None
) -> list[PlayedService]:
    """What becomes of each case, in their order; equal scenarios run once, equal plans share their steps.

    jobs: processes    progress: called with the share that is done, 0 to 1
    """
    with tempfile.TemporaryDirectory(prefix="cmsim-") as folder:
        items: list[_Item | None] = [
            (json.dumps(with_files(one, Path(folder)), sort_keys=True), one.extras) if one.scenario else None
            for one in cases
        ]
        groups: dict[str, dict[_Item, None]] = {}
        for item in items:
            if item is not None:
                groups.setdefault(_plan(item[0]), {})[item] = None
        work = [tuple(group) for group in groups.values()]
        done: dict[_Item, PlayedService] = {}
        for group, played in zip(work, side_by_side.in_order(_serve_group, _serve_group, work, jobs), strict=True):
            done.update(zip(group, played, strict=True))
            if progress is not None:
                progress(len(done) / sum(map(len, work)))
    return [
        PlayedService(reason=case.reason) if item is None else done[item]
        for case, item in zip(cases, items, strict=True)
    ]


def _plan(text: str) -> str:
    """What equal plans have in common."""
    scenario = json.loads(text)
    workload = {key: value for key, value in scenario["workload"].items() if key not in _LOAD}
    return json.dumps({**scenario, "workload": workload}, sort_keys=True)


def _serve_group(group: tuple[_Item, ...]) -> list[PlayedService]:
    return [_serve(json.loads(text), list(extras), ()) for text, extras in group]


def _serve(scenario: dict[str, Any], extras: list[str], notes: tuple[str, ...]) -> PlayedService:
    """A run; where it is refused for a key that may be dropped, without it; where it does not fit, with room."""
    try:
        (outcome,) = api.run(scenario, record="summary").outcomes
    except InputError as error:
        return _without(scenario, extras, notes, f"refused: {error.problems[0].message}", str(error))
    if isinstance(outcome, Infeasible) and not has_room(scenario):
        # what was measured did fit
        return _serve(roomy(scenario), extras, (*notes, f"{outcome.message}; run as if it did fit"))
    if not isinstance(outcome, Result):
        return _without(scenario, extras, notes, f"{outcome.outcome}: {outcome.message}", outcome.message)
    values = outcome.metrics
    lost = {name: int(values.get(f"requests_{name}", 0)) for name in ("refused", "timed_out")}
    more = tuple(f"{many} requests {name.replace('_', ' ')}" for name, many in lost.items() if many)
    times = [values.get(name) for name in ("ttft_mean_s", "tpot_mean_s", "output_tokens_per_s")]
    ttft, tpot, rate = (None if value is None else float(value) for value in times)
    return PlayedService(ttft, tpot, rate, notes=(*notes, *more))


def _without(
    scenario: dict[str, Any], extras: list[str], notes: tuple[str, ...], reason: str, said: str
) -> PlayedService:
    """The run without the first key that the refusal speaks of and that may be dropped, else the reason."""
    for key in extras:
        name = key.rsplit(".", 1)[-1]
        if name in said or name.replace("_", " ") in said:
            note = f"without {key} {drop(scenario, key)} ({reason})"
            return _serve(scenario, [one for one in extras if one != key], (*notes, note))
    return PlayedService(reason=reason, notes=notes)
