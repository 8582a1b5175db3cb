"""The paged cache of one holder: blocks that its sequences have, without looking at each of them."""

from __future__ import annotations

from bisect import bisect_right

#: steps for which there is room where nothing grows
ENDLESS = 1 << 60


class PagedCache:
    """Blocks in use by sequences that grow by a token a step, and by prompts that do not.

    A sequence of ``offset + step`` cached tokens has ``ceil((offset + step + 1) / tokens)`` blocks while the step runs,
    with room for the token that it makes. With ``offset + 1 = tokens a + r`` these are a plus a number that depends on
    r and the step alone, so that a count for each r tells the sum over all sequences.

    total   blocks there are    tokens  of a block
    """

    __slots__ = ("_count", "_fixed", "_growing", "_of_rest", "tokens", "total")

    def __init__(self, total: int, tokens: int):
        self.total, self.tokens = total, tokens
        self._fixed = 0
        self._growing = 0
        self._count = 0
        self._of_rest = [0] * tokens

    def need(self, tokens: int) -> int:
        """Blocks of so many tokens."""
        return -(-tokens // self.tokens)

    def take(self, blocks: int) -> None:
        """Blocks that stay as they are; fewer than none to give some back."""
        self._fixed += blocks

    def join(self, offset: int, sign: int = 1) -> None:
        """A sequence begins to grow (or, with -1, is gone)."""
        whole, rest = divmod(offset + 1, self.tokens)
        self._growing += sign * whole
        self._count += sign
        self._of_rest[rest] += sign

    def used(self, step: int) -> int:
        """Blocks in use while a step runs."""
        whole, rest = divmod(step, self.tokens)
        of_rest = self._of_rest
        more = self._count * (whole + 1) + self._growing + self._fixed
        if rest:
            return more + sum(of_rest[self.tokens - rest + 1 :])
        return more - of_rest[0]

    def sure(self, step: int) -> int:
        """Steps from ``step`` on that have room for sure; 0 where not even the first has."""
        free = self.total - self.used(step)
        if free < 0:
            return 0
        # no sequence takes more than a block in as many steps as a block has tokens
        return free // self._count * self.tokens + 1 if self._count else ENDLESS

    def fits(self, step: int, most: int) -> int:
        """How many steps from ``step`` on have room, up to ``most``; 0 where not even the first has."""
        sure = self.sure(step)
        if sure == 0 or sure >= most:
            return min(sure, most)
        # in as many steps as a block has tokens each sequence takes one
        high = min(most, sure + self.tokens)
        return sure + bisect_right(range(sure, high), self.total, key=lambda more: self.used(step + more))
