"""Why a library takes so long: the candidates for one call, their times, and which one wins.

Three kinds stand in the list. Candidates of the measured model make the prediction: their weights add up to 1. The
library's own tuner has an estimate for every algorithm and protocol it could take; those rank, and weigh nothing.
Where a library sends directly, its other algorithms are priced from their pages.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from cmsim import libraries
from cmsim.calibration.places import place, unmeasured
from cmsim.calibration.tables import COLLECTIVES
from cmsim.errors import InputError, did_you_mean, tell
from cmsim.libraries import TUNER, LibraryCandidate, Place, candidates, reach, time_us


def explain(
    system: str, collective: str, size_B: float, ranks: int, *, per_domain: int = 0, algorithm: str = ""
) -> list[LibraryCandidate]:
    """Candidates of one collective on a system, the likeliest first; the prediction itself is the last entry.

    Parameters
    ----------
    system
        Name, alias or file.
    collective
        ``all_reduce``, ...
    size_B
        S as nccl-tests prints it. [B]
    ranks
        p. [1]
    per_domain
        Ranks of the group in each domain; by default as many as fit. [1]
    algorithm
        Only candidates of that name, ours or the library's (``tree``, ``RHD``); by default all.

    Returns
    -------
    list of LibraryCandidate
        Each with its parts. [us]

    Raises
    ------
    InputError
        An unknown system, collective or algorithm, a size or rank count that cannot be.
    """
    if collective.lower() not in COLLECTIVES:
        raise InputError(f"unknown collective '{collective}'. {did_you_mean(collective, COLLECTIVES)}")
    name = COLLECTIVES[collective.lower()]
    if not (np.isfinite(size_B) and size_B > 0):
        raise InputError(f"size_B: must be above 0, got {size_B}")
    if ranks < 1 or ranks != int(ranks):
        raise InputError(f"ranks: must be a whole number above 0, got {ranks}")
    at = place(system)
    tell(unmeasured([at]))
    if per_domain:
        if not 1 <= per_domain <= min(at.domain_ranks, ranks) or ranks % per_domain:
            allowed = f"a divisor of {ranks}, at most {at.domain_ranks}"
            raise InputError(f"per_domain: got {per_domain}. Allowed: {allowed}.")
        at = replace(at, domain_ranks=per_domain)
    p, size, none = np.array([float(ranks)]), np.array([float(size_B)]), np.zeros(1)
    every = candidates(at, name, p, size)
    found = _named(at, every, algorithm) if algorithm else every
    total = float(time_us(at, collective=name, ranks=p, size_B=size, narrow=none)[0])
    weighed = math.exp(sum(one.weight * math.log(one.time_us) for one in every if one.weight))
    why = "the candidates joined by their weights"
    if total < 0.999 * weighed:
        why += ", held at the library's measured share of the cheapest it could take"
    if not at.measured:
        why += f"; no measured rows of these links: constants common to all of {at.library} stand in"
    elif said := libraries.note(at, name, int(reach(at, name, ranks=p, size_B=size)[0]), far=ranks > at.domain_ranks):
        why += f"; {said}"
    return [*found, LibraryCandidate("predicted", total, 1.0, why)]


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def _named(at: Place, found: list[LibraryCandidate], algorithm: str) -> list[LibraryCandidate]:
    """The candidates of an algorithm, by the page's name or the library's."""
    wanted = {_plain(algorithm)}
    for name, one in at.names.items():
        if _plain(algorithm) in {_plain(name), *map(_plain, one.also)}:
            wanted |= set(one.pages)
    out = [one for one in found if _plain(one.name.removeprefix(TUNER).split()[0]) in wanted]
    if not out:
        names = {one.name.removeprefix(TUNER).split()[0] for one in found}
        names |= {name for name, one in at.names.items() if names & set(one.pages)}
        raise InputError(f"algorithm: '{algorithm}' is no candidate here. {did_you_mean(algorithm, sorted(names))}")
    return out
