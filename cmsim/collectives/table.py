"""The table of flat algorithms: one line a page. Where two cost the same, the earlier one is chosen.

To add an algorithm: write its page, add its tuple here; tests and chooser pick it up.
"""

from __future__ import annotations

from cmsim.collectives.ahc import AHC
from cmsim.collectives.barrier import BARRIER
from cmsim.collectives.binomial import BINOMIAL
from cmsim.collectives.bruck import BRUCK
from cmsim.collectives.dimensional import DIMENSIONAL
from cmsim.collectives.direct import DIRECT
from cmsim.collectives.double_tree import DOUBLE_TREE
from cmsim.collectives.expert import EXPERT
from cmsim.collectives.halving_doubling import HALVING_DOUBLING
from cmsim.collectives.in_network import IN_NETWORK
from cmsim.collectives.nhr import NHR
from cmsim.collectives.pairwise import PAIRWISE
from cmsim.collectives.pipeline import PIPELINE
from cmsim.collectives.ring import RING
from cmsim.collectives.send_recv import SEND_RECV
from cmsim.collectives.star import STAR
from cmsim.collectives.terms import COLLECTIVES, Algorithm
from cmsim.errors import InputError, did_you_mean

#: every flat algorithm of every collective
ALGORITHMS: tuple[Algorithm, ...] = (
    *RING,
    *HALVING_DOUBLING,
    *NHR,
    *DIRECT,
    *PAIRWISE,
    *BRUCK,
    *BINOMIAL,
    *IN_NETWORK,
    *BARRIER,
    *SEND_RECV,
    *EXPERT,
    *STAR,
    *AHC,
    *PIPELINE,
    *DOUBLE_TREE,
)


#: those whose form follows from the grid that a group lies on (``Algorithm.on_grid``)
ON_GRID: tuple[Algorithm, ...] = DIMENSIONAL


def candidates(collective: str) -> tuple[Algorithm, ...]:
    """The flat algorithms of a collective, in table order.

    >>> [algorithm.name for algorithm in candidates("all_to_all")]
    ['direct', 'pairwise', 'bruck']
    """
    if collective not in COLLECTIVES:
        raise InputError(f"unknown collective {collective!r}. {did_you_mean(collective, COLLECTIVES)}")
    return tuple(algorithm for algorithm in ALGORITHMS if algorithm.collective == collective)
