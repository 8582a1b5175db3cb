"""One scheduler with a cache of its own: who waits, who is prefilled, who decodes.

A holder is a rank with data-parallel attention, a tensor group otherwise. It batches as vLLM's scheduler does: those
that decode go first, then prompts that are begun, then waiting ones in their order, as far as tokens of a step,
sequences and blocks of the cache suffice. Blocks of a whole prompt are taken when it is begun. Where those that decode
need a block and none is free, the one that was begun last, of the lowest priority there, gives its blocks back, and
goes before all others of its priority that wait. It is prefilled again, with what it had made; or its cache goes to the
memory of the host and comes back, and the steps of both wait for that.

Full blocks of beginnings that are kept are held once, however many sequences have them; attention reads them for each.
Those that nobody has stay in what is free, and go before anything else does.

Some engines look at those that come once in some steps, or let them wait for others: `Holder.opens`.
"""

from __future__ import annotations

from dataclasses import dataclass

from cmsim.serving.blocks import PagedCache
from cmsim.serving.book import NEVER, WAITING, Book
from cmsim.serving.prefixes import Prefixes
from cmsim.serving.waiting import Waiting


@dataclass(frozen=True)
class Limits:
    """Of a holder.

    step_tokens  of prompts and sequences together in one step    sequences  that are begun at once
    blocks       of the cache, of ``block_tokens`` tokens    spare  blocks that no new prompt may take
    swap_ps      of a token to the host's memory, or back; 0: who loses its blocks is prefilled again [ps]
    whole        prompts are cut only where no step could hold them
    answers      a request is begun only where the cache has room for its whole answer too, beside those of all begun
    poll_steps   beside sequences that decode, those that come are looked at once in so many steps
    gather_steps, gather_tokens   or wait so many steps, or until they and those that decode have so many tokens
    """

    step_tokens: int
    sequences: int
    blocks: int
    block_tokens: int = 16
    spare: int = 0
    swap_ps: int = 0
    whole: bool = False
    answers: bool = False
    poll_steps: int = 1
    gather_steps: int = 0
    gather_tokens: int = 0

    @property
    def gated(self) -> bool:
        """Whether those that come may have to wait for a step."""
        return self.poll_steps > 1 or self.gather_steps > 0


