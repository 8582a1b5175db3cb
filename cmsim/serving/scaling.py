"""Replicas that come and go with the load: how many are wanted, and how long weights take to come."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cmsim.errors import InputError, Problem
from cmsim.hardware import System
from cmsim.kinds.failing import WeightsSpec
from cmsim.serving.wiring import memory_Bps
from cmsim.topology import fabric
from cmsim.units import GIGA

#: looks for which fewer must be wanted before one goes
_LOOKS = 3


@dataclass(frozen=True)
class Scaling:
    """Of a pool.

    least     replicas that are always there    target  requests of a holder, in the mean, that are aimed at
    every_ps  between two looks [ps]    load_ps  until a replica has its weights, alone [ps]
    shared    who loads at once shares what loads come over
    """

    least: int
    target: float
    every_ps: int
    load_ps: int
    shared: bool = False


class Scaler:
    """Which replicas of a pool take requests: the first ``open`` ones.

    loads    requests of each holder, replica by replica    later  puts something on the clock, so much later
    on       (time, replicas that are loading or loaded, some still at work only), as it changes
    started  how often one was loaded
    """

    def __init__(
        self, scaling: Scaling, loads: Sequence[int], holders: int, later: Callable[[int, Callable[[], None]], None]
    ):
        self._scaling, self._loads, self._holders, self._later = scaling, loads, holders, later
        self._most = len(loads) // holders
        self.open = self._loaded = scaling.least
        self._loading = self.started = 0
        self._wanted: deque[int] = deque(maxlen=_LOOKS)
        self.on = [(0, scaling.least)]

    def look(self, now: int) -> None:
        """More are loaded at once; fewer take requests where fewer were wanted for some looks."""
        scaling = self._scaling
        want = math.ceil(sum(self._loads) / (scaling.target * self._holders))
        want = min(max(want, scaling.least), self._most)
        self._wanted.append(want)
        self.open = min(max(self.open, want), self._loaded) if want > self.open else self.open
        if (more := want - self._loaded - self._loading) > 0:
            self._load(more)
        elif len(self._wanted) == _LOOKS and max(self._wanted) < self.open:
            self.open = max(self._wanted)
        while self._loaded > self.open and not any(self._of(self._loaded - 1)):
            self._loaded -= 1
        self._put(now)

    def mean(self, end_ps: int) -> float:
        """Replicas that were on, mean over time until an end."""
        until = [at for at, _ in self.on[1:]] + [max(end_ps, self.on[-1][0])]
        return sum(many * (to - at) for (at, many), to in zip(self.on, until, strict=True)) / max(until[-1], 1)

    def _load(self, more: int) -> None:
        self._loading += more
        self.started += more
        takes_ps = self._scaling.load_ps * (self._loading if self._scaling.shared else 1)
        for _ in range(more):
            self._later(takes_ps, self._there)

    def _there(self) -> None:
        self._loading -= 1
        self._loaded += 1
        self.open = self._loaded

    def _of(self, replica: int) -> Sequence[int]:
        return self._loads[replica * self._holders : (replica + 1) * self._holders]

    def _put(self, now: int) -> None:
        many = self._loaded + self._loading
        if self.on[-1][1] != many:
            self.on.append((now, many))


def load_s(weights_B: float, how: WeightsSpec, machine: System, packages: int) -> float:
    """Until weights are in the memory of a replica's packages. [s]

    storage: over what the storage of the site gives; host: from the memory of the hosts of its packages; pool: from
    that of all hosts of the machine, over the fabric, to the ports of its packages.
    """
    if how.weights_from == "storage":
        assert how.storage_GBps is not None
        return weights_B / (how.storage_GBps * GIGA)
    if how.weights_from == "host":
        each_GBps = machine.accelerator.host_GBps
        if each_GBps is None:
            message = f"how fast {machine.accelerator.name} copies to its host is not known; set accelerator.host_GBps"
            raise InputError(Problem(message, key="weights_from"))
        return weights_B / (each_GBps * GIGA * packages)
    share = machine.stack.collectives.scale_up_efficiency
    ports_Bps = fabric(machine).port_Bps * machine.ranks_per_package * packages * share
    return weights_B / min(ports_Bps, memory_Bps(machine, "scale_up") * machine.nodes)


__all__ = ["Scaler", "Scaling", "load_s"]
