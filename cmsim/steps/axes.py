"""What a table of steps runs over: keys of a workload, in whole units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cmsim.api import Machines
from cmsim.errors import InputError, Problem
from cmsim.kinds.decode import DecodeSpec
from cmsim.kinds.prefill import PrefillSpec
from cmsim.scenario import Run

_SECTION = "workload."


@dataclass(frozen=True)
class Axis:
    """A key of the workload, from ``low`` to ``high`` units, both included.

    key    dotted, as ``workload.context_tokens``    name: how columns call it; default: the key's last part
    unit   what the key is at 1; whole multiples of it are played
    whole  only whole units can be: what is asked between is the next one up; else costs between are interpolated
    line   costs along this axis are told first, the others at their low ends: best what they jump by. Of several axes
           it is their product that is told first, where kernels are priced that go by it; else the last one counts
    smooth costs bend along it, and never jump

    Raises InputError for a key that is not the workload's and for a range that is none.
    """

    key: str
    low: int
    high: int
    name: str = ""
    unit: float = 1.0
    whole: bool = False
    line: bool = False
    smooth: bool = False

    def __post_init__(self) -> None:
        if not self.key.startswith(_SECTION) or not all(self.path):
            raise InputError(Problem("a table runs over keys of the workload. Allowed: workload.KEY.", key=self.key))
        if not (isinstance(self.low, int) and isinstance(self.high, int) and 1 <= self.low <= self.high):
            got = f"got {self.low!r} to {self.high!r}. Allowed: whole numbers from 1, the lower one first."
            raise InputError(Problem(got, key=self.key))
        if not self.unit > 0:
            raise InputError(Problem(f"unit: got {self.unit!r}. Allowed: above 0.", key=self.key))

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(self.key.removeprefix(_SECTION).split("."))

    @property
    def called(self) -> str:
        return self.name or self.path[-1]

    def value(self, units: int) -> int | float:
        """What the key is at so many units."""
        return units if self.unit == 1 else units * self.unit


def of_inference(
    run: Run, machines: Machines, *, things: tuple[int, int] | None = None, tokens: tuple[int, int] = (128, 32_768)
) -> tuple[Axis, Axis]:
    """Axes of a decode step (``sequences``, ``context_tokens``) or of a batch of prompts (``prompts``,
    ``prompt_tokens``).

    things   sequences or prompts of the busiest holder: a rank with data-parallel attention, else a tensor group, and
             those that share its cache or hold other layers.
             Holders run in lock-step, so that the fullest sets the pace, and a step costs what it costs if all are
             as full; of the others each is priced so. Default: 1 to 256 sequences, 1 to 16 prompts
    tokens   in the cache, the mean of a holder's sequences: what a step reads of it is their sum; or of one prompt

    Raises InputError for other kinds of workload, and where the size of a holder is left open.
    """
    spec = run.spec
    if not isinstance(spec, DecodeSpec | PrefillSpec):
        raise InputError(f"{run.key}: steps of a {spec.kind} have axes of their own. Allowed: decode, prefill.")
    check_plan(run)
    each = machines(run).ranks_per_package / spec.parallel.ranks_of_holder
    decode = isinstance(spec, DecodeSpec)
    held, length = ("sequences", "context_tokens") if decode else ("prompts", "prompt_tokens")
    return (
        # kernels go by the tokens at work: in decode a token or a few of each sequence, of prompts all of them
        Axis(
            "workload.batch_per_accelerator",
            *(things or ((1, 256) if decode else (1, 16))),
            name=held,
            unit=each,
            whole=True,
            line=True,
        ),
        Axis(f"workload.{length}", *tokens, line=not decode, smooth=decode),
    )


def check_plan(run: Run) -> None:
    """Raises InputError for what a table cannot choose: of open keys, those that leave batch and machine as they are
    are taken as they make a step fastest."""
    for one in run.open:
        if one.of_system or one.path[0] == "parallel":
            message = "is left open, but steps of several sizes share no batch. Make a table of each of api.candidates."
            raise InputError(Problem(message, key=one.key))


def check_axes(axes: Sequence[Axis]) -> None:
    """Raises InputError for axes that do not go together."""
    names = [axis.called for axis in axes]
    if not axes:
        raise InputError("a table needs an axis, got none")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"two axes are called '{twice}'. Give one of them a name of its own.")


__all__ = ["Axis", "check_axes", "check_plan", "of_inference"]
