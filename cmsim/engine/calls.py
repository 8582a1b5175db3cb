"""Communication priced: every distinct call of a group class, all algorithms at once; then laid on the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.collectives import COLLECTIVES, Choice, Link, Rows, choose, wire_bound_s
from cmsim.collectives.chooser import NAMES
from cmsim.collectives.terms import Column
from cmsim.engine.fold import Folding, Members
from cmsim.engine.resources import Resources
from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.hardware import System, call_cost, small_sum
from cmsim.network import Demand
from cmsim.topology import Fabric
from cmsim.workload.ops import COLLECTIVE, RECV, Programs

#: collectives with one algorithm of their own, whatever the scenario asks for
_FIXED = ("send_recv", "barrier", "dispatch", "combine")


@dataclass(frozen=True)
class PricedCall:
    """A call as the chooser left it: which group class wants what, by which algorithm.

    ranks, in_domain  members of a group, and of them in one domain [1]
    inner        ranks of one block of a hierarchical algorithm [1]
    traffic      who sends how much to whom, a position in ``Programs.traffic``; -1 where all blocks are alike
    small        an engine's own kernel does it
    choice, row  the chooser's answer and where in it this call stands
    note         what is to be said of how it was priced, "" for nothing
    """

    group: int
    collective: str
    size_B: float
    ranks: int
    in_domain: int
    inner: int
    traffic: int
    choice: Choice
    row: int
    small: bool = False
    note: str = ""

    @property
    def algorithm(self) -> str:
        return self.choice.name(self.row)

    @property
    def page(self) -> str:
        """The algorithm whose rounds are played, where a library has a name of its own for it."""
        from cmsim import libraries

        return libraries.page(self.collective, self.algorithm)


@dataclass(frozen=True)
class PlacedCall:
    """A call on the network.

    phases     one after the other; the demands of a phase start together, and it ends with the last of them
    latency_s  the fixed part of it [s]    ideal_s  with nobody else on the network [s]
    sent_B     what a member puts on its port and NIC, payload [B]
    """

    phases: tuple[tuple[Demand, ...], ...]
    latency_s: float
    ideal_s: float
    sent_B: float


class Carrier(Protocol):
    """How calls become demands: on classes of ports and uplinks (``by_level``), or link by link (``by_link``)."""

    def place(self, wanted: Sequence[PricedCall]) -> tuple[list[PlacedCall], Resources]:
        """Every call as demands, and the resources that these number."""
        ...


@dataclass(frozen=True)
class Call:
    """A communication op of one group class, priced and placed; see ``PlacedCall``. ``bound``: of its port, its NICs
    and the bisections it crosses, see ``cmsim.collectives.wire`` [s]; ``note``: what is to be said of how it was priced
    """

    collective: str
    algorithm: str
    size_B: float
    phases: tuple[tuple[Demand, ...], ...]
    latency_s: float
    ideal_s: float
    sent_B: float
    bound: tuple[float, float, float]
    note: str = ""

    @property
    def page(self) -> str:
        """The algorithm with the rounds of this one, where a library has a name of its own for it."""
        from cmsim import libraries

        return libraries.page(self.collective, self.algorithm)


@dataclass(frozen=True)
class CallTable:
    """Calls, the call of every op row of each class (-1 for compute), and the resources that demands number."""

    calls: list[Call]
    call: list[Ints]
    resources: Resources


@dataclass(frozen=True)
class Pricer:
    """What pricing needs to know of who meets where, on which levels.

    algorithm  policy or name    measured  whether the cheapest may be the library in its measured time; not where the
               network plays the rounds of an algorithm, which have a time of their own
    """

    programs: Programs
    system: System
    levels: Fabric
    folding: Folding
    who: Members
    algorithm: str
    measured: bool = True

    def price(self, carrier: Carrier) -> CallTable:
        """Price every distinct (group class, collective, size, traffic) once; and which call each op row of each class
        makes."""
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
                slot_name = programs.slots[int(ops.slot[first + bad])]
                raise self._refused(rank_class, bad, f"uses slot '{slot_name}', which it has no group in")
            kind = ops.kind[first:last][rows]
            code = np.where(kind == COLLECTIVE, ops.collective[first:last][rows], len(ops.collectives))
            wrong = self._no_size(ops.bytes_B[first:last][rows], code)
            if wrong.any():
                bad = int(rows[int(np.argmax(wrong))])
                got = f"is of {ops.bytes_B[first + bad]:g} bytes; must be above 0 and finite"
                raise self._refused(rank_class, bad, got)
            exchange = ops.exchange[first:last][rows] if len(ops.exchange) else np.full(len(rows), -1)
            where.append(rows)
            what.append(np.stack([group, code, ops.bytes_B[first:last][rows], exchange], axis=1))
        keys = np.concatenate(what) if what else np.zeros((0, 4))
        distinct, inverse = _distinct(keys)
        wanted, bounds = self._priced_calls(distinct, (*ops.collectives, "send_recv"))
        laid, resources = carrier.place(wanted)
        calls = [
            Call(
                collective=priced.collective,
                algorithm=priced.algorithm,
                size_B=priced.size_B,
                phases=one.phases,
                latency_s=one.latency_s,
                ideal_s=one.ideal_s,
                sent_B=one.sent_B,
                bound=bound,
                note=priced.note,
            )
            for priced, one, bound in zip(wanted, laid, bounds, strict=True)
        ]
        call: list[Ints] = []
        at = 0
        for rank_class, rows in enumerate(where):
            program = int(programs.program[folding.first[rank_class]])
            column = np.full(int(programs.program_ptr[program + 1] - programs.program_ptr[program]), -1, np.int64)
            column[rows] = inverse[at : at + len(rows)]
            at += len(rows)
            call.append(column)
        return CallTable(calls, call, resources)

    def _no_size(self, size_B: Floats, code: Ints) -> NDArray[np.bool_]:
        """Sizes that cost nothing anybody could say; ``code`` into the names of collectives, send_recv last."""
        sizeless = np.array([*(name == "barrier" for name in self.programs.ops.collectives), False])[code]
        found: NDArray[np.bool_] = ~np.isfinite(size_B) | (size_B < 0) | ((size_B == 0) & ~sizeless)
        return found

    def _refused(self, rank_class: int, row: int, why: str) -> InputError:
        """An op of a class that has no price, with the file it is from; ``row`` of its program."""
        programs, rank = self.programs, int(self.folding.first[rank_class])
        at = int(programs.program_ptr[programs.program[rank]]) + row
        name = programs.ops.names[programs.ops.name_id[at]]
        return InputError(Problem(f"rank {rank}: op '{name}' {why}", file=programs.source))

    def _priced_calls(
        self, distinct: Floats, names: tuple[str, ...]
    ) -> tuple[list[PricedCall], list[tuple[float, float, float]]]:
        """One call for each row (group class, position in ``names``, size, traffic), and its lower bounds on the wire.
        [s]"""
        if not len(distinct):
            return [], []
        unknown = [name for name in names if name not in COLLECTIVES]
        if unknown:
            raise InputError(f"no collective named '{unknown[0]}'. Allowed: {', '.join(COLLECTIVES)}.")
        group_class = distinct[:, 0].astype(np.int64)
        size_B = distinct[:, 2]
        layout = self._layout()
        out: list[PricedCall | None] = [None] * len(distinct)
        bounds = [(0.0, 0.0, 0.0)] * len(distinct)
        codes = np.array([COLLECTIVES.index(name) for name in names])[distinct[:, 1].astype(np.int64)]
        for code in np.unique(codes):
            collective = COLLECTIVES[code]
            which = np.flatnonzero(codes == code)
            size, in_node, in_domain, in_leaf = layout[:, group_class[which]]
            # a leaf smaller than a domain sees the same traffic leave as the domain does
            rows = Rows(codes[which], size_B[which], size, in_node, in_domain, np.maximum(in_leaf, in_domain))
            small = small_sum(self.system.stack, collective, size_B[which]) & (size <= in_domain)
            wire = link(self.system, self.levels, collective, size, small)
            choice, said = self._choice(collective, rows, wire)
            bound_s = wire_bound_s(collective, rows, wire)
            inner = np.where(in_domain < size, in_domain, in_node).tolist()
            for i, row in enumerate(which.tolist()):
                out[row] = PricedCall(
                    group=int(group_class[row]),
                    collective=collective,
                    size_B=float(size_B[row]),
                    ranks=int(size[i]),
                    in_domain=int(in_domain[i]),
                    inner=inner[i],
                    traffic=int(distinct[row, 3]),
                    choice=choice,
                    row=i,
                    small=bool(small[i]),
                    note=said[i] if said else "",
                )
                bounds[row] = float(bound_s.port_s[i]), float(bound_s.nic_s[i]), float(bound_s.bisection_s[i])
        return [priced for priced in out if priced is not None], bounds

    def _choice(self, collective: str, rows: Rows, wire: Link) -> tuple[Choice, Sequence[str]]:
        """By the cheapest of formulas and library, a named one, or as the system's own library would; and what is to be
        said of each row, empty where that is nothing of any."""
        if collective in _FIXED:
            return choose(rows, wire, algorithm="best"), ()
        ours = {*NAMES, "hierarchical"} - {"none"}
        if self.algorithm in ours:
            return choose(rows, wire, algorithm=self.algorithm), ()
        if self.algorithm == "best" and not self.measured:
            return choose(rows, wire, algorithm="best"), ()
        # only where a library may be meant: reading its files takes longer than pricing
        from cmsim import libraries

        at = libraries.place_of(self.system)
        if self.algorithm == "best":
            choice = choose(rows, wire, algorithm="best")
            if not at.measured or collective not in libraries.PRICED:
                return choice, ()
            choice = libraries.cheaper(at, rows, wire, choice)
            return choice, libraries.notes(at, rows, choice.name_id >= len(NAMES))
        named = libraries.libraries()
        if self.algorithm in named:
            libraries.check(at, self.algorithm)
            if collective not in libraries.PRICED:
                return choose(rows, wire, algorithm="best"), ()
            return libraries.choose(at, rows, wire), libraries.notes(at, rows, np.ones(len(rows), bool))
        # the library of the system may have a name of its own for it
        pages = libraries.pages(at, collective, self.algorithm)
        if not pages:
            known = {"best", *ours, *named}
            raise InputError(f"unknown algorithm '{self.algorithm}'. {did_you_mean(self.algorithm, known, limit=80)}")
        return choose(rows, wire, algorithm=pages[0]), ()

    def _layout(self) -> Ints:
        """Of each group class its size, and the fewest neighbours that any member has in its node, domain and leaf: the
        member with most to send out sets the pace. Shape (4, group classes)."""
        who, folding = self.who, self.folding
        group = folding.group_class[folding.rank_class[who.rank], who.slot]
        layout = np.full((4, int(group.max()) + 1), np.iinfo(np.int64).max, np.int64)
        layout[0, group] = who.size  # groups of one class are of one size
        group, near = who.kinds(group)
        for row, column in zip(layout[1:], who.neighbours[near, 1:].T, strict=True):
            np.minimum.at(row, group, column)
        return layout


def _distinct(keys: Floats) -> tuple[Floats, Ints]:
    """The distinct rows of a table, sorted, and which of them each row is: as `np.unique` over axis 0, which compares
    rows byte by byte and takes four times as long.

    >>> _distinct(np.array([[2.0, 1.0], [1.0, 5.0], [2.0, 1.0]]))
    (array([[1., 5.],
           [2., 1.]]), array([1, 0, 1]))
    """
    code = np.zeros(len(keys), np.int64)
    for column in keys.T:
        values, part = np.unique(column, return_inverse=True)
        # numbers of rows so far stay below the number of rows, so that the product cannot overflow
        code = np.unique(code * len(values) + part, return_inverse=True)[1]
    _, first = np.unique(code, return_index=True)
    return keys[first], code


def notes_of(calls: Sequence[Call]) -> list[str]:
    """What is to be said of how calls were priced, by collective, each once."""
    by_collective = sorted((one for one in calls if one.note), key=lambda one: COLLECTIVES.index(one.collective))
    return [note for _, note in dict.fromkeys((one.collective, one.note) for one in by_collective)]


def receiving(programs: Programs) -> set[tuple[int, int]]:
    """(program, slot) pairs that receive: the second end of a channel."""
    ops = programs.ops
    row_program = np.repeat(np.arange(len(programs.program_ptr) - 1), np.diff(programs.program_ptr))
    return set(zip(row_program[ops.kind == RECV].tolist(), ops.slot[ops.kind == RECV].tolist(), strict=True))


def link(system: System, levels: Fabric, collective: str, ranks: Column, small: Column = False) -> Link:
    """What a collective runs on: latencies and rates of the fabric, software costs of the stack."""
    cost = call_cost(system.stack, collective, ranks, small)
    return Link(
        node_s=levels.node_s if cost.wire else 0.0,
        domain_s=levels.domain_s if cost.wire else 0.0,
        cluster_s=levels.cluster_s if cost.wire else 0.0,
        port_Bps=levels.port_Bps,
        uplink_Bps=levels.uplink_Bps,
        nic_Bps=levels.nic_Bps,
        leaf_Bps=levels.leaf_Bps,
        base_s=cost.base_s,
        step_s=cost.step_s,
        port_efficiency=cost.scale_up,
        nic_efficiency=cost.scale_out,
        in_network=levels.in_network_reduction & cost.in_network,
        grid=levels.grid,
    )
