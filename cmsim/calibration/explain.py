"""Why a library takes so long: the candidates for one call, their times, and which one wins.

Three kinds stand in the list. Candidates of the measured model make the prediction: their weights add up to 1. The
library's own tuner has an estimate for every algorithm and protocol it could take; those rank, and weigh nothing.
Where a library sends directly, its other algorithms are priced from their pages.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cmsim.calibration.places import Place, place
from cmsim.calibration.predict import time_us
from cmsim.calibration.tables import COLLECTIVES
from cmsim.collectives import library
from cmsim.collectives.library.hccl import mesh_protocols_us
from cmsim.collectives.library.inside import NVLS_RANKS, Floats
from cmsim.collectives.library.tuner import candidates_us as tuner_candidates_us
from cmsim.errors import InputError, did_you_mean

#: before the tuner's names
_TUNER = "tuner: "


@dataclass(frozen=True)
class Candidate:
    """One way to run the call.

    time_us: if it ran alone [us]    weight: its share of the prediction, 1 the certain winner    why: in words
    """

    name: str
    time_us: float
    weight: float
    why: str


def explain(
    system: str, collective: str, size_B: float, ranks: int, *, per_domain: int = 0, algorithm: str = ""
) -> list[Candidate]:
    """Candidates of one collective on a system, the likeliest first; the prediction itself is the last entry.

    system: name, alias or file    collective: "all_reduce", ...    size_B: S as nccl-tests prints it [B]
    ranks: p [1]    per_domain: ranks of the group in each domain; by default as many as fit [1]
    algorithm: only candidates of that name, ours or the library's ("tree", "RHD"); by default all

    InputError: an unknown system, collective or algorithm, a size or rank count that cannot be.
    """
    if collective.lower() not in COLLECTIVES:
        raise InputError(f"unknown collective '{collective}'. {did_you_mean(collective, COLLECTIVES)}")
    name = COLLECTIVES[collective.lower()]
    if not (np.isfinite(size_B) and size_B > 0):
        raise InputError(f"size_B: must be above 0, got {size_B}")
    if ranks < 1 or ranks != int(ranks):
        raise InputError(f"ranks: must be a whole number above 0, got {ranks}")
    at = place(system)
    if per_domain:
        if not 1 <= per_domain <= min(at.domain_ranks, ranks) or ranks % per_domain:
            allowed = f"a divisor of {ranks}, at most {at.domain_ranks}"
            raise InputError(f"per_domain: got {per_domain}. Allowed: {allowed}.")
        at = replace(at, domain_ranks=per_domain)
    p, size, none = np.array([float(ranks)]), np.array([float(size_B)]), np.zeros(1)
    found = _candidates(at, name, p, size)
    if algorithm:
        found = _named(at, found, algorithm)
    total = time_us(at, collective=name, ranks=p, size_B=size, narrow=none)
    return [*found, Candidate("predicted", float(total[0]), 1.0, "the candidates joined by their weights")]


def _candidates(at: Place, name: str, p: Floats, size: Floats) -> list[Candidate]:
    if p[0] > at.domain_ranks:
        return _between(at, name, p, size)
    if at.mesh:
        return _mesh(at, name, p, size)
    if name not in ("all_reduce", "all_gather", "reduce_scatter"):
        times = {"direct": time_us(at, collective=name, ranks=p, size_B=size, narrow=np.zeros(1))}
        return _ranked(times, "the only one")
    found = library.protocols_us(at.constants, at.domain, collective=name, ranks=p, size_B=size, narrow=np.zeros(1))
    why = "the tuner's choice decides, not the time"
    made = [
        Candidate(key, float(time[0]), float(np.broadcast_to(share, (1,))[0]), why)
        for key, (time, share) in found.items()
    ]
    return [*sorted(made, key=lambda one: -one.weight), *_tuner(at, name, p, size)]


def _between(at: Place, name: str, p: Floats, size: Floats) -> list[Candidate]:
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
    if "tree" in times and at.domain.nvls and p[0] / domains[0] >= NVLS_RANKS:
        # the same tree between domains, inside them the switches add
        times = {"nvls_tree" if key == "tree" else key: time for key, time in times.items()}
    why = "the smooth minimum of the candidates between domains"
    if at.mesh:
        return _ranked(times, f"{why}; no measured rows of this library there, a library of rings and trees instead")
    return [*_ranked(times, why), *_tuner(at, name, p, size)]


def _mesh(at: Place, name: str, p: Floats, size: Floats) -> list[Candidate]:
    """The mesh by its protocol for small messages and by copy engines, and the pages."""
    port_Bps = at.domain.port_Bps
    times = library.hccl_candidates_us(
        at.constants, collective=name, ranks=p, size_B=size, port_Bps=port_Bps, alpha_us=at.alpha_us
    )
    made = _ranked(times, "the cheapest of the algorithms that apply")
    share, fast, slow = mesh_protocols_us(at.constants, collective=name, ranks=p, size_B=size, port_Bps=port_Bps)
    out = []
    for one in made:
        called = _called(at, one.name)
        if one.name != "mesh":
            out.append(replace(one, why=one.why + called))
            continue
        parts = (
            ("mesh AIV", fast, 1.0 - share, "vector cores, for blocks under the protocol switch"),
            ("mesh copy", slow, share, "copy engines, for larger ones"),
        )
        for key, time, part, how in parts:
            weight = one.weight * float(part[0])
            why = f"{one.why}; {how}" if weight >= 0.5 else how
            out.append(Candidate(key, float(time[0]), weight, why + called))
    return sorted(out, key=lambda one: (-one.weight, one.time_us))


def _called(at: Place, page: str) -> str:
    """What the library calls a page, and where it takes it: level 0 inside a server, 1 between servers, 2 between
    domains."""
    names = [f"{name} (level {', '.join(map(str, one.levels))})" for name, one in at.names.items() if page in one.pages]
    return f"; the library's {' or '.join(names)}" if names else ""


def _tuner(at: Place, name: str, p: Floats, size: Floats) -> list[Candidate]:
    """What the library's tuner says of everything it could take, the least first."""
    ranks = int(p[0])
    domains = -(-ranks // at.domain_ranks)
    found = tuner_candidates_us(
        at.tuner,
        at.generation,
        nvls=at.domain.nvls,
        collective=name,
        size_B=float(size[0]),
        ranks=ranks,
        nodes=domains,
        bus_Bps=at.domain.tuner_bus_Bps,
        network_Bps=at.nic_Bps * ranks / domains,
    )
    order = sorted(found, key=lambda key: float(found[key]))
    why = ["the tuner's least estimate, its choice", *["the tuner's estimate, no measured time"] * len(order)]
    return [Candidate(_TUNER + key, float(found[key]), 0.0, text) for key, text in zip(order, why, strict=False)]


def _ranked(times: dict[str, Floats], why: str) -> list[Candidate]:
    """The least has all the weight."""
    best = min(times, key=lambda key: float(times[key][0]))
    made = [
        Candidate(key, float(time[0]), float(key == best), why if key == best else "slower")
        for key, time in times.items()
        if np.isfinite(time[0])
    ]
    return sorted(made, key=lambda one: one.time_us)


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def _named(at: Place, found: list[Candidate], algorithm: str) -> list[Candidate]:
    """The candidates of an algorithm, by the page's name or the library's."""
    wanted = {_plain(algorithm)}
    for name, one in at.names.items():
        if _plain(algorithm) in {_plain(name), *map(_plain, one.also)}:
            wanted |= set(one.pages)
    out = [one for one in found if _plain(one.name.removeprefix(_TUNER).split()[0]) in wanted]
    if not out:
        names = {one.name.removeprefix(_TUNER).split()[0] for one in found} | set(at.names)
        raise InputError(f"algorithm: '{algorithm}' is no candidate here. {did_you_mean(algorithm, sorted(names))}")
    return out
