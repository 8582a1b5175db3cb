"""Beginnings of prompts whose keys and values are kept: blocks, those that were used least recently go first."""

from __future__ import annotations

from array import array
from collections import OrderedDict

from cmsim.requests import Prefix


class Prefixes:
    """A cache of blocks of prompts.

    prefix  of all requests    block_tokens  of a block    most  blocks that are kept
    prompt  tokens of each request
    """

    def __init__(self, prefix: Prefix, block_tokens: int, most: int, prompt: array[int]):
        self._ptr, self._block = prefix.ptr.tolist(), prefix.block.tolist()
        self._tokens, self._most, self._prompt = block_tokens, most, prompt
        self._kept: OrderedDict[int, None] = OrderedDict()
        self.asked = self.hit = 0

    def found(self, one: int) -> int:
        """Tokens of a prompt that are there, from its first on, never all of them; from now on they all are.

        Blocks come in the order of the prompt, and are used from its end to its beginning, so that of a prompt what
        is needed first goes last.
        """
        blocks = self._block[self._ptr[one] : self._ptr[one + 1]]
        kept = self._kept
        hits = 0
        for block in blocks:
            if block not in kept:
                break
            hits += 1
        self.asked += len(blocks)
        self.hit += hits
        for block in reversed(blocks):
            kept[block] = None
            kept.move_to_end(block)
        while len(kept) > self._most:
            kept.popitem(last=False)
        return min(hits * self._tokens, self._prompt[one] - 1)
