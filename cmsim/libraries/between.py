"""Measured-time model of a collective library across scale-up domains.

N domains of m ranks; every rank has a NIC share B, but a ring leaves a domain through at most ``channels`` NICs, so
that a domain sends at  E = min(m, channels) B. Ring neighbours thus share the NICs of a domain: a group with one rank
in each of many TP blocks sees all of them, not one.

    ring         L = L_inside(m) + hops (N - 1) alpha            W = f S (1 + crowd (p - m)) / (E eta)
    tree         L = base + alpha_t log2 N                       W = max(2 (N - 1)/N S / (E eta_t), inside)
    all-to-all   L = base + peer (p - m)                         W = (p - m)/p S / (B eta_a)
    T = L + W + 2 q sqrt(L W / (1 + W / (cap L)))                f, hops: 2(p-1)/p, 2 all-reduce; (p-1)/p, 1 others

The square root is the filling of a pipeline of chunks, (sqrt(L) + sqrt(W))^2 with the best chunk (q = 1), bounded as
the chunk is. ``crowd``: every step of a longer ring adds work per byte. All-reduce takes the smooth minimum.

Leaves out: routing, oversubscription, other jobs, stragglers.
Source: derived, ``cmsim.collectives`` pages ring, hierarchical, pipeline; constants fitted (``topologies/libraries``).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cmsim.arrays import Floats
from cmsim.libraries.inside import NVLS_RANKS, Domain, nvls_latency_us, nvls_rate

#: constants of the model by transport, with unit and starting value
BETWEEN_DEFAULTS: dict[str, float] = {
    "ring_hop_us": 85.0,
    "ring_rate": 0.95,
    "ring_fill": 0.1,  # q of a ring
    "crowd": 0.0004,  # per rank outside
    "tree_base_us": 20.0,
    "tree_hop_us": 40.0,  # per doubling of the domains, up and down
    "tree_rate": 0.85,
    "tree_inside_rate": 0.37,  # of the port, where switches do not add
    "fill": 0.6,  # q
    "fill_cap": 15.0,
    "a2a_base_us": 200.0,
    "a2a_peer_us": 2.5,
    "a2a_rate": 0.86,
}
#: rings that leave a domain at once, and so NICs that one domain uses
CHANNELS = 18.0
#: domains above this showed rings between them, no trees
TREE_RANKS = 32
_SHARP = 6.0


def _filled(c: Mapping[str, float], latency: Floats, wire: Floats, q: float) -> Floats:
    fill: Floats = 2.0 * q * np.sqrt(latency * wire / (1.0 + wire / (c["fill_cap"] * latency)))
    return latency + wire + fill


def candidates_us(
    c: Mapping[str, float],
    own: Mapping[str, float],
    at: Domain,
    *,
    collective: str,
    ranks: Floats,
    per_domain: Floats,
    size_B: Floats,
    nic_Bps: Floats,
) -> dict[str, Floats]:
    """Every candidate between domains and its time. [us]

    c: constants of the transport    own: constants inside a domain (``inside.DEFAULTS``)    at: the domain
    ranks, per_domain: p, m [1]    size_B: S [B]    nic_Bps: B, one rank's share, one direction [B/s]
    """
    domains = ranks / per_domain
    nic = nic_Bps * 1e-6
    port = at.port_Bps * 1e-6
    if collective == "all_to_all":
        latency = c["a2a_base_us"] + c["a2a_peer_us"] * (ranks - per_domain)
        wire = (ranks - per_domain) / ranks * size_B / (nic * c["a2a_rate"])
        near = per_domain / ranks * size_B / (port * own["a2a_rate"])
        return {"direct": _filled(c, latency, np.maximum(wire, near), c["ring_fill"])}
    exit_rate = np.minimum(per_domain, CHANNELS) * nic
    hops = 2.0 if collective == "all_reduce" else 1.0
    share = hops * (ranks - 1.0) / ranks
    steps = hops * (per_domain - 1.0)
    around = own["simple_base_us"] + own["simple_step_us"] * steps ** own["step_power"]
    adds = at.nvls & (per_domain >= NVLS_RANKS) & (collective == "all_reduce")
    nvls = nvls_rate(own, at, ranks=per_domain) / (1.0 + 1.0 / per_domain)
    inner = np.where(adds, nvls_latency_us(own, ranks=per_domain, size_B=size_B), around)
    rate = np.where(adds, 2.0 * nvls, port * own["simple_rate"])
    crowd = 1.0 + c["crowd"] * (ranks - per_domain)
    wire = share * size_B * crowd / np.minimum(exit_rate * c["ring_rate"], rate)
    latency = inner + c["ring_hop_us"] * hops * (domains - 1.0)
    out = {"ring": _filled(c, latency, wire, c["ring_fill"])}
    if collective != "all_reduce":
        return out
    up_and_down = c["tree_base_us"] + c["tree_hop_us"] * np.log2(domains)
    far = 2.0 * (domains - 1.0) / domains * size_B / (exit_rate * c["tree_rate"])
    near = size_B / np.where(adds, nvls, c["tree_inside_rate"] * port)
    tree = _filled(c, up_and_down, np.maximum(far, near), c["fill"])
    out["tree"] = np.where(per_domain <= TREE_RANKS, tree, np.inf)
    return out


def between_us(
    c: Mapping[str, float],
    own: Mapping[str, float],
    at: Domain,
    *,
    collective: str,
    ranks: Floats,
    per_domain: Floats,
    size_B: Floats,
    nic_Bps: Floats,
) -> Floats:
    """Time of a collective that spans several domains, never below that of its part inside one. [us]

    Arguments as ``candidates_us``.
    """
    found = candidates_us(
        c, own, at, collective=collective, ranks=ranks, per_domain=per_domain, size_B=size_B, nic_Bps=nic_Bps
    )
    if len(found) == 1:
        (only,) = found.values()
        return only
    least = np.minimum.reduce(list(found.values()))
    total = np.add.reduce([(least / time) ** _SHARP for time in found.values()])
    out: Floats = least * total ** (-1.0 / _SHARP)
    return out


__all__ = ["BETWEEN_DEFAULTS", "between_us", "candidates_us"]
