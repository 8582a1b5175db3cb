"""Accelerators that are free, by machine, domain and host, and which of them a job is given.

A hall has machines, these domains (a supernode, a rack), these hosts; all three are counted through. A *take* is what a
job has: hosts of one machine, and how many accelerators of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cmsim.arrays import Ints
from cmsim.errors import InputError, Problem

#: than any place has
_MORE = 1 << 40


@dataclass(frozen=True)
class Floor:
    """A machine of the hall: its name, accelerators of each domain, and of a host."""

    name: str
    domains: tuple[int, ...]
    host: int

    @property
    def packages(self) -> int:
        return sum(self.domains)


def numbered(machines: Sequence[str], name: str, key: str) -> int:
    """The number of a machine. Raises InputError, with the key that named it, for one that there is not."""
    if name not in machines:
        raise InputError(Problem(f"got {name!r}. Allowed: {', '.join(machines)}", key=key))
    return machines.index(name)


@dataclass(frozen=True)
class Take:
    """hosts and many: of each so many accelerators; by domain as many in all"""

    machine: int
    hosts: Ints
    many: Ints
    domains: tuple[int, ...]
    by_domain: tuple[int, ...]

    @property
    def packages(self) -> int:
        return sum(self.by_domain)


def fill(free: Ints, need: int) -> tuple[Ints, Ints]:
    """The fewest places that hold ``need``, and how much of each: one with least to spare, else the emptiest.

    free: of each place, together enough

    >>> [one.tolist() for one in fill(np.array([4, 2, 3]), 2)], [one.tolist() for one in fill(np.array([4, 2, 3]), 6)]
    ([[1], [2]], [[0, 1], [4, 2]])
    """
    if need <= free.max():
        return np.array([_tightest(free, need)]), np.array([need])
    order = np.argsort(-free, kind="stable")
    sums = np.cumsum(free[order])
    whole = int(np.searchsorted(sums, need))  # places that are taken whole
    rest = need - int(sums[whole - 1])
    left = free.copy()
    left[order[:whole]] = 0
    last = _tightest(left, rest)
    return np.append(order[:whole], last), np.append(free[order[:whole]], rest)


def _tightest(free: Ints, need: int) -> int:
    return int(np.where(free >= need, free, _MORE).argmin())


class Hall:
    """What is free. Counts by host, by domain and by machine are kept in step."""

    def __init__(self, floors: Sequence[Floor], *, placement: str):
        self.floors = tuple(floors)
        self.placement = placement
        self.machine_of = np.repeat(np.arange(len(floors)), [len(one.domains) for one in floors])
        sizes = [many for one in floors for many in one.domains]
        per_host = [one.host for one in floors for _ in one.domains]
        hosts = [_hosts(many, host) for many, host in zip(sizes, per_host, strict=True)]
        self.size = np.concatenate(hosts)
        self.domain_of = np.repeat(np.arange(len(sizes)), [len(one) for one in hosts])
        self.free = self.size.copy()
        self.domain_size = np.array(sizes, np.int64)
        self.domain_free = self.domain_size.copy()
        self.machine_free = [one.packages for one in floors]
        #: how many reasons keep a host away
        self.away = np.zeros(len(self.size), np.int64)
        ends = np.cumsum([len(one) for one in hosts]).tolist()
        self._hosts_of = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        ends = np.cumsum([len(one.domains) for one in floors]).tolist()
        self.domains_of = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        self._spread = [self._even(m) for m in range(len(floors))] if placement == "scatter" else []

    def hosts_of(self, machine: int, domains: int | None = None) -> slice:
        """Hosts of a machine, or of its first domains."""
        its = self.domains_of[machine]
        last = its.stop if domains is None else min(its.start + domains, its.stop)
        return slice(self._hosts_of[its.start].start, self._hosts_of[last - 1].stop)

    def room(self, machine: int, need: int) -> bool:
        """Whether a job finds all its accelerators there, as placement goes."""
        if need > self.machine_free[machine]:
            return False
        return not self.inside(machine, need) or need <= self.domain_free[self.domains_of[machine]].max()

    def inside(self, machine: int, need: int) -> bool:
        """Whether it must lie in one domain: where it would fit into one, and is to wait for it."""
        return self.placement == "one_domain" and need <= self.domain_size[self.domains_of[machine]].max()

    def place(self, machine: int, need: int, *, without: int = -1) -> Take | None:
        """Where a job goes, None where there is no room. Nothing is taken yet. without: a domain to leave alone"""
        its = self.domains_of[machine]
        free = self.domain_free[its]
        if without >= 0:
            free = free.copy()
            free[without - its.start] = 0
        if need > free.sum() or (self.inside(machine, need) and need > free.max()):
            return None
        if self.placement == "scatter":
            return self._scattered(machine, need)
        picked, many = fill(free, need)
        hosts, of_each = [], []
        for domain, part in zip((picked + its.start).tolist(), many.tolist(), strict=True):
            at = self._hosts_of[domain]
            some, each = fill(self.free[at], part)
            hosts.append(some + at.start)
            of_each.append(each)
        return Take(
            machine,
            np.concatenate(hosts),
            np.concatenate(of_each),
            tuple((picked + its.start).tolist()),
            tuple(many.tolist()),
        )

    def _even(self, machine: int) -> Ints:
        """Hosts of a machine, the first of each domain, then the second of each."""
        at = self.hosts_of(machine)
        hosts = np.arange(at.start, at.stop)
        first = np.array([self._hosts_of[domain].start for domain in self.domain_of[at]])
        return hosts[np.argsort(hosts - first, kind="stable")]

    def _scattered(self, machine: int, need: int) -> Take:
        hosts = self._spread[machine]
        order = hosts[np.argsort(-self.free[hosts], kind="stable")]
        sums = np.cumsum(self.free[order])
        last = int(np.searchsorted(sums, need))
        some = order[: last + 1]
        many = self.free[some].copy()
        many[-1] -= int(sums[last]) - need
        domains = self.domain_of[some]
        which, where = np.unique(domains, return_inverse=True)
        by_domain = np.bincount(where, many).astype(np.int64)
        return Take(machine, some, many, tuple(which.tolist()), tuple(by_domain.tolist()))

    def take(self, take: Take) -> None:
        """From now on a job has it."""
        self.free[take.hosts] -= take.many
        for domain, many in zip(take.domains, take.by_domain, strict=True):
            self.domain_free[domain] -= many
        self.machine_free[take.machine] -= take.packages

    def give(self, take: Take) -> None:
        """A job gives back what it had; what is away meanwhile stays so."""
        there = self.away[take.hosts] == 0
        if there.all():
            self.free[take.hosts] += take.many
            for domain, many in zip(take.domains, take.by_domain, strict=True):
                self.domain_free[domain] += many
            self.machine_free[take.machine] += take.packages
        else:
            self._freed(take.machine, take.hosts[there], take.many[there])

    def leave(self, machine: int, hosts: Ints) -> int:
        """Hosts go away; nobody has anything of theirs. Accelerators that were there until now."""
        here = hosts[self.away[hosts] == 0]
        self._freed(machine, here, -self.free[here])
        self.away[hosts] += 1
        return int(self.size[here].sum())

    def come_back(self, machine: int, hosts: Ints) -> int:
        """Hosts are there again, unless another reason keeps them. Accelerators that were not there until now."""
        self.away[hosts] -= 1
        here = hosts[self.away[hosts] == 0]
        self._freed(machine, here, self.size[here])
        return int(self.size[here].sum())

    def _freed(self, machine: int, hosts: Ints, many: Ints) -> None:
        self.free[hosts] += many
        np.add.at(self.domain_free, self.domain_of[hosts], many)
        self.machine_free[machine] += int(many.sum())

    def scattered(self, machine: int) -> int:
        """Free accelerators of a machine that are not in its emptiest domain."""
        its = self.domains_of[machine]
        if its.stop - its.start == 1:
            return 0
        return self.machine_free[machine] - int(self.domain_free[its].max())


def _hosts(packages: int, host: int) -> Ints:
    """Accelerators of each host of a domain; the last may have fewer."""
    whole, rest = divmod(packages, host)
    return np.array([host] * whole + [rest] * (rest > 0), np.int64)
