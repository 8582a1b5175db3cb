"""Beginnings of prompts whose keys and values are kept: blocks, held once; of those that nobody has who was used least
recently goes first."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence

from cmsim.requests import Prefix


class Beginnings:
    """Blocks of all prompts of a run, to be looked up by request."""

    def __init__(self, prefix: Prefix):
        self._ptr, self._block = array("q", prefix.ptr.tolist()), array("q", prefix.block.tolist())

    def of(self, one: int) -> array[int]:
        """Blocks of a prompt, from its first token on."""
        return self._block[self._ptr[one] : self._ptr[one + 1]]


class Prefixes:
    """A cache of blocks of prompts. What several sequences have is held once, for as long as one of them is there; what
    nobody has stays where there is room for it.

    beginnings  of all requests    block_tokens  of a block    most  blocks that nobody has and that are kept
    prompt      tokens of each request
    asked, hit  blocks of prompts that were looked for, and that were there
    again       tokens that others had already when a prompt began, together
    twice       times, and by how many tokens more (or fewer) than are held their sequences have [ps], a flat column
    """

    def __init__(self, beginnings: Beginnings, block_tokens: int, most: int, prompt: Sequence[int]):
        self._beginnings = beginnings
        self._tokens, self._prompt = block_tokens, prompt
        self._most = most
        self._kept: OrderedDict[int, None] = OrderedDict()
        #: how many sequences have a block
        self._held: dict[int, int] = {}
        self.asked = self.hit = self.again = 0
        self.twice = array("q")

    def warm(self, one: int) -> None:
        """Blocks of a prompt are there before it comes."""
        self._kept.update(dict.fromkeys(reversed(self._beginnings.of(one))))

    def keep(self, room: int) -> None:
        """Of blocks that nobody has no more than fit into so many are kept; who was used least recently goes."""
        kept, room = self._kept, max(min(room, self._most), 0)
        while len(kept) > room:
            kept.popitem(last=False)

    def take(self, one: int, now: int, *, counts: bool = True) -> tuple[int, int, int]:
        """A sequence begins: tokens of its prompt that are there, from its first on, never all of them; how many blocks
        are full, and how many of these nobody has. From now on all are there, and it has the full ones.

        counts: it is the first time that it begins
        """
        blocks, hits = self._beginnings.of(one), self.known(one)
        if counts:
            self.asked += len(blocks)
            self.hit += hits
        whole, held, kept, new = self._whole(one), self._held, self._kept, 0
        for block in blocks[:whole]:
            many = held.get(block, 0)
            if not many:
                new += 1
                kept.pop(block, None)
            held[block] = many + 1
        for block in blocks[whole:]:
            if block not in held:
                kept[block] = None
                kept.move_to_end(block)
        if whole > new:
            self.again += (whole - new) * self._tokens
            self.twice.extend((now, (whole - new) * self._tokens))
        return min(hits * self._tokens, self._prompt[one] - 1), whole, new

    def give(self, one: int, now: int) -> int:
        """A sequence leaves: how many blocks nobody has from now on. They are used from the end of the prompt to its
        beginning, so that what is needed first goes last."""
        whole, held, kept, gone = self._whole(one), self._held, self._kept, 0
        for block in reversed(self._beginnings.of(one)[:whole]):
            many = held[block] - 1
            if many:
                held[block] = many
            else:
                del held[block]
                kept[block] = None
                gone += 1
        self.keep(self._most)
        if whole > gone:
            self.twice.extend((now, (gone - whole) * self._tokens))
        return gone

    def others(self, one: int) -> int:
        """Full blocks of a prompt that somebody has, or that are in it twice."""
        whole, held = self._whole(one), self._held
        return whole - sum(block not in held for block in set(self._beginnings.of(one)[:whole]))

    def _whole(self, one: int) -> int:
        return min(len(self._beginnings.of(one)), self._prompt[one] // self._tokens)

    def clear(self, now: int) -> None:
        """Nothing is kept any more, and nobody has anything."""
        more = sum(self.twice[1::2])
        if more:
            self.twice.extend((now, -more))
        self._kept.clear()
        self._held.clear()

    def known(self, one: int) -> int:
        """Blocks of a prompt that are there, from its first on."""
        kept, held, hits = self._kept, self._held, 0
        for block in self._beginnings.of(one):
            if block not in kept and block not in held:
                break
            hits += 1
        return hits


#: of a prompt's blocks, how many make it worth to wait for who has them
_WORTH = 0.25


class Homes:
    """Where beginnings of prompts were last computed, for who routes by it."""

    def __init__(self, beginnings: Beginnings):
        self._beginnings = beginnings
        self._home: dict[int, int] = {}

    def of(self, one: int) -> int | None:
        """The place that computed the longest beginning of a prompt that is known; None where that is less than
        `_WORTH` of it: most prompts begin as many others do."""
        found, many, blocks = None, 0, self._beginnings.of(one)
        for block in blocks:
            at = self._home.get(block)
            if at is None:
                break
            found, many = at, many + 1
        return found if many >= _WORTH * len(blocks) else None

    def put(self, one: int, place: int) -> None:
        """A prompt is computed there."""
        for block in self._beginnings.of(one):
            self._home[block] = place
