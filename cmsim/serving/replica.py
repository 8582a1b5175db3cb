"""One copy of a model at work: holders that step together, event by event.

All holders of a replica meet in every step (in the exchange with experts), so that the fullest sets the pace: of
attention a step takes what it takes with as many sequences everywhere as the busiest has, and as many cached tokens as
the fullest. Experts work on what all holders have together.

Between two events nothing changes. Steps that only decode are done in one jump: to the first sequence that ends, to the
step for which a cache has no room, or to the end of the step in which somebody comes who can be begun. A jump takes
exactly what its steps take one by one (`StepRow`).
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

import numpy as np

from cmsim.serving.blocks import ENDLESS
from cmsim.serving.book import DONE, NEVER, WAITING, Book
from cmsim.serving.costs import Costs, Joules, StepRow
from cmsim.serving.holder import Holder
from cmsim.serving.pace import pace
from cmsim.serving.record import StepLog

#: (time, number of the replica, what to do): puts something on the clock
Later = Callable[[int, int, Callable[[object], None]], None]
#: told of each request that leaves: who, from where, now, blocks that stay taken until its cache has moved
Leaves = Callable[[int, Holder, int, int], None]
#: told of each chunk of a prompt as its step begins: who, where, tokens, now, how long the step takes [ps]
Streams = Callable[[int, Holder, int, int, int], None]

_RESTS, _MIXED, _PROMPTS, _JUMPS = range(4)


class Replica:
    """See the module.

    number   among all, by which ties are broken    holders  its schedulers
    singly   steps are done one by one; to hold jumps against
    computed  is told of each prompt that is computed for the first time
    streams   who sends caches on while prompts are computed: requests leave with their first token then, to be decoded
              elsewhere
    """

    def __init__(
        self,
        number: int,
        book: Book,
        holders: Sequence[Holder],
        costs: Costs,
        later: Later,
        leaves: Leaves,
        *,
        streams: Streams | None = None,
        computed: Callable[[int, Holder], None] | None = None,
        singly: bool = False,
    ):
        self.number, self.book, self.holders, self.costs = number, book, tuple(holders), costs
        self._later, self._leaves, self._streams, self._singly = later, leaves, streams, singly
        self._computed = computed
        self.record = StepLog()
        #: whose cache is on its way from a pool of caches: a step that computes their prompts waits for the last layer
        self.awaited: set[int] = set()
        self._stalled = False
        self._does, self._turn, self._step = _RESTS, 0, 0
        #: (step after which somebody has its last token, who, when it began to decode), and the last two of who decodes
        self._ends: list[tuple[int, int, int]] = []
        self._since: dict[int, tuple[int, Holder]] = {}
        #: holders where something is to be done of prompts; where something changed
        self._active: dict[int, Holder] = {}
        self._changed: dict[int, Holder] = {}
        #: of each holder the step before which its cache has room
        self._safe = [ENDLESS] * len(self.holders)
        self._first = self.holders[0].number
        #: sequences and cached tokens that set the pace, and since which step; sequences of a holder in the mean, where
        #: steps go with it
        self._fullest = pace(self.holders)
        self._pace = self._context = self._at = self._mean = 0
        #: what runs: when it began; of a jump the sums and where in them, and how many steps
        self._began = self._from = self._many = 0
        self._sums = array("q")
        #: added to the pace of steps under a fault, from the next one on; rows of the record before the step that runs
        self._slow = self._slow_next = self._rows = 0
        #: steps of prompts alone since the last token: who waited, and how long [ps]
        self._pauses: list[tuple[int, int]] = []

    @property
    def steps_done(self) -> int:
        """Steps that are over."""
        return self._step

    # what comes from outside

    def arrive(self, one: int, holder: Holder, now: int) -> None:
        """Somebody waits from now on."""
        self.book.holder[one] = holder.number
        holder.waiting.append(one)
        self._active[holder.number] = holder
        if self._does == _JUMPS:
            if holder.waiting.first == one or holder.limits.gather_steps:
                self._cut(now, holder)
        else:
            self.wake(now)

    def give_up(self, one: int, holder: Holder, now: int, outcome: int) -> None:
        """Somebody waits no longer, whether it was begun or not."""
        first = holder.waiting.first == one
        begun = holder.give_up(one, now, outcome)
        if begun:
            self._active[holder.number] = holder
        if self._does == _JUMPS and (begun or first):  # the one behind the first may be smaller
            self._cut(now, None if begun else holder)

    def fetched(self, one: int, now: int) -> None:
        """A cache has come from the pool of caches; a step that was done but for it ends."""
        self.awaited.discard(one)
        if self._stalled and not self._waits():
            self._stalled = False
            self._next(now)

    def _waits(self) -> bool:
        """Whether the step that runs computes a prompt whose cache is on its way."""
        awaited = self.awaited
        return any(one in awaited for holder in self._active.values() for one, _ in holder.chunks)

    def fault(self, now: int, slow: int) -> None:
        """From the next step on steps have so much added to their pace: those under a fault cost more."""
        self._slow_next = slow
        if self._does == _JUMPS:
            self._cut(now, None)

    def fail(self, now: int) -> list[tuple[int, int]]:
        """It stops in the middle of a step, and nothing is left of it: who was here, and how many of its tokens were
        computed."""
        took_ps = now - self._began
        if self._does == _JUMPS:
            sums, first = self._sums, self._from
            steps = bisect_right(sums, sums[first] + took_ps, first, first + self._many + 1) - 1 - first
            self._step += steps
            if steps and self._pauses:
                self._resume(*self._one(first, sums))
            elif steps:
                self.record.jump(self._pace + self._slow, self._mean, first, steps, len(self._since), self._began)
            self._end(now)
        elif self._does != _RESTS:
            self.record.stopped(self._rows, self._began, took_ps)
        gone, lost = [pair for holder in self.holders for pair in holder.fail(self._step, now)], self.book.lost
        for one, _ in gone:
            lost[one] = now if one in self._since else self.record.forget(one, lost[one])
            self._lose(one)
        self._turn += 1
        self._does, self._stalled, self._at = _RESTS, False, self._step
        self._ends, self._since, self._active, self._changed = [], {}, {}, {}
        self._safe = [ENDLESS] * len(self.holders)
        self._fullest = pace(self.holders)
        self._pace = self._context = self._mean = 0
        self._pauses.clear()
        self.awaited.clear()
        return gone

    def wake(self, now: int) -> None:
        """Looks at what there is to do, where nothing is done."""
        if self._does == _RESTS:
            self._next(now)

    def _next(self, at: int) -> None:
        """The next boundary; one that was set before is none any more."""
        self._turn += 1
        turn = self._turn
        self._later(at, self.number, lambda _: self._boundary(at) if turn == self._turn else None)

    def _cut(self, now: int, holder: Holder | None) -> None:
        """The jump that runs ends with the step that is running now, where that lets somebody begin."""
        sums, first = self._sums, self._from
        steps = max(bisect_left(sums, sums[first] + now - self._began, first, first + self._many + 1) - first, 1)
        if holder is not None and holder.limits.gated:
            steps = holder.opens(self._step + steps) - self._step
        if steps < self._many and (holder is None or holder.could_begin(self._step + steps)):
            self._many = steps
            self._next(self._began + sums[first + steps] - sums[first])

    # steps

    def _boundary(self, now: int) -> None:
        """A step, or a jump of steps, is over: who is done leaves, and the next one begins."""
        if self._does == _JUMPS:
            self._step += self._many
            if self._pauses:
                self._resume(*self._one(self._from, self._sums))
            else:
                self.record.jump(
                    self._pace + self._slow, self._mean, self._from, self._many, len(self._since), self._began
                )
        elif self._does != _RESTS:
            if self.awaited and self._waits():
                self._stalled = True
                return
            self.record.took(now - self._began)
            if self._does == _MIXED:
                self._step += 1
            elif self._since:
                self._pauses.append((len(self._since), now - self._began))
        self._end(now)
        for holder in list(self._active.values()):
            if holder.chunks:
                self._chunks_done(holder, now)
            for one in holder.failing:
                self._lose(one)
                holder.leave(one, self._step, now)
                self._changed[holder.number] = holder
            holder.failing = []
        self._begin(now)

    def _end(self, now: int) -> None:
        """Those that have their last token leave."""
        ends, since, outcome = self._ends, self._since, self.book.outcome
        while ends and ends[0][0] <= self._step:
            _, one, began = heapq.heappop(ends)
            found = since.get(one)
            if found is not None and found[0] == began and outcome[one] == WAITING:
                del since[one]
                self._finish(one, found[1], now)

    def _finish(self, one: int, holder: Holder, now: int) -> None:
        book = self.book
        holder.leave(one, self._step, now)
        self._changed[holder.number] = holder
        book.generated[one] = book.output[one]
        book.outcome[one], book.end[one] = DONE, now
        self._leaves(one, holder, now, 0)

    def _chunks_done(self, holder: Holder, now: int) -> None:
        book = self.book
        for one, tokens in holder.chunks:
            left = holder.prefilling[one] = holder.prefilling[one] - tokens
            if left:
                continue
            del holder.prefilling[one]
            if book.outcome[one] != WAITING:  # given up while the step ran, and leaves with it
                continue
            book.generated[one] += 1
            if book.prefilled[one] == NEVER:
                book.prefilled[one] = now
                if self._computed is not None:
                    self._computed(one, holder)
            else:
                self.record.resumed(one, now, max(book.prefilled[one], book.lost[one]))
            if book.generated[one] >= book.output[one]:
                self._finish(one, holder, now)
            elif self._streams is not None:
                self._changed[holder.number] = holder
                self._leaves(one, holder, now, holder.leave(one, self._step, now, keep=True))
            else:
                holder.start(one, self._step)
                self._decodes(one, holder)
        holder.chunks = []

    def _decodes(self, one: int, holder: Holder) -> None:
        """From this step on."""
        self._since[one] = self._step, holder
        self._changed[holder.number] = holder
        heapq.heappush(self._ends, (self._step + self.book.output[one] - self.book.generated[one], one, self._step))

    def _lose(self, one: int) -> None:
        """Somebody decodes no longer, and has what it made."""
        found = self._since.pop(one, None)
        if found is not None:
            self.book.generated[one] += self._step - found[0]

    def _begin(self, now: int) -> None:
        """The next step, or jump of steps."""
        tokens = pairs = copies_ps = every = 0
        crowded = self._make_room(now)
        for number, holder in list(self._active.items()):
            holder.schedule(now, self._step, admit=number not in crowded)
            if holder.chunks:
                self._changed[number] = holder
                every += holder.tokens
                if (holder.tokens, holder.pairs) > (tokens, pairs):
                    tokens, pairs = holder.tokens, holder.pairs
            for one in holder.came:
                self.record.joined(one, now, max(self.book.prefilled[one], self.book.lost[one]))
                self._decodes(one, holder)
            if holder.copied:
                copies_ps = max(copies_ps, holder.copied * holder.limits.swap_ps)
                holder.copied = 0
            if holder.at_rest:
                del self._active[number]
        self._keep_pace()
        self._began, self._slow, self._rows = now, self._slow_next, len(self.record.mixed) // 3
        if tokens or copies_ps:
            alone = self.costs.alone and tokens > 0
            self._does = _PROMPTS if alone else _MIXED
            time_ps, joules = self._mixed(tokens, pairs, every)
            time_ps += copies_ps
            if self._pauses and not alone:
                self._resume(time_ps, joules)
            else:
                self.record.mix(time_ps, 0 if alone else len(self._since), joules, now)
            if self._streams is not None:
                for holder in self._active.values():
                    for one, part in holder.chunks:
                        self._streams(one, holder, part, now, time_ps)
            self._next(now + time_ps)
        elif self._since:
            self._does = _JUMPS
            self._jump(now, single=bool(crowded or self._pauses) or self._singly)
        else:
            self._does = _RESTS
            self._pauses.clear()

    def _resume(self, step_ps: int, joules: Joules) -> None:
        """A step after steps of prompts alone, for which those that decode waited: the longer, the longer they are."""
        wait_ps, done = sum(time_ps for _, time_ps in self._pauses), 0
        for there, time_ps in self._pauses:
            waited = max(min(there, len(self._since)) - done, 0)
            self.record.mix(step_ps + wait_ps, waited, (0.0, 0.0, 0.0), self._began - wait_ps)
            done, wait_ps = max(done, there), wait_ps - time_ps
        self.record.mix(step_ps, max(len(self._since) - done, 0), joules, self._began)
        self._pauses.clear()

    def _mixed(self, tokens: int, pairs: int, every: int) -> tuple[int, Joules]:
        """One step by itself, with prompts or without; ``every``: tokens of prompts of all holders."""
        if tokens:
            decode, there = (0, 0) if self.costs.alone else (self._pace, len(self._since))
            evenness = min((every + there) / ((tokens + decode) * len(self.holders)), 1.0)
            return self.costs.mixed(decode + self._slow, self._context if decode else 0, tokens, pairs, evenness)
        if not self._since:
            return 1, (0.0, 0.0, 0.0)
        return self._one(self._context, self._row().upto(self._context + 1))

    def _row(self) -> StepRow:
        return self.costs.row(self._pace + self._slow, self._mean)

    def _one(self, at: int, sums: array[int]) -> tuple[int, Joules]:
        """One step that only decodes."""
        joules = self._row().joules(np.array([at]), np.array([at + 1]))
        low, middle, high = joules[:, 0].tolist()
        return sums[at + 1] - sums[at], (low, middle, high)

    def _make_room(self, now: int) -> dict[int, Holder]:
        """Preempts where a cache has no room for the next step; holders of which somebody was.

        Since it was last asked how long there is room nobody took more: a prompt that is done has its blocks already.
        """
        step, safe, out = self._step, self._safe, {}
        if min(safe) <= step:
            for at, holder in enumerate(self.holders):
                if safe[at] <= step:
                    gone = holder.make_room(step, now)
                    for one in gone:
                        self._lose(one)
                        self.record.preempted(one, now)
                    if gone:
                        out[holder.number] = self._changed[holder.number] = self._active[holder.number] = holder
                    else:
                        safe[at] = step + holder.blocks.sure(step)
        return out

    def _keep_pace(self) -> None:
        """Between changes the fullest holder stays the fullest, and each step adds a token to all of its sequences."""
        step = self._step
        if self._changed:
            for holder in self._changed.values():
                self._safe[holder.number - self._first] = step + holder.blocks.sure(step)
            self._pace, self._context = self._fullest.of(self._changed.values(), step)
            self._mean = -(-len(self._since) // len(self.holders)) if self.costs.shared else self._pace
            self._changed.clear()
        else:
            self._context += step - self._at
        self._at = step

    def _jump(self, now: int, *, single: bool) -> None:
        step, ends = self._step, self._ends
        while (found := self._since.get(ends[0][1])) is None or found[0] != ends[0][2]:  # it left before its end
            heapq.heappop(ends)
        most = 1 if single else ends[0][0] - step
        for holder in self._active.values():
            if holder.limits.gated and (opens := holder.opens(step)) > step:
                most = min(most, opens - step)
        safe = self._safe
        if min(safe) < step + most:
            for at, holder in enumerate(self.holders):
                if safe[at] < step + most:
                    most = holder.blocks.fits(step, most)
                    safe[at] = step + most
        self._from, self._many = self._context, most
        self._sums = sums = self._row().upto(self._context + most)
        self._next(now + sums[self._context + most] - sums[self._context])
