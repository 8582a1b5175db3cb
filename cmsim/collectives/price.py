"""What a candidate costs on rows of a given shape.

A phase of an algorithm costs

    steps (alpha + step_s) + reduced S gamma
      + max(port_B / port, uplink_B in_node / uplink, nic_B / nic, leaf_B in_leaf / leaf)

where alpha is the latency at which the farthest members of the group meet, and the bytes per rank are

    nic_B  = S outside(p, in_domain)                              leave the domain
    port_B = S (sent(p) - outside(p, in_domain))                  stay on the domain's own network
    uplink_B = S (outside(p, in_node) - outside(p, in_domain))    leave the node but not the domain
    leaf_B = S outside(p, in_leaf)                                leave the leaf switch

Everything is linear in S, so a shape needs two numbers per candidate: its latency, and its seconds per byte.

Where a port is many links that lead different ways (``Link.grid``), port_B is what would keep the whole port busy as
long as the busiest link is: what a flat ring puts on one link counts for all of them.

Leaves out: other groups at work in the same node or leaf (the network's business), and that the near and the far
rounds of a flat algorithm follow each other: they are priced as if chunks kept both networks busy at once.
Source: as each page; the split by where peers meet is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.collectives.hierarchical import Part, Stage, stages
from cmsim.collectives.on_grid import GridLike, routed_s, routed_s_per_B
from cmsim.collectives.rows import Link
from cmsim.collectives.table import ALGORITHMS, ON_GRID
from cmsim.collectives.terms import COLLECTIVES, Algorithm, OnGrid


class GroupShape(NamedTuple):
    """How a group lies in the machine: its size and how much of it shares a node, a domain, a leaf. [1]"""

    ranks: Ints
    in_node: Ints
    in_domain: Ints
    in_leaf: Ints

    def inner(self) -> Ints:
        """Ranks in one block of the hierarchical forms: a domain, or a node where one domain holds the group."""
        return np.where(self.in_domain < self.ranks, self.in_domain, self.in_node)

    def part(self, part: Part) -> GroupShape:
        """The shape of the whole group, of one block, or of the ranks with the same place in their blocks."""
        if part == "all":
            return self
        inner = self.inner()
        if part == "inner":
            return GroupShape(inner, np.minimum(self.in_node, inner), np.minimum(self.in_domain, inner), inner)
        return GroupShape(
            self.ranks // inner,
            np.maximum(self.in_node // inner, 1),
            np.maximum(self.in_domain // inner, 1),
            np.maximum(self.in_leaf // inner, 1),
        )


class PhaseTerms(NamedTuple):
    """One phase per shape: what does not depend on S, and what is to be multiplied by it."""

    latency_s: Floats
    arithmetic_s_per_B: Floats
    port: Floats
    uplink: Floats
    nic: Floats
    leaf: Floats

    def s_per_B(self, shape: GroupShape, link: Link) -> Floats:
        """Seconds for each byte of S: arithmetic, and the slowest resource. [s/B]"""
        port = self.port / (link.port_Bps * link.port_efficiency)
        uplink = self.uplink * shape.in_node / (link.uplink_Bps * link.port_efficiency)
        nic = self.nic / (link.nic_Bps * link.nic_efficiency)
        leaf = self.leaf * shape.in_leaf / (link.leaf_Bps * link.nic_efficiency)
        slowest: Floats = np.maximum(np.maximum(port, uplink), np.maximum(nic, leaf))
        return self.arithmetic_s_per_B + slowest


class Candidate(NamedTuple):
    """One way to run a collective: phases, each an algorithm on part of the group."""

    name: str
    collective: str
    phases: tuple[tuple[Stage, Algorithm], ...]

    def applies(self, shape: GroupShape, link: Link) -> NDArray[np.bool_]:
        """Whether it can run, shape by shape."""
        good = np.ones(shape.ranks.shape, dtype=bool)
        if len(self.phases) > 1:
            inner = shape.inner()
            good &= (inner > 1) & (inner < shape.ranks) & (shape.ranks % inner == 0)
        for stage, algorithm in self.phases:
            part = shape.part(stage.part)
            good &= algorithm.applies(part.ranks)
            if algorithm.on_grid is not None:
                good &= np.array([one is not None for one in _lying(algorithm, part, link)])
            if algorithm.in_network:
                good &= link.in_network & (part.ranks <= part.in_domain)
        return good

    def terms(self, shape: GroupShape, link: Link) -> Iterator[PhaseTerms]:
        """The phases in order; base_s is in the first."""
        inner = shape.inner()
        base_s = link.base_s
        for stage, algorithm in self.phases:
            share = stage.share(inner)
            of_stage = _phase if algorithm.on_grid is None else _along
            yield of_stage(algorithm, shape.part(stage.part), link, share=share, base_s=base_s)
            base_s = 0.0


def _phase(algorithm: Algorithm, part: GroupShape, link: Link, *, share: Floats, base_s: Floats | float) -> PhaseTerms:
    p = part.ranks
    alpha_s = np.where(p <= part.in_node, link.node_s, np.where(p <= part.in_domain, link.domain_s, link.cluster_s))
    out_of_domain = algorithm.outside(p, part.in_domain)
    out_of_node = algorithm.outside(p, part.in_node)
    sent = algorithm.sent(p)
    near = np.maximum(sent - out_of_domain, 0.0)
    if (grid := _grid(link)) is not None:
        alpha_s, near = _on_grid(algorithm, part, link, grid, alpha_s, near)
    # A root that does not take turns puts all of its traffic through its own NIC.
    nic = out_of_domain if algorithm.rotates else np.minimum(sent, out_of_domain * part.in_domain)
    return PhaseTerms(
        algorithm.steps(p) * (alpha_s + link.step_s) + base_s,
        share * algorithm.reduced(p) * link.gamma_s_per_B,
        # Closed forms for blocks that do not divide the group are approximate; no resource carries less than nothing.
        share * near,
        share * np.maximum(out_of_node - out_of_domain, 0.0),
        share * nic,
        share * algorithm.outside(p, part.in_leaf),
    )


def _grid(link: Link) -> GridLike | None:
    """The grid of a link, which a checked one holds as an array of one object."""
    grid: GridLike | None = link.grid.item() if isinstance(link.grid, np.ndarray) else link.grid
    return grid


def _on_grid(
    algorithm: Algorithm, part: GroupShape, link: Link, grid: GridLike, alpha_s: Floats, near: Floats
) -> tuple[Floats, Floats]:
    """Latency of a step, and bytes through the port, where the port is many links.

    Bytes are those that would take the whole port as long as the busiest link takes: a network of ports goes by them.
    """
    inside = np.minimum(part.ranks, part.in_domain)
    found = [
        (
            routed_s_per_B(algorithm.name, grid, ranks, in_node),
            routed_s(algorithm.name, grid, ranks, in_node),
        )
        if ranks > 1
        else (0.0, 0.0)
        for ranks, in_node in zip(inside.tolist(), part.in_node.tolist(), strict=True)
    ]
    per_B, path_s = np.array(found).reshape(-1, 2).T
    # where the wire's latency is inside the base, it is not counted again
    alone = (part.ranks <= part.in_domain) & (np.broadcast_to(link.domain_s, path_s.shape) > 0)
    return np.where(alone, path_s, alpha_s), near * per_B * link.port_Bps


def _lying(algorithm: Algorithm, shape: GroupShape, link: Link) -> list[OnGrid | None]:
    """The algorithm on the grid that each group lies on; None where there is none, or where it leaves its domain."""
    grid = _grid(link)
    if grid is None or algorithm.on_grid is None:
        return [None] * len(shape.ranks)
    columns = zip(shape.ranks.tolist(), shape.in_node.tolist(), shape.in_domain.tolist(), strict=True)
    return [
        None if ranks > in_domain or ranks == 1 else algorithm.on_grid(grid, ranks, in_node)
        for ranks, in_node, in_domain in columns
    ]


def _along(algorithm: Algorithm, part: GroupShape, link: Link, *, share: Floats, base_s: Floats | float) -> PhaseTerms:
    """A phase of an algorithm that follows the grid."""
    zero = np.zeros(part.ranks.shape)
    latency_s, per_B = zero.copy(), zero.copy()
    steps_s = np.broadcast_to(link.step_s, zero.shape)
    for i, lying in enumerate(_lying(algorithm, part, link)):
        if lying is not None:
            latency_s[i] = lying.latency_s(float(steps_s[i]))
            per_B[i] = lying.s_per_B()
    arithmetic = share * algorithm.reduced(part.ranks) * link.gamma_s_per_B + zero
    return PhaseTerms(latency_s + base_s, arithmetic, share * per_B * link.port_Bps, zero, zero, zero)


_FLAT = {(one.name, one.collective): one for one in (*ALGORITHMS, *ON_GRID)}

# Short lists for the hierarchical forms: inside a block everybody is near, between blocks the bytes are few.
_INNER: dict[str, dict[str, str]] = {
    "direct": {},
    "ring": {"scatter": "binomial", "gather": "binomial"},
    "halving_doubling": {"scatter": "binomial", "gather": "binomial"},
    "in_network": {"scatter": "direct", "gather": "direct"},
    **{algorithm.name: {} for algorithm in ON_GRID},
}
_OUTER: dict[str, tuple[str, ...]] = {
    "all_reduce": ("ring", "halving_doubling", "nhr", "one_shot", "two_shot"),
    "all_gather": ("ring", "halving_doubling", "nhr", "direct"),
    "reduce_scatter": ("ring", "halving_doubling", "nhr", "direct"),
    "all_to_all": ("direct", "pairwise"),
    "broadcast": ("ring", "nhr", "two_shot", "binomial"),
    "reduce": ("ring", "nhr", "two_shot", "binomial"),
}


def _hierarchical(collective: str) -> Iterator[Candidate]:
    for inner, exceptions in _INNER.items():
        for outer in _OUTER.get(collective, ()):
            wanted = [
                (outer if stage.part == "outer" else exceptions.get(stage.collective, inner), stage)
                for stage in stages(collective)
            ]
            if all((name, stage.collective) in _FLAT for name, stage in wanted):
                phases = tuple((stage, _FLAT[name, stage.collective]) for name, stage in wanted)
                yield Candidate(f"hierarchical({inner}, {outer})", collective, phases)


def _all_candidates(collective: str) -> tuple[Candidate, ...]:
    whole = Stage(collective, "all")
    flat = (Candidate(a.name, collective, ((whole, a),)) for a in ALGORITHMS if a.collective == collective)
    along = (Candidate(a.name, collective, ((whole, a),)) for a in ON_GRID if a.collective == collective)
    return (*flat, *_hierarchical(collective), *along)


#: by position in COLLECTIVES: flat algorithms in table order, then the hierarchical ones
CANDIDATES: tuple[tuple[Candidate, ...], ...] = tuple(_all_candidates(name) for name in COLLECTIVES)
