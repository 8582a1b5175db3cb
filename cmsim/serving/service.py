"""The whole service on one clock: who comes is routed to a holder, and leaves with its last token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import simpy

from cmsim.serving.book import NEVER, REFUSED, TIMED_OUT, WAITING, Book
from cmsim.serving.holder import Holder
from cmsim.serving.pools import Moves, Pool
from cmsim.serving.prefixes import Beginnings, Homes, Prefixes
from cmsim.serving.questions import Questions
from cmsim.serving.replica import Replica

Routing = Literal["round_robin", "least_loaded", "prefix_aware"]

#: who comes goes before steps that end in the same picosecond, so that these see it
_COMES = 0
#: requests that a holder may have more than the one with the fewest, and times as many, and still be sent those whose
#: beginnings it has
_MORE, _TIMES = 1, 2
#: what one part tells another arrives no earlier than this [ps]
_SOON = 1


@dataclass(frozen=True)
class Rules:
    """routing    how a holder is chosen    patience_ps  after which a request is given up; none: never
    door_ps    what the host takes from a request's arrival until it waits to be batched [ps]
    token_ps   before that, of each token of its prompt, one request after the other [ps]
    singly     steps are done one by one, to hold jumps against
    """

    routing: Routing = "least_loaded"
    patience_ps: int | None = None
    door_ps: int = 0
    token_ps: int = 0
    singly: bool = False


@dataclass(frozen=True)
class Served:
    """A service that has served all there was.

    pools     replicas of each pool, in the order of the pools
    area_ps   requests in the service, over time: counted as they come and go [ps]
    """

    book: Book
    pools: tuple[tuple[Replica, ...], ...]
    area_ps: int
    end_ps: int


class _Call(simpy.Event):
    """Something that is done at a time; of a time those of a lower order first."""

    def __init__(self, env: simpy.Environment, at: int, order: int, what: Callable[[simpy.Event], None]):
        self.env = env
        self.callbacks = [what]
        self._value, self._ok, self._defused = None, True, True
        env.schedule(self, priority=order, delay=at - env.now)  # type: ignore[arg-type]


class _Line:
    """A pool and the choice of a holder in it."""

    def __init__(self, replicas: Sequence[Replica], rules: Rules, homes: Homes | None):
        self._homes = homes
        self.replicas = tuple(replicas)
        self.places = [(replica, holder) for replica in replicas for holder in replica.holders]
        self.loads = [0] * len(self.places)
        self._first = self.places[0][1].number
        self._turns = rules.routing == "round_robin"
        self._next = 0

    def choose(self, one: int) -> tuple[Replica, Holder]:
        loads = self.loads
        if self._homes is not None:
            least = min(loads)
            known = self._homes.of(one)
            at = loads.index(least) if known is None or loads[known] > max(least + _MORE, _TIMES * least) else known
            self._homes.put(one, at)
        elif self._turns:
            at = self._next
            self._next = (at + 1) % len(loads)
        else:
            at = loads.index(min(loads))
        loads[at] += 1
        return self.places[at]

    def of(self, number: int) -> tuple[Replica, Holder]:
        return self.places[number - self._first]

    def gone(self, number: int) -> None:
        self.loads[number - self._first] -= 1


class Service:
    """One run of a service.

    pools  one that does all, or one that prefills and one that decodes    moves  between two pools
    """

    def __init__(self, asked: Questions, pools: Sequence[Pool], rules: Rules, moves: Moves | None = None):
        self.asked, self.rules, self.pools, self.moves = asked, rules, tuple(pools), moves
        self.env = simpy.Environment(initial_time=0)
        self.book = Book.of(asked)
        self._lines: list[_Line] = []
        self._beginnings = None if asked.prefix is None else Beginnings(asked.prefix)
        first = 0
        for number, pool in enumerate(self.pools):
            replicas: list[Replica] = []
            for _ in range(pool.replicas):
                holders = [self._holder(pool, first + each, number) for each in range(pool.holders)]
                first += pool.holders
                replicas.append(self._replica(len(replicas) + 1000 * number, holders, pool, number))
            homes = None
            if rules.routing == "prefix_aware" and self._beginnings is not None and not number:
                homes = Homes(self._beginnings)
            self._lines.append(_Line(replicas, rules, homes))
        #: requests that come by themselves, and of each what comes after it
        self._first = (
            range(len(asked)) if asked.then is None else np.flatnonzero(self.book.column("arrival") >= 0).tolist()
        )
        self._then = None if asked.then is None else asked.then.tolist()
        self._think = None if asked.think_ps is None else asked.think_ps.tolist()
        #: when the host has read the prompts that came, and when the link of a holder is free again
        self._read = 0
        self._free: dict[int, int] = {}
        self._here = self._since = self._area = 0
        self._next = 0

    def _holder(self, pool: Pool, number: int, at: int) -> Holder:
        prefixes = None
        if pool.cached and self._beginnings is not None and at == 0:
            blocks = pool.cached // self.asked.block_tokens
            prefixes = Prefixes(self._beginnings, self.asked.block_tokens, blocks, self.book.prompt)
        return Holder(self.book, pool.limits, number, prefixes)

    def _replica(self, number: int, holders: Sequence[Holder], pool: Pool, at: int) -> Replica:
        two = len(self.pools) > 1
        return Replica(
            number,
            self.book,
            holders,
            pool.costs,
            self._later,
            self._prefilled if two and at == 0 else self._done,
            hands_over=two and at == 0,
            singly=self.rules.singly,
        )

    def _later(self, at: int, number: int, what: Callable[[simpy.Event], None]) -> None:
        _Call(self.env, at, 1 + number, what)

    def run(self) -> Served:
        """Serves everybody there is."""
        if self.asked.arrival_ps is None:
            for _ in range(min(self.asked.users, len(self.book))):
                self._ask(0)
        elif self._first:
            _Call(self.env, self.book.arrival[self._first[0]], _COMES, self._comes)
        self.env.run()
        # the clock may go on to times for which there is nothing to do any more
        return Served(self.book, tuple(line.replicas for line in self._lines), self._area, self._since)

    # who comes

    def _comes(self, _event: simpy.Event) -> None:
        """The next request of an open loop is there; the one behind it is waited for."""
        one = self._first[self._next]
        self._next += 1
        if self._next < len(self._first):
            _Call(self.env, self.book.arrival[self._first[self._next]], _COMES, self._comes)
        self._enter(one, self.book.arrival[one])

    def _turn(self, before: int, now: int) -> None:
        """Who has an answer, or none, thinks and goes on, where a conversation has a next turn."""
        if self._then is None or self._think is None or self._then[before] < 0:
            return
        one, at = self._then[before], now + max(self._think[before], _SOON)
        self.book.arrival[one] = at
        _Call(self.env, at, _COMES, lambda _: self._enter(one, at))

    def _ask(self, now: int) -> None:
        """A user of a closed loop asks the next question, where there is one."""
        if self._next < len(self.book):
            one = self._next
            self._next = one + 1
            self.book.arrival[one] = now
            _Call(self.env, now, _COMES, lambda _: self._enter(one, now))

    def _enter(self, one: int, now: int) -> None:
        self._count(now, 1)
        book, rules = self.book, self.rules
        if not all(pool.takes(book.prompt[one], book.output[one]) for pool in self.pools):
            book.outcome[one], book.end[one] = REFUSED, now
            self._gone(one, now)
            return
        if rules.patience_ps is not None:
            _Call(self.env, now + rules.patience_ps, _COMES, lambda _: self._out_of_patience(one))
        if rules.door_ps or rules.token_ps:
            self._read = max(self._read, now) + rules.token_ps * book.prompt[one]
            _Call(
                self.env, (self._read if rules.token_ps else now) + rules.door_ps, _COMES, lambda _: self._route(one, 0)
            )
        else:
            self._route(one, 0)

    def _route(self, one: int, pool: int) -> None:
        if self.book.outcome[one] == WAITING:
            replica, holder = self._lines[pool].choose(one)
            replica.arrive(one, holder, int(self.env.now))

    # who leaves

    def _done(self, one: int, holder: Holder, now: int, kept: int) -> None:  # noqa: ARG002
        self._lines[-1].gone(holder.number)
        self._gone(one, now)

    def _prefilled(self, one: int, holder: Holder, now: int, kept: int) -> None:
        """A prompt is done in a pool of its own: its cache moves, and the answer is made elsewhere."""
        self._lines[0].gone(holder.number)
        if self.book.outcome[one] != WAITING:  # its first token was its last
            self._gone(one, now)
            return
        assert self.moves is not None
        replica, other = self._lines[1].choose(one)
        self.book.holder[one] = other.number
        prefill_ps = now - self.book.scheduled[one]
        move_ps = self.book.prompt[one] * max(self.moves.token_ps)
        begins = max(now, self._free.get(holder.number, 0), self._free.get(other.number, 0))
        ends = max(begins + self.moves.exposed_ps(move_ps, prefill_ps) + self.moves.fixed_ps, now + _SOON)
        self._free[holder.number] = ends
        self._free[other.number] = ends
        _Call(self.env, ends, _COMES, lambda _: self._moved(one, holder, kept, replica, other, ends))

    def _moved(self, one: int, before: Holder, kept: int, replica: Replica, holder: Holder, now: int) -> None:
        before.blocks.take(-kept)
        self._lines[0].of(before.number)[0].wake(now)
        if self.book.outcome[one] == WAITING:
            self.book.moved[one] = now
            replica.arrive(one, holder, now)

    def _out_of_patience(self, one: int) -> None:
        book, now = self.book, int(self.env.now)
        if book.outcome[one] != WAITING:
            return
        number = book.holder[one]
        line = next((line for line in self._lines if 0 <= number - line.places[0][1].number < len(line.places)), None)
        if number != NEVER and line is not None:
            replica, holder = line.of(number)
            line.gone(number)
            replica.give_up(one, holder, now)
        book.outcome[one], book.end[one] = TIMED_OUT, now
        self._gone(one, now)

    def _gone(self, one: int, now: int) -> None:
        self._count(now, -1)
        if self.asked.arrival_ps is None:
            self._ask(now + _SOON)
        else:
            self._turn(one, now)

    def _count(self, now: int, more: int) -> None:
        """Little's law needs them counted apart from the book."""
        self._area += self._here * (now - self._since)
        self._since = now
        self._here += more
