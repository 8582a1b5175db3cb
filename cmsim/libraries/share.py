"""How far a library is above the cheapest of its own algorithms where it was measured, and the bound that follows.

A library does not always take what is fastest: its tuner decides, and it decides badly by a share that the measured
range shows. Where nothing was measured the same model goes on, but never above

    T <= q min over the library's algorithms,    q = max over the measured range of T / min

so that a formula fitted to a few ranks cannot make a long ring where the library has something better. At the edge of
the measured range the bound holds by itself, so that it starts without a jump. The algorithms are those with measured
constants inside a domain; between domains also what the library's tuner estimates of trees, rings and switches.

Leaves out: that a tuner may be worse on machines where nobody looked.
Source: derived.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

from cmsim.arrays import Floats
from cmsim.libraries.between import between_us
from cmsim.libraries.inside import Domain, choices_us, inside_us
from cmsim.libraries.place import Place
from cmsim.libraries.tuner import least_us

Constants = tuple[tuple[str, float], ...]
#: sizes over which the share is taken, inside a domain [B]
_SIZES = np.geomspace(512.0, 2.0**30, 120)
#: domains of so many ranks, so many of them, and sizes that rows cover between domains, whatever the transport
_MEMBERS, _DOMAINS = 8.0, (2.0, 4.0, 8.0, 32.0)
_FAR_SIZES = {"all_reduce": np.geomspace(2.0**20, 2.0**34, 60)}
_FAR_SIZES_OTHERS = np.geomspace(2.0**25, 2.0**31, 30)


def measured_ranks(at: Place) -> int:
    """Ranks of a domain up to which all of a library's protocols were measured; 8 where there are no rows. [1]"""
    return int(max((one.ranks[1] for one in at.rows if not one.collectives), default=8))


def inside_bound_us(at: Place, *, collective: str, ranks: Floats, size_B: Floats, narrow: Floats) -> Floats:
    """What a library of rings takes at most inside a domain, where its rank counts were not measured. [us]"""
    c = at.constants
    choices = choices_us(c, at.domain, collective=collective, ranks=ranks, size_B=size_B, narrow=narrow)
    out: Floats = np.minimum.reduce(list(choices.values()))
    return out * inside_share(frozen(c), at.domain, collective, measured_ranks(at))


def between_bound_us(
    at: Place, *, collective: str, ranks: Floats, per_domain: Floats, size_B: Floats, nic_Bps: Floats
) -> Floats:
    """What a library of rings and trees takes at most between domains; infinite where its tuner has no say. [us]"""
    least = _far_least_us(at, collective, ranks, per_domain, size_B, nic_Bps)
    if not np.isfinite(least).any():
        return least
    return least * _between_share(_Key(at), collective)


def _far_least_us(
    at: Place, collective: str, ranks: Floats, per_domain: Floats, size_B: Floats, nic_Bps: Floats
) -> Floats:
    out: Floats = least_us(
        at.tuner,
        at.generation,
        nvls=at.domain.nvls,
        collective=collective,
        size_B=size_B,
        ranks=ranks,
        nodes=ranks / per_domain,
        bus_Bps=at.domain.tuner_bus_Bps,
        network_Bps=nic_Bps * per_domain,
    )
    return out


class _Key:
    """A place as a key: equal where the model between domains is."""

    def __init__(self, at: Place):
        self.at = at
        tuner = at.tuner.model_dump_json()
        self.of = (frozen(at.transport), frozen(at.ring), at.domain, tuner, at.generation, at.nic_Bps)

    def __hash__(self) -> int:
        return hash(self.of)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.of == other.of


@functools.lru_cache(maxsize=256)
def _between_share(key: _Key, collective: str) -> float:
    """q between domains. [1]"""
    at = key.at
    found = 1.0
    sizes = _FAR_SIZES.get(collective, _FAR_SIZES_OTHERS)
    members, nic = np.full(len(sizes), _MEMBERS), np.full(len(sizes), at.nic_Bps)
    for domains in _DOMAINS:
        p = members * domains
        took = between_us(
            at.transport,
            at.ring,
            at.domain,
            collective=collective,
            ranks=p,
            per_domain=members,
            size_B=sizes,
            nic_Bps=nic,
        )
        found = max(found, float(np.max(took / _far_least_us(at, collective, p, members, sizes, nic))))
    return found


def frozen(constants: Mapping[str, float]) -> Constants:
    """Constants as a key."""
    return tuple(constants.items())


@functools.lru_cache(maxsize=256)
def inside_share(constants: Constants, at: Domain, collective: str, most: int) -> float:
    """q inside a domain, from 2 to ``most`` measured ranks. [1]"""
    c = dict(constants)
    found = 1.0
    for ranks in range(2, most + 1):
        p, narrow = np.full(len(_SIZES), float(ranks)), np.zeros(len(_SIZES))
        took = inside_us(c, at, collective=collective, ranks=p, size_B=_SIZES, narrow=narrow)
        least = np.minimum.reduce(
            list(choices_us(c, at, collective=collective, ranks=p, size_B=_SIZES, narrow=narrow).values())
        )
        found = max(found, float(np.max(took / least)))
    return found
