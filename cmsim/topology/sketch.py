"""What a drawing of a system shows: one domain, link by link, and the network between domains, with what is broken.

Everything is counted in accelerators (packages): what the ranks of one have is added up. What is left of a link is a
share of its rate, 0 for down; both directions are alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cmsim.arrays import Floats, Ints
from cmsim.hardware import System
from cmsim.topology.edges import Edges
from cmsim.topology.faults import Faults, factors
from cmsim.topology.linked import Linked
from cmsim.topology.paths import paths
from cmsim.topology.places import places
from cmsim.topology.routes import Routes
from cmsim.topology.wirings import wiring
from cmsim.units import GIGA


@dataclass(frozen=True)
class Planes:
    """A domain whose accelerators hang on switch chips of one tier or two.

    node     of each accelerator, from 0, shape (accelerators,)
    port     what is left of its links into each plane (to each chip of a single tier), shape (accelerators, planes) [1]
    uplink   of the lanes of a node's chip in a plane to each second-tier chip, shape (nodes, planes, chips); chips may
             be 0 [1]
    port_GBps, uplink_GBps   one direction of one of them, whole
    """

    node: Ints
    port: Floats
    uplink: Floats
    port_GBps: float
    uplink_GBps: float


@dataclass(frozen=True)
class Along:
    """A dimension of a grid: its name, kind (ring, line, mesh, switch), size, and one direction of one link."""

    name: str
    kind: str
    size: int
    link_GBps: float


@dataclass(frozen=True)
class Neighbours:
    """A domain whose accelerators are joined link by link. Nodes are the accelerators, then the switches.

    along       dimensions, innermost first; empty where there is no grid
    coord       place of each accelerator along them, shape (accelerators, dimensions)
    switches    names
    start, end  of each link, once for both directions, shape (links,)
    of          dimension of each link, -1 where there is no grid    left   of each [1]
    """

    along: tuple[Along, ...]
    coord: Ints
    switches: tuple[str, ...]
    start: Ints
    end: Ints
    of: Ints
    left: Floats


@dataclass(frozen=True)
class Outside:
    """The network that joins domains: NICs of accelerators, leaves, spines.

    domain, leaf   of each accelerator of the system, shape (accelerators,)
    nic            what is left of its way to the leaf, shape (accelerators,) [1]
    spine          of each leaf's way to each spine, shape (leaves, spines); spines may be 0 [1]
    nic_GBps, spine_GBps   one direction of one of them, whole
    """

    domain: Ints
    leaf: Ints
    nic: Floats
    spine: Floats
    nic_GBps: float
    spine_GBps: float


@dataclass(frozen=True)
class Sketch:
    """A system as it is drawn.

    accelerators, domains   of the whole    domain   number of the one drawn: the most broken, else the first
    broken   names of parts that are down or slow, and what is left of them
    """

    name: str
    accelerator: str
    accelerators: int
    domains: int
    domain: int
    inside: Planes | Neighbours
    outside: Outside
    broken: Mapping[str, float]


def sketch(system: System, faults: Faults = (), *, name: str = "") -> Sketch:
    """A system under faults (`cmsim.topology.faults`), called ``name`` (default: its own).

    Raises InputError for parts that it has not.
    """
    whole, left = paths(system), paths(system, faults=faults)
    assert isinstance(whole, Routes | Linked) and isinstance(left, Routes | Linked), "a fabric of another class"
    domain = _most_broken(whole, left)
    inside: Planes | Neighbours
    if isinstance(left, Linked):
        assert isinstance(whole, Linked)
        inside = _linked(system, left, domain)
    elif left.edges.mesh.shape[1]:
        inside = _meshed(system, whole.edges, left.edges, domain)
    else:
        inside = _planes(system, whole.edges, left.edges, domain)
    return Sketch(
        name=name or system.name,
        accelerator=system.accelerator.name,
        accelerators=system.packages,
        domains=system.domains,
        domain=domain,
        inside=inside,
        outside=_outside(system, whole.edges, left.edges),
        broken={_said(part): factor for part, factor in factors(faults).items()},
    )


def _said(part: str) -> str:
    """A name of parts as people say it (`cmsim.topology.faults.drawn`).

    >>> _said("module/*/*/* 0.1 7"), _said("l1/0/3")
    ('10 % of module/*/*/*', 'l1/0/3')
    """
    words, *some = part.split(" ")
    return f"{100 * float(some[0]):.3g} % of {words}" if some else words


def _share(left: Floats, whole: Floats) -> Floats:
    out: Floats = np.divide(left, whole, out=np.ones(whole.shape), where=whole > 0)
    return out


def _most_broken(whole: Routes | Linked, left: Routes | Linked) -> int:
    """The domain whose ranks have lost most, the first of equals."""
    where = whole.where
    lost = np.zeros(where.domains)
    if isinstance(whole, Linked) and isinstance(left, Linked):
        ranks = whole.links.ranks
        of = np.array([int(one[1]) for one in whole.links.switches], np.int64)
        home = np.concatenate([where.domain, of])[
            np.where(whole.links.start < ranks, whole.links.start, whole.links.end)
        ]
        np.add.at(lost, home, 1 - _share(left.left_Bps, whole.left_Bps))
    else:
        node_domain = np.zeros(where.nodes, np.int64)
        node_domain[where.node] = where.domain
        for home, name in ((where.domain, "port"), (where.domain, "mesh"), (node_domain, "uplink")):
            before, after = (getattr(one.edges, name).reshape(len(home), -1) for one in (whole, left))
            np.add.at(lost, home, (1 - _share(after, before)).sum(axis=1))
    return int(np.argmax(lost))


def _planes(system: System, whole: Edges, left: Edges, domain: int) -> Planes:
    where, per = places(system), system.ranks_per_package
    ranks = np.flatnonzero(where.domain == domain)
    share = _share(left.port[ranks], whole.port[ranks])
    nodes = np.unique(where.node[ranks])
    # of a single tier the table of uplinks has a row a domain, and no column
    two_tiers = whole.uplink.shape[2] > 0
    up, up_left = (one.uplink[nodes] if two_tiers else np.zeros((len(nodes), 0, 0)) for one in (whole, left))
    return Planes(
        node=where.node[ranks][::per] - nodes[0],
        port=share.reshape(-1, per, share.shape[1]).mean(axis=1),
        uplink=_share(up_left, up),
        port_GBps=float(whole.port[ranks[0], 0]) * per / GIGA,
        uplink_GBps=float(up.max(initial=0.0)) / GIGA,
    )


def _meshed(system: System, whole: Edges, left: Edges, domain: int) -> Neighbours:
    ranks = np.flatnonzero(places(system).domain == domain)
    before, after = (one.mesh[ranks][:, : len(ranks)] for one in (whole, left))
    start, end = np.nonzero(np.triu(before))
    (along,) = _along(system) or (Along("mesh", "mesh", len(ranks), 0.0),)
    return Neighbours(
        along=(along,),
        coord=np.arange(len(ranks))[:, None],
        switches=(),
        start=start,
        end=end,
        of=np.zeros(len(start), np.int64),
        left=_share(after, before)[start, end],
    )


def _along(system: System) -> tuple[Along, ...]:
    grid = wiring(system).levels(system, system.spec.scale_up).grid
    dims = () if grid is None else grid.dims
    return tuple(Along(one.name, one.kind, one.size, one.link_Bps / GIGA) for one in dims)


def _linked(system: System, left: Linked, domain: int) -> Neighbours:
    links, along = left.links, _along(system)
    switches = [i for i, one in enumerate(links.switches) if int(one[1]) == domain]
    ranks = np.flatnonzero(left.where.domain == domain)
    number = np.full(links.ranks + len(links.switches), -1, np.int64)
    number[ranks] = np.arange(len(ranks))
    number[[links.ranks + i for i in switches]] = len(ranks) + np.arange(len(switches))
    rows = np.flatnonzero((links.start < links.end) & (number[links.start] >= 0))
    share = _share(left.left_Bps[rows], links.capacity_Bps[rows])
    names = [one.name for one in along]
    tier = np.array([names.index(one) if (one := tier.partition(".")[0]) in names else -1 for tier in links.tiers])
    coord = np.zeros((len(ranks), len(along)), np.int64)
    rest = np.arange(len(ranks))
    for column, dim in enumerate(along):
        coord[:, column], rest = rest % dim.size, rest // dim.size
    return Neighbours(
        along=along,
        coord=coord,
        switches=tuple("/".join(map(str, links.switches[i])) for i in switches),
        start=number[links.start[rows]],
        end=number[links.end[rows]],
        of=tier[links.tier[rows]],
        left=share,
    )


def _outside(system: System, whole: Edges, left: Edges) -> Outside:
    where, per = places(system), system.ranks_per_package
    nic = _share(left.nic, whole.nic).reshape(-1, per).mean(axis=1)
    return Outside(
        domain=where.domain[::per],
        leaf=where.leaf[::per],
        nic=np.minimum(nic, _share(left.leaf, whole.leaf)),
        spine=_share(left.spine, whole.spine),
        nic_GBps=float(whole.leaf[0]) / GIGA,
        spine_GBps=float(whole.spine.max(initial=0.0)) / GIGA,
    )


__all__ = ["Along", "Neighbours", "Outside", "Planes", "Sketch", "sketch"]
