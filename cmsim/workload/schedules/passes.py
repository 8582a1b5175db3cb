"""What a pipeline schedule is: per rank, the passes of micro-batches in order, and what is in flight at the peak."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from cmsim.errors import InfeasibleError, InputError, Problem

#: F forward, B the whole backward, I its part that makes gradients of inputs, W the part that makes those of weights.
#: Papers differ: the zero-bubble ones write B for what is I here, and DualPipe's B is the B here.
Kind = Literal["F", "B", "I", "W"]


class Pass(NamedTuple):
    """One micro-batch through one virtual stage of a rank: through one of the parts of the model that it holds."""

    kind: Kind
    micro_batch: int
    virtual: int = 0


#: what a rank does at once: one pass, or a forward and a backward side by side, each hiding what the other sends
Turn = tuple[Pass, ...]


class Steady(NamedTuple):
    """Turns of an order that recur: the first, how many make a period, and how many periods there are."""

    first: int
    turns: int
    times: int


class AtPeak(NamedTuple):
    """What a rank holds at its peak, in micro-batches over all layers of one stage. [1]

    activations   from forward until the gradient of inputs (or the whole backward) is made
    weight_inputs   beside them, what only the gradient of weights still needs
    """

    activations: float
    weight_inputs: float = 0.0


@dataclass(frozen=True)
class PipelineSchedule(ABC):
    """The order of passes on every rank of a pipeline. Ranks wait only for what a pass needs.

    stages: p, ranks of the pipeline    micro_batches: m

    A page's closed forms of bubbles are of equal stages and free messages: what the last rank to finish takes beyond
    its own passes.
    """

    name: ClassVar[str]
    #: the last rank hands on to the first, which takes what comes as another virtual stage
    wraps: ClassVar[bool] = False
    #: virtual stage 1 is passed from the last rank to the first
    turns_back: ClassVar[bool] = False
    #: ranks that hold the same part of the model
    copies: ClassVar[int] = 1
    #: a forward and a backward may run side by side
    turns_in_pairs: ClassVar[bool] = False
    stages: int
    micro_batches: int

    def __post_init__(self) -> None:
        for key in ("stages", "micro_batches"):
            if getattr(self, key) < 1:
                raise InputError(Problem(f"got {getattr(self, key)}. Allowed: 1 or more.", key=key))

    @abstractmethod
    def order(self, rank: int) -> Iterator[Turn]:
        """What a rank does, turn after turn."""

    @abstractmethod
    def in_flight(self, rank: int) -> AtPeak:
        """What a rank holds at its peak; equal to what counting along ``order`` gives."""

    def route(self, micro_batch: int) -> list[tuple[int, int]]:  # noqa: ARG002
        """(rank, its virtual stage) one after the other as a micro-batch passes forward; backward it is the reverse."""
        return [(rank, 0) for rank in range(self.stages)]

    @property
    def held(self) -> int:
        """Virtual stages of a rank: parts of the model that it holds."""
        return 2 if self.turns_back else 1

    @property
    def parts(self) -> int:
        """Parts that the model is cut into."""
        return self.stages * self.held // self.copies

    def part(self, rank: int, virtual: int) -> int:
        """Which part of the model a virtual stage of a rank is, counted from where tokens come in."""
        return virtual * self.stages + rank

    @property
    def alike_after(self) -> int:
        """Micro-batches of a period of the steady part."""
        return 1

    def recurring(self) -> int:
        """The fewest micro-batches with which every rank has a steady part, and all have it together; 0 where none
        has one."""
        return 0

    def steady(self, rank: int) -> Steady:
        """The steady part of a rank: no first forward of a virtual stage is in it, and no last backward, for weights
        come with the one and gradients are reduced after the other."""
        raise NotImplementedError(f"an order of '{self.name}' has no steady part")

    def _refused(self, key: str, allowed: str) -> InfeasibleError:
        return InfeasibleError(Problem(f"got {getattr(self, key)}; schedule '{self.name}' takes {allowed}", key=key))


def one(kind: Kind, micro_batch: int) -> Turn:
    """A turn of one pass."""
    return (Pass(kind, micro_batch),)
