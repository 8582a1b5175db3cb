"""Calls as demands on classes of equal resources: ports, NICs, uplinks of nodes and leaves, as ``Fabric`` counts them.

One demand for each phase of a collective: its bytes on the busiest resource, and shares of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cmsim.arrays import Ints
from cmsim.collectives import Link
from cmsim.engine.calls import PlacedCall, PricedCall, link, receiving
from cmsim.engine.fold import Folding, Members
from cmsim.engine.resources import DIRECTIONS, LEAF, NIC, PORT, UPLINK, Incidence, Resources
from cmsim.hardware import System
from cmsim.network import SHARE_ONE, Demand
from cmsim.topology import Fabric
from cmsim.units import to_ps
from cmsim.workload.ops import Programs


@dataclass(frozen=True)
class ByLevel:
    """What demands on resource classes need: who is in which class of group, and which resources that class has."""

    programs: Programs
    system: System
    levels: Fabric
    folding: Folding
    who: Members
    resources: Resources
    incidence: Incidence

    def place(self, wanted: Sequence[PricedCall]) -> tuple[list[PlacedCall], Resources]:
        """See ``Carrier``."""
        parties, together = self._parties(), self._together()
        keys = [(one.collective, one.ranks, one.small) for one in wanted]
        links = {key: link(self.system, self.levels, *key) for key in set(keys)}
        placed = [
            self._place(one, parties[one.group], together, links[key]) for one, key in zip(wanted, keys, strict=True)
        ]
        return placed, self.resources

    def _place(
        self, priced: PricedCall, parties: list[tuple[int, int]], together: dict[str, Ints], wire: Link
    ) -> PlacedCall:
        phases: list[tuple[Demand, ...]] = []
        sent = latency = 0.0
        row = priced.row
        for phase in priced.choice.phases:
            latency_s = float(phase.latency_s[row])
            crossing = {
                PORT: float(phase.port_B[row]) / float(np.asarray(wire.port_efficiency)),
                UPLINK: float(phase.uplink_B[row]) / float(np.asarray(wire.port_efficiency)),
                NIC: float(phase.nic_B[row]) / float(np.asarray(wire.nic_efficiency)),
                LEAF: float(phase.leaf_B[row]) / float(np.asarray(wire.nic_efficiency)),
            }
            size = float(np.rint(max(crossing.values())))
            if latency_s == 0.0 and size == 0.0 and phases:
                continue
            latency += latency_s
            sent += float(phase.port_B[row]) + float(phase.nic_B[row])
            directions = DIRECTIONS if priced.collective != "send_recv" else None
            resources, shares, alone = self._shares(crossing, size, parties, together, directions)
            whole = Demand(size, int(to_ps(latency_s)), resources, shares, alone if alone != shares else ())
            phases.append((whole,))
        return PlacedCall(tuple(phases), latency, float(priced.choice.time_s[row]), sent)

    def _parties(self) -> dict[int, list[tuple[int, int]]]:
        """(rank class, slot) pairs of each group class, in order; of a channel the sender stands first."""
        programs, folding = self.programs, self.folding
        receives = receiving(programs)
        program = programs.program[folding.first].tolist()
        out: dict[int, list[tuple[int, int]]] = {}
        for rank_class, slots in enumerate(folding.group_class.tolist()):
            for slot, group in enumerate(slots):
                if group >= 0:
                    out.setdefault(group, []).append((rank_class, slot))
        for pairs in out.values():
            pairs.sort(key=lambda pair: (program[pair[0]], pair[1]) in receives)
        return out

    def _together(self) -> dict[str, Ints]:
        """The most members of one group in one node, and in one leaf, by rank class and slot of a member there."""
        folding, who = self.folding, self.who
        out = {kind: np.zeros(folding.group_class.shape, np.int64) for kind in (UPLINK, LEAF)}
        rank_class, near = who.kinds(folding.rank_class[who.rank])
        slot, in_node, _, in_leaf = who.neighbours[near].T
        for most, count in ((out[UPLINK], in_node), (out[LEAF], in_leaf)):
            np.maximum.at(most, (rank_class, slot), count)
        return out

    def _shares(
        self,
        crossing: dict[str, float],
        size: float,
        parties: list[tuple[int, int]],
        together: dict[str, Ints],
        directions: tuple[str, ...] | None,
    ) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Resource classes crossed, and whole shares on one instance of each: of all groups, and of one group alone.

        Of a send the first party sends, the second receives.
        """
        folding, incidence = self.folding, self.incidence
        shares: dict[int, int] = {}
        alone: dict[int, int] = {}
        for kind, bytes_B in crossing.items():
            share = round(bytes_B / size * SHARE_ONE) if size else 0
            if not share:
                continue
            for position, (rank_class, slot) in enumerate(parties):
                # of one group: every member in the node or leaf, but one end only of a send
                members_here = int(together[kind][rank_class, slot]) if kind in together and directions else 1
                for direction in directions or (DIRECTIONS[position],):
                    if kind in (PORT, NIC):
                        resource, times = int(incidence.number[kind, direction][rank_class]), 1
                    elif kind == UPLINK:
                        resource = int(incidence.number[kind, direction][folding.node_class[rank_class]])
                        times = int(incidence.in_node[rank_class])
                    else:
                        resource = int(incidence.number[kind, direction][folding.leaf_class[rank_class]])
                        times = int(incidence.in_leaf[rank_class])
                    if resource >= 0:
                        shares[resource] = shares.get(resource, 0) + share * times
                        alone[resource] = max(alone.get(resource, 0), share * members_here)
        return tuple(shares), tuple(shares.values()), tuple(alone.values())
