"""Dispatch and combine of a mixture of experts: what one call moves, as columns that every kernel's page takes.

A token goes to the ranks of its k experts. Kernels differ in how often they send it:

    every   once for each expert: k messages
    rank    once to each distinct rank, D = R (1 - C(E - E/R, k)/C(E, k)) on average where routing is uniform
    even    as rank, where a benchmark deals tokens out in turn: D = min(k, R)

With domains between which NICs carry (N = p/m), ``rank`` kernels send a token once to each other domain and fan it out
there; routing that is limited to some groups of experts makes both numbers smaller.

Leaves out: the exchange of counts before the call, unless the page of the kernel has it.
Source: expected distinct ranks by inclusion of the hypergeometric distribution; DeepEP README (what is sent how often).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from cmsim.arrays import Floats

Routing = Literal["every", "rank", "even"]


@dataclass(frozen=True)
class Exchange:
    """Calls, one a row.

    ranks, domains: p, N; a domain is what ports reach, other domains are reached by NICs [1]
    tokens, hidden, top_k, experts: T of one rank, H, k, E (redundant ones included) [1]
    message_B: a token to one destination, scales included [B]
    copies: destinations of a token, its own rank's included [1]    far_copies: other domains that get it [1]
    blocks, sms: cores of one rank, and how many the kernel was given [1]
    busy: load of the busiest rank over the mean, which sets the pace [1]
    port_Bps, nic_Bps, memory_Bps: of one rank, one direction [B/s]
    """

    ranks: Floats
    domains: Floats
    tokens: Floats
    hidden: Floats
    top_k: Floats
    experts: Floats
    message_B: Floats
    copies: Floats
    far_copies: Floats
    blocks: Floats
    sms: Floats
    busy: Floats
    port_Bps: Floats
    nic_Bps: Floats
    memory_Bps: Floats

    def take(self, rows: Any) -> Exchange:
        """Some of the rows."""
        return Exchange(**{one.name: getattr(self, one.name)[rows] for one in fields(self)})


def distinct(experts: Floats, top_k: Floats, places: Floats) -> Floats:
    """Expected places (ranks or domains) that one token's experts lie on, uniform routing. [1]

    R (1 - C(E - E/R, k) / C(E, k)), R = ``places`` with E/R experts each.

    >>> float(distinct(np.array([256.0]), np.array([8.0]), np.array([8.0]))[0].round(4))
    5.2947
    """
    miss = np.ones(np.broadcast_shapes(np.shape(experts), np.shape(top_k), np.shape(places)))
    for i in range(int(np.max(top_k, initial=0))):
        left = np.maximum(experts - experts / places - i, 0.0) / np.maximum(experts - i, 1.0)
        miss = np.where(i < top_k, miss * left, miss)
    out: Floats = places * (1.0 - miss)
    return out


def copies(
    routing: Routing, *, experts: Floats, top_k: Floats, ranks: Floats, domains: Floats, limit: float = np.inf
) -> tuple[Floats, Floats]:
    """Destinations of a token, its own rank included, and how many other domains it goes to. [1]

    routing: as the page    ranks, domains: p, N    limit: domains that routing may choose for a token
    """
    if routing == "every":
        return top_k * np.ones_like(ranks), top_k * (1.0 - 1.0 / domains)
    if routing == "even":
        return np.minimum(top_k, ranks), np.minimum(top_k, domains) * (1.0 - 1.0 / domains)
    chosen = np.minimum(domains, limit)
    theirs = experts * chosen / domains
    ranks_there = ranks * chosen / domains
    return distinct(theirs, top_k, ranks_there), distinct(theirs, top_k, chosen) * (1.0 - 1.0 / domains)


def join(a: Floats, b: Floats, power: float) -> Floats:
    """(a^k + b^k)^(1/k), the smooth larger of two; safe where both are 0."""
    high, low = np.maximum(a, b), np.minimum(a, b)
    out: Floats = high * (1.0 + (low / np.maximum(high, 1e-30)) ** power) ** (1.0 / power)
    return out


__all__ = ["Exchange", "Routing", "copies", "distinct", "join"]
