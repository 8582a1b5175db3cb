"""Why a library takes so long: the candidates for one call, their times, and which one wins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cmsim.calibration.places import Place, place
from cmsim.calibration.predict import time_us
from cmsim.calibration.tables import COLLECTIVES
from cmsim.collectives import library
from cmsim.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Candidate:
    """One way to run the call.

    time_us: if it ran alone [us]    weight: its share of the prediction, 1 the certain winner    why: in words
    """

    name: str
    time_us: float
    weight: float
    why: str


def explain(system: str, collective: str, size_B: float, ranks: int) -> list[Candidate]:
    """Candidates of one collective on a system, the likeliest first; the prediction itself is the last entry.

    system: name, alias or file    collective: "all_reduce", ...    size_B: S as nccl-tests prints it [B]
    ranks: p [1]

    InputError: an unknown system or collective, a size or rank count that cannot be.

    """
    if collective.lower() not in COLLECTIVES:
        raise InputError(f"unknown collective '{collective}'. {did_you_mean(collective, COLLECTIVES)}")
    name = COLLECTIVES[collective.lower()]
    if not (np.isfinite(size_B) and size_B > 0):
        raise InputError(f"size_B: must be above 0, got {size_B}")
    if ranks < 1 or ranks != int(ranks):
        raise InputError(f"ranks: must be a whole number above 0, got {ranks}")
    at = place(system)
    p, size, none = np.array([float(ranks)]), np.array([float(size_B)]), np.zeros(1)
    found = _candidates(at, name, p, size)
    total = time_us(at, collective=name, ranks=p, size_B=size, narrow=none)
    return [*found, Candidate("predicted", float(total[0]), 1.0, "the candidates joined by their weights")]


def _candidates(at: Place, name: str, p: np.ndarray, size: np.ndarray) -> list[Candidate]:
    if p[0] > at.domain_ranks:
        domains = np.ceil(p / at.domain_ranks)
        times = library.between_candidates_us(
            at.transport,
            at.ring,
            at.domain,
            collective=name,
            ranks=p,
            per_domain=p / domains,
            size_B=size,
            nic_Bps=np.array([at.nic_Bps]),
        )
        why = "the smooth minimum of the candidates between domains"
    elif at.mesh:
        times = library.hccl_candidates_us(
            at.constants, collective=name, ranks=p, size_B=size, port_Bps=at.domain.port_Bps, alpha_us=at.alpha_us
        )
        why = "the cheapest of the algorithms that apply"
    elif name in ("all_reduce", "all_gather", "reduce_scatter"):
        found = library.protocols_us(at.constants, at.domain, collective=name, ranks=p, size_B=size, narrow=np.zeros(1))
        made = [
            Candidate(
                key, float(time[0]), float(np.broadcast_to(share, (1,))[0]), "the tuner's choice decides, not the time"
            )
            for key, (time, share) in found.items()
        ]
        return sorted(made, key=lambda one: -one.weight)
    else:
        times = {"direct": time_us(at, collective=name, ranks=p, size_B=size, narrow=np.zeros(1))}
        why = "the only one"
    best = min(times, key=lambda key: float(times[key][0]))
    made = [
        Candidate(key, float(time[0]), float(key == best), why if key == best else "slower")
        for key, time in times.items()
        if np.isfinite(time[0])
    ]
    return sorted(made, key=lambda one: one.time_us)
