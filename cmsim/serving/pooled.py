"""A pool of caches that all holders share: beginnings of prompts in the memory of hosts, and on drives below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cmsim.serving.prefixes import Beginnings
from cmsim.serving.shelves import Evict, shelf
from cmsim.serving.transfers import Wires

#: where a block is found
MEMORY, DRIVES = range(2)


@dataclass(frozen=True)
class Pooled:
    """A pool of caches as it is set up.

    token_B  of a cached token of the whole model [B]    memory, drives  tokens that each holds
    evict    which blocks go
    """

    wires: Wires
    token_B: float
    memory: int
    drives: int = 0
    evict: Evict = "lru"


class Tiers:
    """What is in the pool. Blocks that go from memory go to drives; who is used there comes back to memory.

    asked, hit, from_drives  blocks of prompts that began: all, found here, of these on drives
    """

    def __init__(self, pooled: Pooled, beginnings: Beginnings, block_tokens: int):
        self._beginnings, self._tokens = beginnings, block_tokens
        self._memory = shelf(pooled.evict, pooled.memory // block_tokens)
        self._drives = shelf(pooled.evict, pooled.drives // block_tokens)
        self.asked = self.hit = self.from_drives = 0

    def found(self, one: int, before: int, most: int) -> tuple[int, int]:
        """Tokens of a prompt behind the first ``before`` blocks that are here: in memory, on drives; no more than
        ``most`` together. They are used."""
        blocks = self._beginnings.of(one)
        at = [0, 0]
        end = before
        for block in blocks[before:]:
            if block in self._memory:
                at[MEMORY] += 1
            elif block in self._drives:
                at[DRIVES] += 1
            else:
                break
            end += 1
        self.asked += len(blocks)
        self.hit += sum(at)
        self.from_drives += at[DRIVES]
        self._use(blocks[before:end])
        memory = min(at[MEMORY] * self._tokens, most)
        return memory, min(at[DRIVES] * self._tokens, most - memory)

    def news(self, one: int) -> int:
        """Tokens of a prompt that are not here."""
        return sum(block not in self._memory and block not in self._drives for block in self._beginnings.of(one)) * (
            self._tokens
        )

    def put(self, one: int) -> None:
        """A prompt is here from now on."""
        self._use(self._beginnings.of(one))

    def _use(self, blocks: Sequence[int]) -> None:
        # from its end to its beginning, so that of a prompt what is needed first goes last
        for block in reversed(blocks):
            if block in self._drives:
                self._drives.drop(block)
            gone = self._memory.use(block)
            if gone is not None:
                self._drives.use(gone)


__all__ = ["DRIVES", "MEMORY", "Pooled", "Tiers"]
