"""What fails under a service: who is lost with a replica and tried again elsewhere, when it comes back, and what a
fault of the fabric slows meanwhile.

A replica stops as a whole, in the middle of a step: all of its ranks meet in every one. Of a cache that is lost the
prompt is computed anew, with what was answered, on a replica that is up; where none is, requests wait until one is
back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cmsim.serving.book import LOST, NEVER, WAITING
from cmsim.serving.costs import SLOWED
from cmsim.serving.transfers import Sending

if TYPE_CHECKING:
    from cmsim.serving.service import Service

#: load of a holder that is away: more than any has
AWAY = 1 << 40


@dataclass(frozen=True)
class Outage:
    """One failure.

    at_ps, back_ps  when it comes; when it is over, weights loaded    name  in words
    replicas  that are lost, (pool, number) each
    links     of a fault of the fabric: how much more of a port a byte takes; 0: it is none
    """

    at_ps: int
    back_ps: int
    name: str
    replicas: tuple[tuple[int, int], ...] = ()
    links: float = 0.0


class Outages:
    """Failures of a run, as they come.

    drops       who lost its cache ends    recomputed  tokens that were lost with a cache and are computed anew
    """

    def __init__(self, service: Service, plan: tuple[Outage, ...], *, drops: bool):
        self._service, self.plan, self._drops = service, plan, drops
        self._away = [[0] * len(line.replicas) for line in service.lines]
        self._slow = 0
        self.recomputed = 0
        #: caches that are whole and on their way, by request; who has no place to go to, in each pool
        self.moving: dict[int, Sending] = {}
        self.parked: list[dict[int, None]] = [{} for _ in service.lines]

    def begin(self) -> None:
        """Puts all of them on the clock."""
        for one in self.plan:
            self._service.at(one.at_ps, lambda one=one: self._comes(one))  # type: ignore[misc]
            self._service.at(one.back_ps, lambda one=one: self._over(one))  # type: ignore[misc]

    def _comes(self, one: Outage) -> None:
        if one.links:
            self._fault(1, one.links)
        lost: list[tuple[int, int]] = []
        sources: list[int] = []
        for pool, number in one.replicas:
            line = self._service.lines[pool]
            self._away[pool][number] += 1
            replica = line.replicas[number]
            lost += replica.fail(int(self._service.env.now))
            line.close(number)
            sources += [holder.number for holder in replica.holders]
        if len(self._service.lines) > 1:
            self._elsewhere()
            lost += self._on_their_way(sources)
        for who, tokens in lost:
            self._again(who, tokens)

    def _over(self, one: Outage) -> None:
        if one.links:
            self._fault(-1, 1.0)
        for pool, number in one.replicas:
            self._away[pool][number] -= 1
            if not self._away[pool][number]:
                self._service.lines[pool].open(number)
        for pool, waiting in enumerate(self.parked):
            if any(not many for many in self._away[pool]):
                self.parked[pool] = {}
                for who in waiting:
                    self._service.place(who, pool)

    def _fault(self, more: int, links: float) -> None:
        self._slow += more
        slow, now = (SLOWED if self._slow else 0), int(self._service.env.now)
        for line in self._service.lines:
            for replica in line.replicas:
                replica.fault(now, slow)
        if self._service.courier is not None:
            self._service.courier.slow = links if self._slow else 1.0

    def _on_their_way(self, sources: list[int]) -> list[tuple[int, int]]:
        """Whose cache is whole and was to come from a replica that is lost."""
        book = self._service.book
        found = [who for who, sending in self.moving.items() if sending.src in sources]
        for who in found:
            sending = self.moving.pop(who)
            self.parked[1].pop(who, None)
            sending.drop()
            book.tries[who] += 1  # what is told of its arrival is of before
            if book.outcome[who] == WAITING:
                self._service.lines[1].gone(sending.dst)
        return [(who, book.prompt[who] + book.generated[who]) for who in found]

    def _elsewhere(self) -> None:
        """Caches that were to go to a replica that is lost go to another, all of them again."""
        service = self._service
        line = service.lines[1]
        for sendings in (service.sendings, self.moving):
            for who, sending in sendings.items():
                if line.is_away(sending.dst) and service.book.outcome[who] == WAITING:
                    sending.dst = line.any_place(who)
                    sending.anew = True
                    if sendings is self.moving:
                        service.book.holder[who] = sending.dst

    def _again(self, who: int, tokens: int) -> None:
        """Somebody begins anew, or ends."""
        service, book = self._service, self._service.book
        if (sending := service.sendings.pop(who, None)) is not None:
            sending.drop()
            service.lines[1].gone(sending.dst)
        if book.outcome[who] != WAITING:
            return
        now = int(service.env.now)
        if tokens and self._drops:
            book.outcome[who], book.end[who] = LOST, now
            service.leaves(who, now)
            return
        if tokens:
            self.recomputed += tokens
            book.tries[who] += 1
            book.again[who] = book.cached[who] = 0
        book.moved[who] = book.holder[who] = NEVER
        book.fetched[who] = 0
        service.at(now, lambda: service.place(who, 0))


__all__ = ["AWAY", "Outage", "Outages"]
