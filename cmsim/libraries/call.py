"""What one call of a library takes, and what it could have taken instead.

Three kinds of candidates. Those of the measured model make the prediction: their weights add up to 1. Among more ranks
than were measured it is held under the measured share of the cheapest (``share``). The library's own tuner has an
estimate for every algorithm and protocol it could take; those rank, and weigh nothing. Where a library sends directly,
its other algorithms are priced from their pages.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cmsim.arrays import Floats
from cmsim.libraries.between import between_us
from cmsim.libraries.between import candidates_us as between_candidates_us
from cmsim.libraries.hccl import (
    MEASURED_RANKS,
    hccl_candidates_us,
    hccl_us,
    mesh_protocols_us,
    page_share,
)
from cmsim.libraries.inside import NVLS_RANKS, choices_us, inside_us, protocols_us
from cmsim.libraries.place import Place
from cmsim.libraries.share import between_bound_us, inside_bound_us, measured_ranks
from cmsim.libraries.tuner import candidates_us as tuner_candidates_us

#: priced as another collective of the same ring: name, ranks (0: the call's), factor of S
_LIKE = {
    "broadcast": ("all_gather", 0, 1.0),
    "reduce": ("reduce_scatter", 0, 1.0),
    "send_recv": ("all_gather", 2, 2.0),
}
#: before the tuner's names
TUNER = "tuner: "


@dataclass(frozen=True)
class LibraryCandidate:
    """One way to run the call.

    time_us: if it ran alone [us]    weight: its share of the prediction, 1 the certain winner    why: in words
    """

    name: str
    time_us: float
    weight: float
    why: str


def time_us(at: Place, *, collective: str, ranks: Floats, size_B: Floats, narrow: Floats) -> Floats:
    """Time of one collective on rows of one place. [us]

    ranks: p [1]    size_B: S as nccl-tests prints it [B]    narrow: 1 where an element has one byte
    """
    if collective in _LIKE:
        collective, fixed, factor = _LIKE[collective]
        ranks = np.full_like(ranks, fixed) if fixed else ranks
        size_B = size_B * factor
    out = np.empty(np.shape(size_B))
    near = ranks <= at.domain_ranks
    if near.any():
        p, size, thin = ranks[near], size_B[near], narrow[near]
        if at.mesh:
            out[near] = hccl_us(
                at.constants,
                collective=collective,
                ranks=p,
                size_B=size,
                port_Bps=at.domain.port_Bps,
                alpha_us=at.alpha_us,
            )
        else:
            out[near] = _inside_us(at, collective, p, size, thin)
    if not near.all():
        far = ~near
        out[far] = _between_us(at, collective, ranks[far], size_B[far])
    return out


def _inside_us(at: Place, collective: str, ranks: Floats, size_B: Floats, narrow: Floats) -> Floats:
    """A library of rings inside a domain; among more ranks than were measured no more than its share. [us]"""
    out = inside_us(at.constants, at.domain, collective=collective, ranks=ranks, size_B=size_B, narrow=narrow)
    beyond = ranks > measured_ranks(at)
    if beyond.any():
        bound = inside_bound_us(
            at, collective=collective, ranks=ranks[beyond], size_B=size_B[beyond], narrow=narrow[beyond]
        )
        out[beyond] = np.minimum(out[beyond], bound)
    return out


def _between_us(at: Place, collective: str, ranks: Floats, size_B: Floats) -> Floats:
    """Between domains, of which the group fills as many as it needs, evenly; no more than its measured share. [us]"""
    per_domain = ranks / np.ceil(ranks / at.domain_ranks)
    nic_Bps = np.full(len(ranks), at.nic_Bps)
    bound = between_bound_us(
        at, collective=collective, ranks=ranks, per_domain=per_domain, size_B=size_B, nic_Bps=nic_Bps
    )
    time = between_us(
        at.transport,
        at.ring,
        at.domain,
        collective=collective,
        ranks=ranks,
        per_domain=per_domain,
        size_B=size_B,
        nic_Bps=nic_Bps,
    )
    return np.minimum(time, bound)


def candidates(at: Place, name: str, p: Floats, size: Floats) -> list[LibraryCandidate]:
    """Candidates of one call, the likeliest first.

    name: the collective    p: ranks, shape (1,) [1]    size: S as nccl-tests prints it, shape (1,) [B]
    """
    if p[0] > at.domain_ranks:
        return _between(at, name, p, size)
    if at.mesh:
        return _mesh(at, name, p, size)
    if name not in ("all_reduce", "all_gather", "reduce_scatter"):
        times = {"direct": time_us(at, collective=name, ranks=p, size_B=size, narrow=np.zeros(1))}
        return _ranked(times, "the only one")
    return [*_rings(at, name, p, size), *_tuner(at, name, p, size)]


def _rings(at: Place, name: str, p: Floats, size: Floats) -> list[LibraryCandidate]:
    """Rings by protocol, which the tuner's choice weighs, and the switches where they are faster than those."""
    none = np.zeros(1)
    found = protocols_us(at.constants, at.domain, collective=name, ranks=p, size_B=size, narrow=none)
    choices = choices_us(at.constants, at.domain, collective=name, ranks=p, size_B=size, narrow=none)
    rings = float(np.exp(sum(weight * np.log(time) for time, weight in found.values()))[0])
    switches = float(choices.get("nvls Simple", np.array([np.inf]))[0])
    adds = switches < rings
    why = "slower: the switches add" if adds else "the tuner's choice decides, not the time"
    made = [
        LibraryCandidate(key, float(time[0]), 0.0 if adds else float(np.broadcast_to(share, (1,))[0]), why)
        for key, (time, share) in found.items()
    ]
    if np.isfinite(switches):
        why = "faster than the rings that the tuner chooses" if adds else "slower than the rings that the tuner chooses"
        made.append(LibraryCandidate("nvls Simple", switches, float(adds), why))
    return sorted(made, key=lambda one: -one.weight)


