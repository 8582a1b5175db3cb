"""Blocks that are kept where there is room, and which go when there is none."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal, Protocol

#: which goes: who was used least recently, or least often (of these who was least recently)
Evict = Literal["lru", "lfu"]


class Shelf(Protocol):
    """Room for so many blocks."""

    def __contains__(self, block: int) -> bool: ...

    def use(self, block: int) -> int | None:
        """It is there from now on; which one had to go."""
        ...

    def drop(self, block: int) -> None:
        """It is there no more."""
        ...

    def __len__(self) -> int: ...


class Recent:
    """Who was used least recently goes."""

    __slots__ = ("_kept", "_most")

    def __init__(self, most: int):
        self._most = most
        self._kept: OrderedDict[int, None] = OrderedDict()

    def __contains__(self, block: int) -> bool:
        return block in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def use(self, block: int) -> int | None:
        kept = self._kept
        kept[block] = None
        kept.move_to_end(block)
        return kept.popitem(last=False)[0] if len(kept) > self._most else None

    def drop(self, block: int) -> None:
        del self._kept[block]


class Frequent:
    """Who was used least often goes, of equals who was used least recently; who comes is not compared with who is
    there, and how often it was used before is forgotten."""

    __slots__ = ("_least", "_most", "_of_times", "_times")

    def __init__(self, most: int):
        self._most = most
        self._times: dict[int, int] = {}
        self._of_times: dict[int, OrderedDict[int, None]] = {}
        self._least = 1

    def __contains__(self, block: int) -> bool:
        return block in self._times

    def __len__(self) -> int:
        return len(self._times)

    def use(self, block: int) -> int | None:
        if not self._most:
            return block
        times, out = self._times.get(block, 0), None
        if times:
            self._leave(block, times)
            if times == self._least and times not in self._of_times:
                self._least = times + 1
        else:
            if len(self._times) >= self._most:
                while self._least not in self._of_times:
                    self._least += 1
                out = next(iter(self._of_times[self._least]))
                self.drop(out)
            self._least = 1
        self._times[block] = times + 1
        self._of_times.setdefault(times + 1, OrderedDict())[block] = None
        return out

    def drop(self, block: int) -> None:
        self._leave(block, self._times.pop(block))

    def _leave(self, block: int, times: int) -> None:
        of = self._of_times[times]
        del of[block]
        if not of:
            del self._of_times[times]


def shelf(evict: Evict, most: int) -> Shelf:
    """Room for so many blocks."""
    return Recent(most) if evict == "lru" else Frequent(most)


__all__ = ["Evict", "Shelf", "shelf"]
