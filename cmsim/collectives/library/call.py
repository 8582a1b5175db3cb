"""What one call of a library takes, and what it could have taken instead.

Three kinds of candidates. Those of the measured model make the prediction: their weights add up to 1. The library's own
tuner has an estimate for every algorithm and protocol it could take; those rank, and weigh nothing. Where a library
sends directly, its other algorithms are priced from their pages.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cmsim.collectives.library.between import between_us
from cmsim.collectives.library.between import candidates_us as between_candidates_us
from cmsim.collectives.library.hccl import hccl_candidates_us, hccl_us, mesh_protocols_us
from cmsim.collectives.library.inside import NVLS_RANKS, Floats, inside_us, protocols_us
from cmsim.collectives.library.place import Place
from cmsim.collectives.library.tuner import candidates_us as tuner_candidates_us

#: priced as another collective of the same ring: name, ranks (0: the call's), factor of S
_LIKE = {
    "broadcast": ("all_gather", 0, 1.0),
    "reduce": ("reduce_scatter", 0, 1.0),
    "send_recv": ("all_gather", 2, 2.0),
}
#: before the tuner's names
TUNER = "tuner: "


@dataclass(frozen=True)
class Candidate:
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
            out[near] = inside_us(at.constants, at.domain, collective=collective, ranks=p, size_B=size, narrow=thin)
    if not near.all():
        far = ~near
        p = ranks[far]
        # groups fill whole domains evenly
        domains = np.ceil(p / at.domain_ranks)
        out[far] = between_us(
            at.transport,
            at.ring,
            at.domain,
            collective=collective,
            ranks=p,
            per_domain=p / domains,
            size_B=size_B[far],
            nic_Bps=np.full(len(p), at.nic_Bps),
        )
    return out


def candidates(at: Place, name: str, p: Floats, size: Floats) -> list[Candidate]:
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
    found = protocols_us(at.constants, at.domain, collective=name, ranks=p, size_B=size, narrow=np.zeros(1))
    why = "the tuner's choice decides, not the time"
    made = [
        Candidate(key, float(time[0]), float(np.broadcast_to(share, (1,))[0]), why)
        for key, (time, share) in found.items()
    ]
    return [*sorted(made, key=lambda one: -one.weight), *_tuner(at, name, p, size)]


def _between(at: Place, name: str, p: Floats, size: Floats) -> list[Candidate]:
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


def _mesh(at: Place, name: str, p: Floats, size: Floats) -> list[Candidate]:
    """The mesh by its protocol for small messages and by copy engines, and the pages."""
    port_Bps = at.domain.port_Bps
    times = hccl_candidates_us(
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
    return [Candidate(TUNER + key, float(found[key]), 0.0, text) for key, text in zip(order, why, strict=False)]


def _ranked(times: dict[str, Floats], why: str) -> list[Candidate]:
    """The least has all the weight."""
    best = min(times, key=lambda key: float(times[key][0]))
    made = [
        Candidate(key, float(time[0]), float(key == best), why if key == best else "slower")
        for key, time in times.items()
        if np.isfinite(time[0])
    ]
    return sorted(made, key=lambda one: one.time_us)
