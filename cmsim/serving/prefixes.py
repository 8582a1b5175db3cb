"""Beginnings of prompts whose keys and values are kept: blocks, those that were used least recently go first."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from cmsim.requests import Prefix
from cmsim.serving.shelves import shelf


class Beginnings:
    """Blocks of all prompts of a run, to be looked up by request."""

    def __init__(self, prefix: Prefix):
        self._ptr, self._block = array("q", prefix.ptr.tolist()), array("q", prefix.block.tolist())

    def of(self, one: int) -> array[int]:
        """Blocks of a prompt, from its first token on."""
        return self._block[self._ptr[one] : self._ptr[one + 1]]


class Prefixes:
    """A cache of blocks of prompts.

    beginnings  of all requests    block_tokens  of a block    most  blocks that are kept
    prompt      tokens of each request
    """

    def __init__(self, beginnings: Beginnings, block_tokens: int, most: int, prompt: Sequence[int]):
        self._beginnings = beginnings
        self._tokens, self._prompt = block_tokens, prompt
        self._most = most
        self._kept = shelf("lru", most)
        self.asked = self.hit = 0

    def found(self, one: int) -> int:
        """Tokens of a prompt that are there, from its first on, never all of them; from now on they all are.

        Blocks come in the order of the prompt, and are used from its end to its beginning, so that of a prompt what
        is needed first goes last.
        """
        blocks, hits = self._beginnings.of(one), self.known(one)
        self.asked += len(blocks)
        self.hit += hits
        for block in reversed(blocks):
            self._kept.use(block)
        return min(hits * self._tokens, self._prompt[one] - 1)

    def clear(self) -> None:
        """Nothing is kept any more."""
        self._kept = shelf("lru", self._most)

    def known(self, one: int) -> int:
        """Blocks of a prompt that are there, from its first on."""
        kept, hits = self._kept, 0
        for block in self._beginnings.of(one):
            if block not in kept:
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
