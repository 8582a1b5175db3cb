"""Every plan of a service: shapes of its pools, caps on sequences, copies; those that are no plan by reason."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cmsim.search.services.axes import COUNTED, ServiceQuestion, dotted
from cmsim.search.services.curves import SIZES, PoolShape

#: reasons
MACHINE, SAME = "more accelerators than there are", "the same plan as another"
IDLE, CHUNK = "two micro-batches without an exchange to hide", "a step holds fewer tokens than sequences"


@dataclass
class PoolSpace:
    """Plans of one pool.

    shapes    that may be, with the caps on sequences tried with each    copies  values of its replicas
    refused   shapes and caps that may not, by reason    caps  all that are asked for
    """

    pool: str
    shapes: list[tuple[PoolShape, tuple[int, ...]]]
    copies: tuple[Any, ...]
    refused: Counter[str] = field(default_factory=Counter)
    caps: tuple[int, ...] = ()


def space(asked: ServiceQuestion, pool: str, values: Mapping[str, tuple[Any, ...]]) -> PoolSpace:
    """All plans of a pool, from the values of its keys."""
    mine = {
        key.removeprefix(f"{pool}.") if pool else key: its
        for key, its in values.items()
        if not pool or key.startswith(f"{pool}.")
    }
    caps, copies = (tuple(mine[key]) for key in COUNTED)
    made = PoolSpace(pool, [], copies, caps=caps)
    seen: set[tuple[Any, ...]] = set()
    for its in _each({key: one for key, one in mine.items() if key not in COUNTED}):
        reason = _refusal(asked, its)
        # where nothing is split over ranks, each has whole sequences
        alike = tuple(
            "dp" if key == "parallel.attention" and its.get("parallel.tp", 1) == 1 else one for key, one in its.items()
        )
        reason = reason or (SAME if alike in seen else "")
        seen.add(alike)
        fit = tuple(cap for cap in caps if cap < its.get("batching.step_tokens", 1 << 60)) if not reason else ()
        made.refused[reason or CHUNK] += len(caps) - len(fit)
        if fit:
            made.shapes.append((PoolShape(pool, its), fit))
    made.refused = +made.refused
    return made


def _each(values: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for one in itertools.product(*values.values()):
        yield dict(zip(values, one, strict=True))


def _refusal(asked: ServiceQuestion, its: Mapping[str, Any]) -> str:
    """Why a plan is none, as far as that is seen without making its programs."""
    system, model = asked.system, asked.model
    if its["accelerators"] > system.packages:
        return MACHINE
    ranks = its["accelerators"] * system.ranks_per_package
    tp, attention = its.get("parallel.tp", 1), its.get("parallel.attention", "tp")
    stages = its.get("parallel.pp", 1) * its.get("parallel.cp", 1)
    if attention == "dp" and tp > 1:
        return SAME  # every rank has whole sequences
    if ranks % (tp * stages) or (attention == "tp" and model.heads % tp):
        return SIZES
    spread = bool(model.experts) and its.get("parallel.ep", 1) != 1
    spread = spread or its.get("parallel.expert_tp", 1) > 1
    if not spread and tp * stages < ranks:
        return SAME  # as smaller replicas, which need not wait for each other
    if its.get("microbatches", 1) > 1 and not spread:
        return IDLE
    if model.experts and attention == "dp" and not spread and ranks > 1:
        return SAME
    return ""


def named(pool: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a pool's keys by the keys of a scenario."""
    return {dotted(pool, key): value for key, value in values.items()}
