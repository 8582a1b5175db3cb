"""Communication priced: every distinct call of a group class, all algorithms at once, as demands on resources."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmsim.collectives import COLLECTIVES, Choice, Link, Rows, choose
from cmsim.engine.bound import wire_bound_s
from cmsim.engine.fold import Folding, Members
from cmsim.engine.resources import DIRECTIONS, LEAF, NIC, PORT, UPLINK, Incidence
from cmsim.errors import InputError
from cmsim.hardware import System
from cmsim.network import SHARE_ONE, Demand
from cmsim.topology import Fabric
from cmsim.units import US, to_ps
from cmsim.workload.ops import COLLECTIVE, RECV, Programs

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: collectives with one algorithm of their own, whatever the scenario asks for
_FIXED = ("send_recv", "barrier", "dispatch", "combine")


@dataclass(frozen=True)
class Call:
    """A communication op of one group class, priced: what to move, phase by phase, and by which algorithm."""

    collective: str
    algorithm: str
    size_B: float
    phases: tuple[Demand, ...]
    latency_s: float
    ideal_s: float
    sent_B: float
    lower_bound_s: float


@dataclass(frozen=True)
class Pricer:
    """What pricing needs to know of who meets where, on which wires."""

    programs: Programs
    system: System
    wires: Fabric
    folding: Folding
    who: Members
    incidence: Incidence
    algorithm: str

    def price(self) -> tuple[list[Call], list[Ints]]:
        """Price every distinct (group class, collective, size) once; and which call each op row of each class makes."""
        programs, folding = self.programs, self.folding
        ops = programs.ops
        where, what = [], []
        for rank_class in range(len(folding.first)):
            program = int(programs.program[folding.first[rank_class]])
            first, last = int(programs.program_ptr[program]), int(programs.program_ptr[program + 1])
            rows = np.flatnonzero(ops.kind[first:last] >= COLLECTIVE)
            slot = ops.slot[first:last][rows]
            group = folding.group_class[rank_class][slot] if len(rows) else rows
            if (group < 0).any():
                bad = int(rows[int(np.argmax(group < 0))])
                name = ops.names[ops.name_id[first + bad]]
                slot_name = programs.slots[int(ops.slot[first + bad])]
                raise InputError(
                    f"rank {folding.first[rank_class]}: op '{name}' uses slot '{slot_name}', which it has no group in"
                )
            kind = ops.kind[first:last][rows]
            code = np.where(kind == COLLECTIVE, ops.collective[first:last][rows], len(ops.collectives))
            where.append(rows)
            what.append(np.stack([group, code, ops.bytes_B[first:last][rows]], axis=1))
        keys = np.concatenate(what) if what else np.zeros((0, 3))
        distinct, inverse = np.unique(keys, axis=0, return_inverse=True)
        calls = self._calls(distinct, (*ops.collectives, "send_recv"))
        call: list[Ints] = []
        at = 0
        inverse = inverse.reshape(-1)
        for rank_class, rows in enumerate(where):
            program = int(programs.program[folding.first[rank_class]])
            column = np.full(int(programs.program_ptr[program + 1] - programs.program_ptr[program]), -1, np.int64)
            column[rows] = inverse[at : at + len(rows)]
            at += len(rows)
            call.append(column)
        return calls, call

    def _calls(self, distinct: Floats, names: tuple[str, ...]) -> list[Call]:
        """One call for each row (group class, position in ``names``, size)."""
        if not len(distinct):
            return []
        unknown = [name for name in names if name not in COLLECTIVES]
        if unknown:
            raise InputError(f"no collective named '{unknown[0]}'. Allowed: {', '.join(COLLECTIVES)}.")
        group_class = distinct[:, 0].astype(np.int64)
        size_B = distinct[:, 2]
        layout = self._layout()
        parties, together = self._parties(), self._together()
        out: list[Call | None] = [None] * len(distinct)
        codes = np.array([COLLECTIVES.index(name) for name in names])[distinct[:, 1].astype(np.int64)]
        for code in np.unique(codes):
            collective = COLLECTIVES[code]
            which = np.flatnonzero(codes == code)
            size, in_node, in_domain, in_leaf = layout[:, group_class[which]]
            # a leaf smaller than a domain sees the same traffic leave as the domain does
            rows = Rows(codes[which], size_B[which], size, in_node, in_domain, np.maximum(in_leaf, in_domain))
            wire = link(self.system, self.wires, collective)
            forced = "best" if collective in _FIXED else self.algorithm
            choice = choose(rows, wire, algorithm=forced)
            bound_s = wire_bound_s(collective, rows, wire)
            for i, row in enumerate(which.tolist()):
                out[row] = self._call(
                    choice,
                    i,
                    collective,
                    float(size_B[row]),
                    parties[int(group_class[row])],
                    together,
                    wire,
                    float(bound_s[i]),
                )
        return [call for call in out if call is not None]

    def _layout(self) -> Ints:
        """Of each group class its size, and the fewest neighbours that any member has in its node, domain and leaf: the
        member with most to send out sets the pace. Shape (4, group classes)."""
        who, folding = self.who, self.folding
        member_group = folding.group_class[folding.rank_class[who.rank], who.slot]
        layout = np.full((4, int(member_group.max()) + 1), np.iinfo(np.int64).max, np.int64)
        for row, column in zip(layout, (who.size, who.in_node, who.in_domain, who.in_leaf), strict=True):
            np.minimum.at(row, member_group, column)
        return layout

    def _parties(self) -> dict[int, list[tuple[int, int]]]:
        """(rank class, slot) pairs of each group class, in order; of a channel the sender stands first."""
        programs, folding = self.programs, self.folding
        ops = programs.ops
        row_program = np.repeat(np.arange(len(programs.program_ptr) - 1), np.diff(programs.program_ptr))
        receives = set(zip(row_program[ops.kind == RECV].tolist(), ops.slot[ops.kind == RECV].tolist(), strict=True))
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
        out = {}
        for kind, near in ((UPLINK, who.in_node), (LEAF, who.in_leaf)):
            out[kind] = np.zeros(folding.group_class.shape, np.int64)
            np.maximum.at(out[kind], (folding.rank_class[who.rank], who.slot), near)
        return out

    def _call(
        self,
        choice: Choice,
        row: int,
        collective: str,
        size_B: float,
        parties: list[tuple[int, int]],
        together: dict[str, Ints],
        wire: Link,
        bound_s: float,
    ) -> Call:
        phases: list[Demand] = []
        sent = latency = 0.0
        for phase in choice.phases:
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
            directions = DIRECTIONS if collective != "send_recv" else None
            resources, shares, alone = self._shares(crossing, size, parties, together, directions)
            phases.append(Demand(size, int(to_ps(latency_s)), resources, shares, alone if alone != shares else ()))
        return Call(
            collective=collective,
            algorithm=choice.names[int(choice.name_id[row])],
            size_B=size_B,
            phases=tuple(phases),
            latency_s=latency,
            ideal_s=float(choice.time_s[row]),
            sent_B=sent,
            lower_bound_s=bound_s,
        )

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


def link(system: System, wires: Fabric, collective: str) -> Link:
    """What a collective runs on: latencies and rates of the fabric, software costs of the stack."""
    stack = system.stack
    expert = {"dispatch": stack.dispatch, "combine": stack.combine}.get(collective)
    node_s, domain_s, cluster_s = wires.node_s, wires.domain_s, wires.cluster_s
    if expert is not None:
        # fitted to whole fused kernels: the wire's latency is inside the base
        node_s = domain_s = cluster_s = 0.0
    tuning = expert or stack.collectives
    return Link(
        node_s=node_s,
        domain_s=domain_s,
        cluster_s=cluster_s,
        port_Bps=wires.port_Bps,
        uplink_Bps=wires.uplink_Bps,
        nic_Bps=wires.nic_Bps,
        leaf_Bps=wires.leaf_Bps,
        base_s=tuning.base_us * US,
        step_s=(expert.doubling_us if expert is not None else stack.collectives.step_us) * US,
        port_efficiency=tuning.scale_up_efficiency,
        nic_efficiency=tuning.scale_out_efficiency,
        in_network=wires.in_network_reduction and stack.collectives.in_network,
    )
