"""The whole service on one clock: who comes is routed to a holder, and leaves with its last token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import simpy

from cmsim.serving.book import CANCELLED, NEVER, REFUSED, TIMED_OUT, WAITING, Book
from cmsim.serving.holder import Holder
from cmsim.serving.outages import AWAY, Outage, Outages
from cmsim.serving.pooled import DRIVES, MEMORY, Pooled, Tiers
from cmsim.serving.pools import Pool
from cmsim.serving.prefixes import Beginnings, Homes, Prefixes
from cmsim.serving.questions import Questions
from cmsim.serving.replica import Replica
from cmsim.serving.scaling import Scaler, Scaling
from cmsim.serving.transfers import Courier, Moves, Sending

Routing = Literal["round_robin", "least_loaded", "prefix_aware"]

#: who comes goes before steps that end in the same picosecond, so that these see it; links are between the two
_COMES, _STEPS = 0, 3
#: requests that a holder may have more than the one with the fewest, and times as many, and still be sent those whose
#: beginnings it has
_MORE, _TIMES = 1, 2
#: numbers of replicas that a pool may have
_POOL = 1_000_000
#: what one part tells another arrives no earlier than this [ps]
_SOON = 1


@dataclass(frozen=True)
class Rules:
    """routing    how a holder is chosen    patience_ps  after which a request is given up; none: never
    door_ps    what the host takes from a request's arrival until it waits to be batched [ps]
    token_ps   before that, of each token of its prompt, one request after the other [ps]
    singly     steps are done one by one, to hold jumps against
    outages    what fails meanwhile    drops  who lost its cache by it ends, and is not tried again
    """

    routing: Routing = "least_loaded"
    patience_ps: int | None = None
    door_ps: int = 0
    token_ps: int = 0
    singly: bool = False
    outages: tuple[Outage, ...] = ()
    drops: bool = False


@dataclass(frozen=True)
class Served:
    """A service that has served all there was.

    pools     replicas of each pool, in the order of the pools
    area_ps   requests in the service, over time: counted as they come and go [ps]
    moved_B   bytes of caches that were on links [B]    tiers  of a pool of caches
    scalers   of pools whose replicas come and go    recomputed  tokens that were lost with replicas
    """

    book: Book
    pools: tuple[tuple[Replica, ...], ...]
    area_ps: int
    end_ps: int
    moved_B: float = 0.0
    tiers: Tiers | None = None
    scalers: tuple[Scaler | None, ...] = ()
    recomputed: int = 0


class _Call(simpy.Event):
    """Something that is done at a time; of a time those of a lower order first."""

    def __init__(self, env: simpy.Environment, at: int, order: int, what: Callable[[simpy.Event], None]):
        self.env = env
        self.callbacks = [what]
        self._value, self._ok, self._defused = None, True, True
        env.schedule(self, priority=order, delay=at - env.now)  # type: ignore[arg-type]


class _Line:
    """A pool and the choice of a holder in it."""

    def __init__(
        self,
        replicas: Sequence[Replica],
        rules: Rules,
        homes: Homes | None,
        scaling: Scaling | None,
        later: Callable[[int, Callable[[], None]], None],
    ):
        self._homes = homes
        self.replicas = tuple(replicas)
        self.places = [(replica, holder) for replica in replicas for holder in replica.holders]
        self.loads = [0] * len(self.places)
        self._first = self.places[0][1].number
        self._turns = rules.routing == "round_robin"
        self._next = 0
        self._holders = len(replicas[0].holders)
        self._fails = bool(rules.outages)
        self.scaler = None if scaling is None else Scaler(scaling, self.loads, self._holders, later)

    def choose(self, one: int) -> tuple[Replica, Holder] | None:
        """Where a request goes; None where nobody is there."""
        if self._fails and min(self.loads) >= AWAY:
            return None
        loads = self.loads if self.scaler is None else self.loads[: self.scaler.open * self._holders]
        if self._homes is not None:
            least = min(loads)
            known = self._homes.of(one)
            away = known is None or known >= len(loads) or loads[known] > max(least + _MORE, _TIMES * least)
            at = loads.index(least) if away or known is None else known
            self._homes.put(one, at)
        elif self._turns:
            at = self._next % len(loads)
            while loads[at] >= AWAY:
                at = (at + 1) % len(loads)
            self._next = at + 1
        else:
            at = loads.index(min(loads))
        self.loads[at] += 1
        return self.places[at]

    def any_place(self, one: int) -> int:
        """The holder that is chosen, or, where nobody is there, the first one, to be asked again."""
        found = self.choose(one)
        if found is None:
            self.loads[0] += 1
            return self._first
        return found[1].number

    def close(self, replica: int) -> None:
        """It takes no requests, and has none any more."""
        first = replica * self._holders
        self.loads[first : first + self._holders] = [AWAY] * self._holders

    def open(self, replica: int) -> None:
        """It is back, with those that are on their way to it."""
        for at in range(replica * self._holders, (replica + 1) * self._holders):
            self.loads[at] -= AWAY

    def is_away(self, number: int) -> bool:
        return self.loads[number - self._first] >= AWAY

    def of(self, number: int) -> tuple[Replica, Holder]:
        return self.places[number - self._first]

    def gone(self, number: int) -> None:
        self.loads[number - self._first] -= 1


class Service:
    """One run of a service.

    pools  one that does all, or one that prefills and one that decodes    moves  between two pools
    pooled  a pool of caches, where there is one: its wires are those of moves
    beside  another one on the same clock and links, whose holders and replicas are counted before these
    """

    def __init__(
        self,
        asked: Questions,
        pools: Sequence[Pool],
        rules: Rules,
        moves: Moves | None = None,
        pooled: Pooled | None = None,
        beside: Service | None = None,
    ):
        self.asked, self.rules, self.pools, self.moves = asked, rules, tuple(pools), moves
        self.env: simpy.Environment = simpy.Environment(initial_time=0) if beside is None else beside.env
        self.book = Book.of(asked)
        self._classes = 1 if asked.priority is None else int(asked.priority.max(initial=0)) + 1
        self._quits = None if asked.quits_ps is None else asked.quits_ps.tolist()
        self.lines: list[_Line] = []
        self._beginnings = None if asked.prefix is None else Beginnings(asked.prefix)
        links = moves or pooled
        self.courier: Courier | None = None if beside is None else beside.courier
        if self.courier is None and links is not None:
            self.courier = Courier(self.env, links.wires)
        self._pooled, self._tiers = pooled, None
        if pooled is not None and self._beginnings is not None:
            self._tiers = Tiers(pooled, self._beginnings, asked.block_tokens)
        #: holders and numbers of replicas up to here, over all services
        self.holders: int
        self.numbers: int
        first, before = (0, 0) if beside is None else (beside.holders, beside.numbers)
        for number, pool in enumerate(self.pools):
            replicas: list[Replica] = []
            for _ in range(pool.replicas):
                holders = [self._holder(pool, first + each, number) for each in range(pool.holders)]
                first += pool.holders
                replicas.append(self._replica(before + len(replicas) + _POOL * number, holders, pool, number))
            homes = None
            if rules.routing == "prefix_aware" and self._beginnings is not None and not number:
                homes = Homes(self._beginnings)
            self.lines.append(_Line(replicas, rules, homes, pool.scaling, self._soon))
        self.holders, self.numbers = first, before + _POOL * len(self.pools)
        #: requests that come by themselves, and of each what comes after it
        self._first = (
            range(len(asked)) if asked.then is None else np.flatnonzero(self.book.column("arrival") >= 0).tolist()
        )
        self._then = None if asked.then is None else asked.then.tolist()
        self._think = None if asked.think_ps is None else asked.think_ps.tolist()
        #: caches on their way, by request
        self.sendings: dict[int, Sending] = {}
        #: when the host has read the prompts that came
        self._read = 0
        self._here = self._since = self._area = self._ended = 0
        self._next = 0
        self._outages = Outages(self, rules.outages, drops=rules.drops) if rules.outages else None

    def _holder(self, pool: Pool, number: int, at: int) -> Holder:
        prefixes = None
        if pool.cached and self._beginnings is not None and at == 0:
            blocks = pool.cached // self.asked.block_tokens
            prefixes = Prefixes(self._beginnings, self.asked.block_tokens, blocks, self.book.prompt)
            if self.asked.warm:
                prefixes.warm(0)
        return Holder(self.book, pool.limits, number, prefixes, self._classes, self.asked.block_tokens)

    def _replica(self, number: int, holders: Sequence[Holder], pool: Pool, at: int) -> Replica:
        two = len(self.pools) > 1
        return Replica(
            number,
            self.book,
            holders,
            pool.costs,
            self._later,
            self._prefilled if two and at == 0 else self._done,
            streams=self._streamed if two and at == 0 else None,
            computed=self._computed if self._tiers is not None and at == 0 else None,
            singly=self.rules.singly,
        )

    def _later(self, at: int, number: int, what: Callable[[simpy.Event], None]) -> None:
        _Call(self.env, at, _STEPS + number, what)

    def run(self) -> Served:
        """Serves everybody there is."""
        self.begin()
        self.env.run()
        return self.served()

    def begin(self) -> None:
        """Puts those who come first on the clock."""
        if self.asked.arrival_ps is None:
            for _ in range(min(self.asked.users, len(self.book))):
                self._ask(0)
        elif self._first:
            _Call(self.env, self.book.arrival[self._first[0]], _COMES, self._comes)
        for line, pool in zip(self.lines, self.pools, strict=True):
            if line.scaler is not None and pool.scaling is not None:
                self._looks(line.scaler, pool.scaling.every_ps)
        if self._outages is not None:
            self._outages.begin()

    def served(self) -> Served:
        """What it did, when nothing is left on the clock."""
        # the clock may go on to times for which there is nothing to do any more
        moved_B = 0.0 if self.courier is None else self.courier.tally.moved_B
        return Served(
            self.book,
            tuple(line.replicas for line in self.lines),
            self._area,
            self._since,
            moved_B,
            self._tiers,
            tuple(line.scaler for line in self.lines),
            0 if self._outages is None else self._outages.recomputed,
        )

    def at(self, at_ps: int, what: Callable[[], None]) -> None:
        """Something is done at a time, which is now at the earliest."""
        self._soon(at_ps - int(self.env.now), what)

    def _soon(self, after_ps: int, what: Callable[[], None]) -> None:
        _Call(self.env, int(self.env.now) + max(after_ps, _SOON), _COMES, lambda _: what())

    def _looks(self, scaler: Scaler, every_ps: int) -> None:
        """Looks at the load again and again, until everybody has gone."""
        if self._ended < len(self.book):
            scaler.look(int(self.env.now))
            self._soon(every_ps, lambda: self._looks(scaler, every_ps))

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
            at = self.book.arrival[one] = max(now, one * self.asked.gap_ps)
            _Call(self.env, at, _COMES, lambda _: self._enter(one, at))

    def _enter(self, one: int, now: int) -> None:
        self._count(now, 1)
        book, rules = self.book, self.rules
        if not all(pool.takes(book.prompt[one], book.output[one]) for pool in self.pools):
            book.outcome[one], book.end[one] = REFUSED, now
            self.leaves(one, now)
            return
        if rules.patience_ps is not None:
            _Call(self.env, now + rules.patience_ps, _COMES, lambda _: self._gives_up(one, TIMED_OUT))
        if self._quits is not None and self._quits[one] >= 0:
            _Call(self.env, now + self._quits[one], _COMES, lambda _: self._gives_up(one, CANCELLED))
        if rules.door_ps or rules.token_ps:
            self._read = max(self._read, now) + rules.token_ps * book.prompt[one]
            at = (self._read if rules.token_ps else now) + rules.door_ps
            _Call(self.env, at, _COMES, lambda _: self._route(one))
        else:
            self._route(one)

    def _route(self, one: int) -> None:
        if self.book.outcome[one] == WAITING:
            found = self.lines[0].choose(one)
            if found is None:
                self._park(one, 0)
                return
            replica, holder = found
            if self._tiers is not None:
                self._fetch(one, replica, holder)
            replica.arrive(one, holder, int(self.env.now))

    def _park(self, one: int, pool: int) -> None:
        """Nobody is there who could take it."""
        assert self._outages is not None
        self._outages.parked[pool][one] = None

    def place(self, one: int, pool: int) -> None:
        """Somebody who lost its place, or had none, is given one."""
        if pool == 0:
            self._route(one)
            return
        assert self._outages is not None
        sending = self._outages.moving.get(one)
        if sending is not None:
            sending.told()

    def _fetch(self, one: int, replica: Replica, holder: Holder) -> None:
        """What its holder lacks of a prompt comes from the pool of caches, layer by layer while it is computed."""
        book, tiers, pooled, courier = self.book, self._tiers, self._pooled, self.courier
        assert tiers is not None and pooled is not None and courier is not None
        has = 0 if holder.prefixes is None else holder.prefixes.known(one)
        most = book.prompt[one] - 1 - has * self.asked.block_tokens
        found = tiers.found(one, has, max(most, 0))
        left = [tier for tier in (MEMORY, DRIVES) if found[tier]]
        if not left:
            return
        book.fetched[one] = has * self.asked.block_tokens + sum(found)
        replica.awaited.add(one)
        tries = book.tries[one]

        def there() -> None:
            left.pop()
            if not left and book.tries[one] == tries:
                at = int(self.env.now) + _SOON
                _Call(self.env, at, _COMES, lambda _: replica.fetched(one, at))

        for tier in list(left):
            courier.fetch(tier, holder.number, found[tier] * pooled.token_B, there)

    def _computed(self, one: int, holder: Holder) -> None:
        """What the pool of caches has not of a prompt goes there, and is there when it has come."""
        tiers, pooled, courier = self._tiers, self._pooled, self.courier
        assert tiers is not None and pooled is not None and courier is not None
        if news := tiers.news(one):
            courier.put(holder.number, news * pooled.token_B, lambda: tiers.put(one))

    # who leaves

    def _done(self, one: int, holder: Holder, now: int, kept: int) -> None:  # noqa: ARG002
        self.lines[-1].gone(holder.number)
        self.leaves(one, now)

    def _streamed(self, one: int, holder: Holder, tokens: int, now: int, takes_ps: int) -> None:
        """A chunk of a prompt is computed from now on; its cache is sent on, and somebody chosen who gets it."""
        book = self.book
        if book.output[one] - book.generated[one] == 1:  # its next token is its last
            return
        sending = self.sendings.get(one)
        if sending is None:
            assert self.moves is not None and self.courier is not None
            sending = Sending(self.courier, self.moves, holder.number, self.lines[1].any_place(one))
            self.sendings[one] = sending
            sending.whole(book.cached[one], now)
        sending.chunk(tokens, now, takes_ps)

    def _prefilled(self, one: int, holder: Holder, now: int, kept: int) -> None:
        """A prompt is done in a pool of its own: the rest of its cache moves, and the answer is made elsewhere."""
        self.lines[0].gone(holder.number)
        if self.book.outcome[one] != WAITING:  # its first token was its last
            self.leaves(one, now)
            return
        sending = self.sendings.pop(one)
        self.book.holder[one] = sending.dst
        if self._outages is not None:
            self._outages.moving[one] = sending
        tries = self.book.tries[one]
        sending.close(now, lambda: self._arrives(one, holder, kept, sending, tries))

    def _arrives(self, one: int, before: Holder, kept: int, sending: Sending, tries: int) -> None:
        """The last of a cache is there; who batches hears of it."""
        at = int(self.env.now) + _SOON
        _Call(self.env, at, _COMES, lambda _: self._moved(one, before, kept, sending, tries, at))

    def _moved(self, one: int, before: Holder, kept: int, sending: Sending, tries: int, now: int) -> None:
        book = self.book
        if book.tries[one] != tries:  # where it came from is lost, and it is tried again
            return
        gone = self._outages is not None and (sending.anew or self.lines[1].is_away(sending.dst))
        if gone and book.outcome[one] == WAITING:
            self._sends_again(one, sending, now)
            return
        if self._outages is not None:
            self._outages.moving.pop(one, None)
        before.release(one, kept, now)
        self.lines[0].of(before.number)[0].wake(now)
        if book.outcome[one] == WAITING:
            book.moved[one] = now
            replica, holder = self.lines[1].of(sending.dst)
            replica.arrive(one, holder, now)

    def _sends_again(self, one: int, sending: Sending, now: int) -> None:
        """Where a cache was to go is lost: all of it goes elsewhere, or waits until somebody is there."""
        line = self.lines[1]
        if line.is_away(sending.dst):
            line.gone(sending.dst)
            sending.dst = self.book.holder[one] = line.any_place(one)
        sending.anew = line.is_away(sending.dst)
        if sending.anew:
            self._park(one, 1)
            return
        sending.whole(self.book.prompt[one] + self.book.generated[one], now)

    def _gives_up(self, one: int, outcome: int) -> None:
        book, now = self.book, int(self.env.now)
        if book.outcome[one] != WAITING:
            return
        number = book.holder[one]
        line = next((line for line in self.lines if 0 <= number - line.places[0][1].number < len(line.places)), None)
        if number != NEVER and line is not None:
            replica, holder = line.of(number)
            line.gone(number)
            replica.give_up(one, holder, now, outcome)
            if line is self.lines[0] and (sending := self.sendings.pop(one, None)) is not None:
                sending.drop()
                self.lines[1].gone(sending.dst)
        book.outcome[one], book.end[one] = outcome, now
        self.leaves(one, now)

    def leaves(self, one: int, now: int) -> None:
        self._count(now, -1)
        self._ended += 1
        if self.asked.arrival_ps is None:
            self._ask(now + _SOON)
        else:
            self._turn(one, now)

    def _count(self, now: int, more: int) -> None:
        """Little's law needs them counted apart from the book."""
        self._area += self._here * (now - self._since)
        self._since = now
        self._here += more
