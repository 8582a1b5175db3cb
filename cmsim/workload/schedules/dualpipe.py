"""DualPipe: micro-batches enter at both ends, and a forward of one way runs beside a backward of the other.

    bubble      (p/2 - 1) (F&B + B - 3 W) where F = I = W; F&B is a forward and a backward side by side, which end
                together (one after the other, the forward is handed on earlier: by F less)
    in flight   p + 1

Every rank holds two stages of the model (virtual stage 0 of the way up, 1 of the way down), and so twice the weights.
The first half of the micro-batches goes up the ranks, the second half down. p is even, m is even and at least 2 p.

Source: DeepSeek-AI, arXiv:2412.19437, section 3.2.1; order and closed forms as github.com/deepseek-ai/DualPipe,
dualpipe.py and README.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from cmsim.workload.schedules.passes import AtPeak, Kind, Pass, PipelineSchedule, Steady, Turn


@dataclass(frozen=True)
class DualPipe(PipelineSchedule):
    """See the page."""

    name = "dualpipe"
    turns_back = True
    copies = 2
    turns_in_pairs = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stages % 2:
            raise self._refused("stages", "an even number")
        if self.micro_batches % 2 or self.micro_batches < 2 * self.stages:
            raise self._refused("micro_batches", f"an even number of at least {2 * self.stages}, twice its stages")

    def order(self, rank: int) -> Iterator[Turn]:
        return _Rank(self, rank).turns()

    def in_flight(self, rank: int) -> AtPeak:  # noqa: ARG002
        return AtPeak(self.stages + 1.0)

    def part(self, rank: int, virtual: int) -> int:
        return self.stages - 1 - rank if virtual else rank

    @property
    def alike_after(self) -> int:
        return 2

    def recurring(self) -> int:
        # with four more than have a steady part, the ranks in the middle have come to rest in it too
        return 3 * self.stages + 12

    def steady(self, rank: int) -> Steady:
        one = _Rank(self, rank)
        before = 2 * one.far + 2 * (one.near + 1) + 3 * one.far
        return Steady(before + 2 + one.middle, 2, one.main - 1)

    def route(self, micro_batch: int) -> list[tuple[int, int]]:
        down = micro_batch >= self.micro_batches // 2
        ranks = range(self.stages)
        return [(rank, int(down)) for rank in (reversed(ranks) if down else ranks)]


class _Rank:
    """Counts the passes of one rank. Way 0 is the one that enters at the nearer end."""

    def __init__(self, schedule: DualPipe, rank: int):
        p, m = schedule.stages, schedule.micro_batches
        self.near = min(rank, p - 1 - rank)
        self.far = p // 2 - 1 - self.near
        self.turned = int(rank >= p // 2)
        self.middle = self.far == 0
        self.half = m // 2
        self.main = self.half - p + self.near + 1
        self.count: dict[tuple[Kind, int], int] = {}
        self.waiting: deque[Pass] = deque()

    def turns(self) -> Iterator[Turn]:
        near, far = self.near, self.far
        for _ in range(2 * far):
            yield self.forward(0)
        for _ in range(near + 1):
            yield self.forward(0)
            yield self.forward(1)
        for _ in range(far):
            yield self.inputs(1)
            yield self.weights()
            yield self.forward(1)
        for i in range(self.main):
            if i == 0 and self.middle:
                # apart, the first backward can leave sooner
                yield self.forward(0)
                yield self.backward(1)
            else:
                yield self.forward(0) + self.backward(1)
            yield self.forward(1) + self.backward(0)
        for _ in range(far):
            yield self.backward(1)
            yield self.forward(1) + self.backward(0)
        # the first half of them whole, the second half with gradients of weights left for later
        for k in range(2 * (near + 1)):
            yield self.backward(1 - k % 2) if k <= near else self.inputs(1 - k % 2)
        for _ in range(far):
            yield self.weights()
            yield self.inputs(0)
        for _ in range(near + 1):
            yield self.weights()

    def forward(self, way: int) -> Turn:
        return (self._next("F", way),)

    def backward(self, way: int) -> Turn:
        return (self._next("B", way),)

    def inputs(self, way: int) -> Turn:
        made = self._next("I", way)
        self.waiting.append(made._replace(kind="W"))
        return (made,)

    def weights(self) -> Turn:
        return (self.waiting.popleft(),)

    def _next(self, kind: Kind, way: int) -> Pass:
        virtual = way ^ self.turned
        # the whole backward and that of inputs alone take micro-batches from one count
        key: tuple[Kind, int] = ("F" if kind == "F" else "B", virtual)
        number = self.count.get(key, 0)
        self.count[key] = number + 1
        return Pass(kind, number + virtual * self.half, virtual)