def _between(at: Place, name: str, p: Floats, size: Floats) -> list[LibraryCandidate]:
    domains = np.ceil(p / at.domain_ranks)
    times = between_candidates_us(
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


def _mesh(at: Place, name: str, p: Floats, size: Floats) -> list[LibraryCandidate]:
    """The mesh by its protocol for small messages and by copy engines, and the pages."""
    port_Bps = at.domain.port_Bps
    times = hccl_candidates_us(
        at.constants, collective=name, ranks=p, size_B=size, port_Bps=port_Bps, alpha_us=at.alpha_us
    )
    mesh_us = float(times.pop("mesh")[0])
    pages = sorted(
        (LibraryCandidate(key, float(time[0]), 0.0, "") for key, time in times.items() if np.isfinite(time[0])),
        key=lambda page: page.time_us,
    )
    share = page_share(at.constants, name, port_Bps, at.alpha_us)
    few = p[0] <= MEASURED_RANKS
    won = bool(not few and pages and share * pages[0].time_us < mesh_us)
    out = []
    for number, page in enumerate(pages):
        why = "no page was seen among so few ranks" if few else "slower"
        if not few and number == 0:
            times_share = f", taken {share:.2f} times as the mesh was above it where measured" if won else ""
            why = f"the cheapest page{times_share}"
        out.append(replace(page, weight=float(won and number == 0), why=why + _called(at, page.name)))
    part, fast, slow = mesh_protocols_us(at.constants, collective=name, ranks=p, size_B=size, port_Bps=port_Bps)
    for key, time, weight, how in (
        ("mesh AIV", fast, 1.0 - part, "vector cores, for blocks under the protocol switch"),
        ("mesh copy", slow, part, "copy engines, for larger ones"),
    ):
        own = 0.0 if won else float(weight[0])
        out.append(LibraryCandidate(key, float(time[0]), own, how + _called(at, "mesh")))
    return sorted(out, key=lambda one: (-one.weight, one.time_us))


def _called(at: Place, page: str) -> str:
    """What the library calls a page, and where it takes it: level 0 inside a server, 1 between servers, 2 between
    domains."""
    names = [f"{name} (level {', '.join(map(str, one.levels))})" for name, one in at.names.items() if page in one.pages]
    return f"; the library's {' or '.join(names)}" if names else ""


def _tuner(at: Place, name: str, p: Floats, size: Floats) -> list[LibraryCandidate]:
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
    why = ["the tuner's least estimate, no measured time", *["the tuner's estimate, no measured time"] * len(order)]
    return [LibraryCandidate(TUNER + key, float(found[key]), 0.0, text) for key, text in zip(order, why, strict=False)]


def _ranked(times: dict[str, Floats], why: str) -> list[LibraryCandidate]:
    """The least has all the weight."""
    best = min(times, key=lambda key: float(times[key][0]))
    made = [
        LibraryCandidate(key, float(time[0]), float(key == best), why if key == best else "slower")
        for key, time in times.items()
        if np.isfinite(time[0])
    ]
    return sorted(made, key=lambda one: one.time_us)