class Holder:
    """See the module.

    decoding    who decodes -> cached tokens less the number of steps done    offsets  their sum
    prefilling  who is begun -> tokens of its prompt that are left
    begun       all of these -> blocks that do not grow, the last one last    failing  who gave up while it was begun
    chunks      (who, tokens) of the step that runs, ``tokens`` and ``pairs`` together    came  who decodes without them
    promised    blocks that all begun may come to have, where whole answers have to have room
    swapped     whose cache is in the host's memory    copied  tokens that go there or come back in the step that begins
    """

    __slots__ = (
        *("begun", "blocks", "book", "came", "chunks", "decoding", "failing", "limits", "number", "offsets", "pairs"),
        *("_classes", "_gathering", "_priority", "copied", "prefilling", "prefixes", "promised", "swapped", "tokens"),
        *("_each", "_prefix_tokens", "_shares", "waiting"),
    )

    def __init__(
        self,
        book: Book,
        limits: Limits,
        number: int,
        prefixes: Prefixes | None = None,
        classes: int = 1,
        prefix_tokens: int = 0,
    ):
        self.book, self.limits, self.number, self.prefixes = book, limits, number, prefixes
        #: blocks of the cache in one of a beginning, as far as they fit into it whole; who has such, and how many
        self._prefix_tokens = prefix_tokens
        self._each = 0 if prefix_tokens % limits.block_tokens else prefix_tokens // limits.block_tokens
        self._shares: dict[int, int] = {}
        self._priority = book.priority if classes > 1 else None
        self._classes = classes
        self.waiting = Waiting(self._priority, classes)
        self.swapped: set[int] = set()
        self.prefilling: dict[int, int] = {}
        self.decoding: dict[int, int] = {}
        self.begun: dict[int, int] = {}
        self.failing: list[int] = []
        self.came: list[int] = []
        self.blocks = PagedCache(limits.blocks, limits.block_tokens)
        self.offsets = self.tokens = self.pairs = self.copied = self.promised = 0
        #: the step since which those that wait are gathered
        self._gathering = -1
        self.chunks: list[tuple[int, int]] = []

    @property
    def at_rest(self) -> bool:
        """Whether nothing is to be done but to go on decoding."""
        return not self.waiting and not self.prefilling

    def _whole(self, one: int) -> int:
        """Tokens that are cached when somebody begins to decode: of a preempted one what it had made too."""
        book = self.book
        return book.prompt[one] + book.generated[one] - (1 if self._comes(one) else 0)

    def _comes(self, one: int) -> bool:
        """Whether its cache came with it, its first token made elsewhere, or comes back from the host."""
        return (self.book.moved[one] != NEVER and not self.book.again[one]) or one in self.swapped

    def could_begin(self, step: int) -> bool:
        """Whether the next one that waits would be begun at this step."""
        waiting, outcome = self.waiting, self.book.outcome
        while (one := waiting.first) >= 0 and outcome[one] != WAITING:
            self.swapped.discard(waiting.take())
        if one < 0 or len(self.begun) >= self.limits.sequences:
            return False
        blocks = self.blocks
        spare = self.limits.spare if self.begun else 0
        if self.limits.answers:
            return self.promised + self._promise(one) <= blocks.total - spare
        need, free = blocks.need(self._whole(one) + 1), blocks.total - blocks.used(step) - spare
        if need > free and self.prefixes is not None and not self._comes(one):
            need -= self.prefixes.others(one) * self._each
        return need <= free

    def _promise(self, one: int) -> int:
        """Blocks that a request has at its end."""
        return self.blocks.need(self.book.prompt[one] + self.book.output[one])

    def opens(self, step: int) -> int:
        """The first step, from ``step`` on, in which somebody who waits may be begun, as far as there is room."""
        limits = self.limits
        if not self.decoding:
            return step
        if limits.poll_steps > 1:
            return -(-step // limits.poll_steps) * limits.poll_steps
        if not limits.gather_steps or not self.could_begin(step):
            return step
        if self._gathering < 0:
            self._gathering = step
        left = limits.gather_tokens - len(self.decoding)
        for one in self.waiting:
            left -= self._whole(one) if self.book.outcome[one] == WAITING else 0
            if left <= 0:
                return step
        return max(self._gathering + limits.gather_steps, step)

    def make_room(self, step: int, now: int) -> list[int]:
        """Preempts until those that decode have room for a step; who was, the last one begun first."""
        out: list[int] = []
        while self.begun and self.blocks.used(step) > self.blocks.total:
            one = self._last()
            if self.limits.swap_ps and one in self.decoding:
                self.copied += self.decoding[one] + step
                self.swapped.add(one)
            self.leave(one, step, now)
            self.book.again[one] += 1
            self.waiting.again(one)
            out.append(one)
        return out

    def _last(self) -> int:
        """Who was begun last, of those of the lowest priority."""
        priority = self._priority
        if priority is None:
            return next(reversed(self.begun))
        return max(reversed(self.begun), key=priority.__getitem__)

    def schedule(self, now: int, step: int, *, admit: bool = True) -> None:
        """What is done of prompts in the step that begins; fills ``chunks``, ``tokens``, ``pairs`` and ``came``."""
        self.chunks, self.tokens, self.pairs, self.came = [], 0, 0, []
        budget = self.limits.step_tokens - len(self.decoding)
        for one, left in self.prefilling.items():
            if budget <= 0:
                return
            budget -= self._chunk(one, left, budget)
        if admit and self.limits.gated:
            admit = self.opens(step) <= step
        while admit and budget > 0 and self.could_begin(step):
            if self.limits.whole and self.tokens and self._whole(self.waiting.first) > budget:
                break
            self._gathering = -1
            budget -= self._begin(self.waiting.take(), now, step, budget)

    def _begin(self, one: int, now: int, step: int, budget: int) -> int:
        book = self.book
        if book.scheduled[one] == NEVER:
            book.scheduled[one] = now
        if self.limits.answers:
            self.promised += self._promise(one)
        if self._comes(one):
            if one in self.swapped:
                self.swapped.discard(one)
                self.copied += book.prompt[one] + book.generated[one] - 1
            self.begun[one] = 0
            self.came.append(one)
            self.start(one, step)
            return 1
        whole, first = self._whole(one), not book.again[one]
        found = book.fetched[one] if first else 0
        shared = 0
        if self.prefixes is not None:
            self._keep(step)
            here, full, new = self.prefixes.take(one, now, counts=first)
            found = max(found, here)
            shared = self._shares[one] = full * self._each
            self.blocks.take(new * self._each)
        if first:
            book.cached[one] = found
        held = self.begun[one] = self.blocks.need(whole + 1) - shared
        self.blocks.take(held)
        left = self.prefilling[one] = whole - found
        return self._chunk(one, left, budget)

    def _chunk(self, one: int, left: int, budget: int) -> int:
        tokens = min(left, budget)
        before = self._whole(one) - left
        self.chunks.append((one, tokens))
        self.tokens += tokens
        # each token sees those before the chunk, and half of the chunk in the mean
        self.pairs += tokens * before + tokens * tokens // 2
        return tokens

    def start(self, one: int, step: int) -> None:
        """It decodes from this step on; its last token is not cached yet."""
        # all of its blocks count from now on, and those that others may have are counted apart
        apart = -self._shares.get(one, 0)
        self.blocks.take(apart - self.begun[one])
        self.begun[one] = apart
        offset = self.book.prompt[one] + self.book.generated[one] - 1 - step
        self.decoding[one] = offset
        self.offsets += offset
        self.blocks.join(offset)

    def leave(self, one: int, step: int, now: int, *, keep: bool = False) -> int:
        """It is begun no more; what it held of blocks that do not grow, which stay where they are kept, until they are
        let go (`release`)."""
        self._keep(step)
        held = self.begun.pop(one)
        if self.limits.answers:
            self.promised -= self._promise(one)
        if not keep:
            self.release(one, held, now)
        self.prefilling.pop(one, None)
        offset = self.decoding.pop(one, None)
        if offset is not None:
            self.offsets -= offset
            self.blocks.join(offset, -1)
        return held

    def release(self, one: int, held: int, now: int) -> None:
        """Blocks that somebody had and that did not grow are free."""
        self.blocks.take(-held)
        if self.prefixes is not None and self._shares.pop(one, None) is not None:
            self.blocks.take(-self.prefixes.give(one, now) * self._each)

    def _keep(self, step: int) -> None:
        """Beginnings that nobody has are kept in what is free while a step runs."""
        if self.prefixes is not None:
            free = self.blocks.total - self.blocks.used(step)
            self.prefixes.keep(free * self.limits.block_tokens // self._prefix_tokens)

    def fail(self, step: int, now: int) -> list[tuple[int, int]]:
        """Nothing is left here; who was, and how many of its tokens were computed."""
        self._gathering = -1
        waiting = [(one, self._whole(one) if one in self.swapped else 0) for one in self.waiting]
        begun = [
            (one, self.decoding[one] + step if one in self.decoding else self._whole(one) - self.prefilling[one])
            for one in self.begun
        ]
        self.waiting = Waiting(self._priority, self._classes)
        self.blocks = PagedCache(self.limits.blocks, self.limits.block_tokens)
        if self.prefixes is not None:
            self.prefixes.clear(now)
        self._shares.clear()
        for kept in (self.swapped, self.prefilling, self.decoding, self.begun, self.failing, self.came, self.chunks):
            kept.clear()
        self.offsets = self.tokens = self.pairs = self.copied = self.promised = 0
        return begun + waiting

    def give_up(self, one: int, now: int, outcome: int) -> bool:
        """Somebody waits no longer; whether it was begun, and leaves at the end of the step."""
        self.book.outcome[one], self.book.end[one] = outcome, now
        self.swapped.discard(one)
        if one in self.begun:
            self.failing.append(one)
            return True
        return False
