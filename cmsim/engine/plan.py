"""From programs and a system to what the engine plays: rank classes, hold times and demands.

Every cost is computed at once, over columns: kernels of all programs in one call, every distinct collective
with all its algorithms in another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cmsim import compute
from cmsim.collectives import COLLECTIVES, Choice, Link, Rows, choose
from cmsim.engine.bound import wire_bound_s
from cmsim.engine.fold import Folding, Members, fold, members
from cmsim.errors import InputError, Problem
from cmsim.hardware import System
from cmsim.network import SHARE_ONE, Demand
from cmsim.topology import Fabric, Places, fabric, places
from cmsim.units import GB, US, to_ps
from cmsim.workload.ops import COLLECTIVE, COMPUTE, HOST, RECV, Programs

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: resources of a rank class, then of a node class, then of a leaf class; one number per direction
PORT, NIC, UPLINK, LEAF = "port", "nic", "uplink", "leaf"
DIRECTIONS = ("out", "in")

HOST_BOUND = compute.BOUNDS.index("host")


@dataclass(frozen=True)
class Perturbation:
    """What makes one rank differ: factor on its compute times, factor on its port's and NIC's capacity."""

    compute: float = 1.0
    port: float = 1.0
    nic: float = 1.0


@dataclass(frozen=True)
class Options:
    """How to plan.

    algorithm  policy or name for collectives    fold  simulate equal ranks once    perturb  by rank
    host_idle  share of kernel streams in which the device waits for the host: stretches modelled kernels [1]
    recorded   what becomes of times a trace recorded: "recorded" as they are, "scaled" by ``recorded_scale`` (factor
               for kernels of the matrix engine, factor for the others), "modelled" where the roofline replaces them
    """

    algorithm: str = "best"
    fold: bool = True
    host_idle: float = 0.0
    perturb: Mapping[int, Perturbation] = field(default_factory=dict)
    recorded: str = "recorded"
    recorded_scale: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class Resources:
    """Classes of equal resources. Lists run over classes.

    name          "port.out[3]": kind, direction, number of its rank, node or leaf class
    instances     how many equal ones there are
    capacity_Bps  of one instance
    """

    name: list[str]
    instances: list[int]
    capacity_Bps: list[float]


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
class Plan:
    """Everything the engine needs, and what results need to explain it.

    hold_ps   device time of each op row at factor 1, shape (rows,); per class it is multiplied by its factor
    bound     per op row: what binds a kernel (code into ``compute.BOUNDS``), -1 for communication, shape (rows,)
    call      per class and op row of its program: index into ``calls``, -1 for compute, list of (rows,) arrays
    """

    programs: Programs
    system: System
    fabric: Fabric
    places: Places
    folding: Folding
    factor: Floats
    hold_ps: list[Ints]
    bound: Ints
    resources: Resources
    calls: list[Call]
    call: list[Ints]

    @property
    def classes(self) -> int:
        return len(self.folding.first)

    def program_of(self, rank_class: int) -> int:
        return int(self.programs.program[self.folding.first[rank_class]])

    def rows_of(self, rank_class: int) -> slice:
        program = self.program_of(rank_class)
        return slice(int(self.programs.program_ptr[program]), int(self.programs.program_ptr[program + 1]))


def plan(programs: Programs, system: System, options: Options | None = None) -> Plan:
    """Fold the ranks and price every op. Raises InputError where the workload does not fit the system."""
    options = options or Options()
    if programs.ranks > system.ranks:
        raise InputError(
            Problem(f"the workload needs {programs.ranks} ranks; {system.name} has {system.ranks} ({system.spec.rank}s)")
        )
    where, wires = places(system), fabric(system)
    node, domain, leaf = (np.asarray(column)[: programs.ranks] for column in (where.node, where.domain, where.leaf))
    perturb = dict(options.perturb)
    outside = [rank for rank in perturb if not 0 <= rank < programs.ranks]
    if outside:
        raise InputError(Problem(f"no rank {outside[0]}: the workload has ranks 0 to {programs.ranks - 1}", key="perturb"))
    factors = np.ones((programs.ranks, 3))
    for rank, change in perturb.items():
        factors[rank] = change.compute, change.port, change.nic
    _, kind = np.unique(factors, axis=0, return_inverse=True)
    who = members(programs.groups, node=node, domain=domain, leaf=leaf)
    # a node or leaf that carries no resource of its own tells no ranks apart
    node = node if np.isfinite(wires.uplink_Bps) else np.zeros_like(node)
    leaf = leaf if np.isfinite(wires.leaf_Bps) else np.zeros_like(leaf)
    folding = fold(
        [programs.program, kind.reshape(-1)], who, slots=len(programs.slots), node=node, leaf=leaf, enabled=options.fold
    )
    seconds, bound = _kernel_seconds(programs, system, options)
    classes = len(folding.first)
    class_factor = factors[folding.first, 0]
    hold_ps = []
    for rank_class in range(classes):
        program = int(programs.program[folding.first[rank_class]])
        rows = slice(int(programs.program_ptr[program]), int(programs.program_ptr[program + 1]))
        hold_ps.append(to_ps(seconds[rows] * class_factor[rank_class]))
    resources, incidence = _resources(folding, wires, factors, node, leaf, programs.ranks)
    calls, call = _price_calls(programs, system, options, folding, who, wires, incidence)
    return Plan(programs, system, wires, where, folding, class_factor, hold_ps, bound, resources, calls, call)


def rates(system: System) -> compute.Rates:
    """What kernels run on: one rank's peaks and the stack's efficiencies."""
    gap_s = system.stack.host.gap_us * US
    return compute.Rates(
        peak_FLOPps={str(p): system.rank_peak_FLOPps(p) for p in system.accelerator.peak_TFLOPps},
        vector_FLOPps=system.rank_vector_FLOPps,
        memory_Bps=system.rank_memory_Bps,
        efficiency={
            name: compute.Efficiency(k.compute, k.memory, k.overhead_us * US + gap_s, {str(p): share for p, share in k.compute_by_precision.items()})
            for name, k in system.stack.kernels.items()
        },
        name=f"{system.accelerator.name} with {system.stack.name}",
    )


def _kernel_seconds(programs: Programs, system: System, options: Options) -> tuple[Floats, Ints]:
    """Device time of every op row [s] and what binds it; recorded times replace modelled ones where asked."""
    ops = programs.ops
    is_compute = ops.kind == COMPUTE
    priced = compute.price(
        ops.kernel[is_compute],
        ops.precision[is_compute],
        ops.flops[is_compute],
        ops.bytes_B[is_compute],
        ops.cores[is_compute],
        kernels=ops.kernels,
        precisions=ops.precisions,
        rates=rates(system),
    )
    seconds = np.zeros(len(ops))
    bound = np.full(len(ops), -1, np.int64)
    seconds[is_compute] = priced.time_s
    bound[is_compute] = priced.bound
    seconds /= 1.0 - options.host_idle
    host = system.stack.host
    if host.launch == "eager":
        # the device cannot run ahead of the host that issues it
        issued = host.op_us * US
        slow = is_compute & (seconds < issued)
        seconds[slow] = issued
        bound[slow] = HOST_BOUND
    recorded = ~np.isnan(ops.recorded_s)
    if options.recorded != "modelled":
        matrix, memory = options.recorded_scale if options.recorded == "scaled" else (1.0, 1.0)
        on_matrix = np.array([name in compute.KERNELS and compute.KERNELS[name].matrix for name in ops.kernels] + [False])[ops.kernel]
        scale = np.where(on_matrix, matrix, memory)
        use = recorded & is_compute
        seconds[use] = ops.recorded_s[use] * scale[use]
    use = recorded & (ops.kind == HOST)
    seconds[use] = ops.recorded_s[use]
    bound[ops.kind == HOST] = HOST_BOUND
    return seconds, bound


@dataclass(frozen=True)
class _Incidence:
    """Numbers of resource classes, by (kind, direction) -> array over rank, node or leaf classes; and, for each
    rank class, how many ranks of it one instance of its node and leaf class holds."""

    number: dict[tuple[str, str], Ints]
    in_node: Ints
    in_leaf: Ints


def _resources(
    folding: Folding, wires: Fabric, factors: Floats, node: Ints, leaf: Ints, ranks: int
) -> tuple[Resources, _Incidence]:
    classes = len(folding.first)
    rank_node_class = folding.node_class[folding.rank_class]
    rank_leaf_class = folding.leaf_class[folding.rank_class]
    # instances of node and leaf classes in use, and ranks of a class in one of them
    node_count = _distinct_per(rank_node_class, node)
    leaf_count = _distinct_per(rank_leaf_class, leaf)
    in_node = folding.count // node_count[folding.node_class]
    in_leaf = folding.count // leaf_count[folding.leaf_class]
    names: list[str] = []
    instances: list[int] = []
    capacity: list[float] = []
    number: dict[tuple[str, str], Ints] = {}

    def add(kind: str, counts: Sequence[int], capacities: Sequence[float]) -> None:
        for direction in DIRECTIONS:
            here = np.full(len(counts), -1, np.int64)
            for i, (count, rate) in enumerate(zip(counts, capacities, strict=True)):
                if np.isfinite(rate) and count:
                    here[i] = len(names)
                    names.append(f"{kind}.{direction}[{i}]")
                    instances.append(int(count))
                    capacity.append(float(rate))
            number[kind, direction] = here

    add(PORT, list(folding.count), list(wires.port_Bps * factors[folding.first, 1]))
    add(NIC, list(folding.count), list(wires.nic_Bps * factors[folding.first, 2]))
    add(UPLINK, list(node_count), [wires.uplink_Bps] * len(node_count))
    add(LEAF, list(leaf_count), [wires.leaf_Bps] * len(leaf_count))
    assert int(folding.count.sum()) == ranks and classes == len(in_node)
    return Resources(names, instances, capacity), _Incidence(number, in_node, in_leaf)


def _distinct_per(colour: Ints, instance: Ints) -> Ints:
    """Distinct instances of each colour, shape (max colour + 1,)."""
    pairs = np.unique(np.stack([colour, instance]), axis=1)
    return np.bincount(pairs[0], minlength=int(colour.max()) + 1)


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


def _price_calls(
    programs: Programs,
    system: System,
    options: Options,
    folding: Folding,
    who: Members,
    wires: Fabric,
    incidence: _Incidence,
) -> tuple[list[Call], list[Ints]]:
    """Price every distinct (group class, collective, size) once; and which call each op row of each class makes."""
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
            raise InputError(f"rank {folding.first[rank_class]}: op '{name}' uses slot '{slot_name}', which it has no group in")
        kind = ops.kind[first:last][rows]
        code = np.where(kind == COLLECTIVE, ops.collective[first:last][rows], len(ops.collectives))
        where.append(rows)
        what.append(np.stack([group, code, ops.bytes_B[first:last][rows]], axis=1))
    keys = np.concatenate(what) if what else np.zeros((0, 3))
    distinct, inverse = np.unique(keys, axis=0, return_inverse=True)
    calls = _calls(distinct, (*ops.collectives, "send_recv"), programs, system, options, folding, who, wires, incidence)
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


def _calls(
    distinct: Floats,
    names: tuple[str, ...],
    programs: Programs,
    system: System,
    options: Options,
    folding: Folding,
    who: Members,
    wires: Fabric,
    incidence: _Incidence,
) -> list[Call]:
    if not len(distinct):
        return []
    unknown = [name for name in names if name not in COLLECTIVES]
    if unknown:
        raise InputError(f"no collective named '{unknown[0]}'. Allowed: {', '.join(COLLECTIVES)}.")
    group_class = distinct[:, 0].astype(np.int64)
    size_B = distinct[:, 2]
    # layout of a group class: its size, and the fewest neighbours any member has (the member with most to send out)
    member_class = folding.rank_class[who.rank]
    member_group = folding.group_class[member_class, who.slot]
    classes = int(member_group.max()) + 1
    layout = np.full((4, classes), np.iinfo(np.int64).max, np.int64)
    for row, column in zip(layout, (who.size, who.in_node, who.in_domain, who.in_leaf), strict=True):
        np.minimum.at(row, member_group, column)
    parties = _parties(folding, programs)
    together = _together(folding, who)
    out: list[Call | None] = [None] * len(distinct)
    codes = np.array([COLLECTIVES.index(name) for name in names])[distinct[:, 1].astype(np.int64)]
    for code in np.unique(codes):
        collective = COLLECTIVES[code]
        which = np.flatnonzero(codes == code)
        size, node, domain, leaf = layout[:, group_class[which]]
        # a leaf smaller than a domain sees the same traffic leave as the domain does
        rows = Rows(codes[which], size_B[which], size, node, domain, np.maximum(leaf, domain))
        wire = link(system, wires, collective)
        forced = options.algorithm if collective not in ("send_recv", "barrier", "dispatch", "combine") else "best"
        choice = choose(rows, wire, algorithm=forced)
        bound_s = wire_bound_s(collective, rows, wire)
        for i, row in enumerate(which):
            out[row] = _call(
                choice, i, collective, float(size_B[row]), parties[int(group_class[row])], together, wire, folding,
                incidence, float(bound_s[i]),
            )  # fmt: skip
    return [call for call in out if call is not None]


def _parties(folding: Folding, programs: Programs) -> dict[int, list[tuple[int, int]]]:
    """(rank class, slot) pairs of each group class, in order; of a channel the sender stands first."""
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


def _together(folding: Folding, who: Members) -> dict[str, Ints]:
    """The most members of one group in one node, and in one leaf, by rank class and slot of a member there."""
    out = {}
    for kind, near in ((UPLINK, who.in_node), (LEAF, who.in_leaf)):
        out[kind] = np.zeros(folding.group_class.shape, np.int64)
        np.maximum.at(out[kind], (folding.rank_class[who.rank], who.slot), near)
    return out


def _call(
    choice: Choice,
    row: int,
    collective: str,
    size_B: float,
    parties: list[tuple[int, int]],
    together: dict[str, Ints],
    wire: Link,
    folding: Folding,
    incidence: _Incidence,
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
        resources, shares, alone = _shares(crossing, size, parties, together, directions, folding, incidence)
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
    crossing: dict[str, float],
    size: float,
    parties: list[tuple[int, int]],
    together: dict[str, Ints],
    directions: tuple[str, ...] | None,
    folding: Folding,
    incidence: _Incidence,
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Resource classes crossed, and whole shares on one instance of each: of all groups, and of one group alone.

    Of a send the first party sends, the second receives.
    """
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


def memory_B(programs: Programs) -> Floats:
    """Memory one rank of each program needs, shape (programs,). [B]"""
    total = np.zeros(len(programs.program_ptr) - 1)
    for part in programs.footprint_B.values():
        total = total + part
    return total


def check_memory(programs: Programs, system: System) -> None:
    """Raises InputError where a rank's weights, states, activations and cache exceed its memory."""
    need = memory_B(programs)
    if not len(need) or need.max() <= system.rank_memory_B:
        return
    worst = int(np.argmax(need))
    parts = ", ".join(f"{key} {value[worst] / GB:.1f}" for key, value in programs.footprint_B.items() if value[worst])
    raise InputError(
        f"the model does not fit: a rank needs {need[worst] / GB:.1f} GB ({parts}); a {system.spec.rank} of "
        f"{system.name} has {system.rank_memory_B / GB:.1f} GB. Spread it over more ranks, or make batch or precision smaller."
    )


__all__ = ["Call", "Options", "Perturbation", "Plan", "Resources", "check_memory", "link", "memory_B", "plan", "rates"]
