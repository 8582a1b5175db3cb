"""Services of rows, run through the api: those of equal plans one after the other, groups side by side."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cmsim import side_by_side
from cmsim.published.case import Case
from cmsim.published.play import tried, with_files

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
    return [_serve(item) for item in group]


def _serve(item: _Item) -> PlayedService:
    text, extras = item
    outcome, notes = tried(json.loads(text), extras)
    if isinstance(outcome, str):
        return PlayedService(reason=outcome, notes=notes)
    values = outcome.metrics
    lost = {name: int(values.get(f"requests_{name}", 0)) for name in ("refused", "timed_out")}
    more = [f"{many} requests {name.replace('_', ' ')}" for name, many in lost.items() if many]
    times = {name: values.get(name) for name in ("ttft_mean_s", "tpot_mean_s", "output_tokens_per_s")}
    more += [f"no {name} of this service" for name, value in times.items() if value is None]
    ttft, tpot, rate = (None if value is None else float(value) for value in times.values())
    return PlayedService(ttft, tpot, rate, notes=(*notes, *more))
