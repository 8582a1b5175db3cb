"""A session that stays open: plans start at any time on one clock, and share a network.

    env = simpy.Environment(initial_time=0)
    session = Session(env, NETWORKS["fluid"](env, (), ()))
    first = session.launch(plan)        # an event: fires when the plan has ended, with its timeline
    timeline = yield first              # in a process; then launch the next

Plans on the same ranks run side by side, as streams of one program do: collectives share ports, kernels share nothing.
A session keeps nothing of a plan that has ended but the numbers of its resources; what is to stay goes to the recorder.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import simpy

from cmsim.arrays import Ints
from cmsim.engine.joined import Joined, Phases
from cmsim.engine.plan import Plan
from cmsim.engine.running import Running
from cmsim.engine.timeline import Timeline
from cmsim.errors import FailedError, InputError
from cmsim.network import Core, Demand, Network


class Recorder(Protocol):
    """Who is told of plans that have ended."""

    def ended(self, plan: Plan, timeline: Timeline) -> None:
        """A plan has ended, now; its times count from ``timeline.begin_ps`` on."""
        ...


class Session:
    """An open simulation.

    env      the clock: whole picoseconds; anything else may run on it too
    network  made on that clock, without resources: plans bring them
    """

    def __init__(self, env: simpy.Environment, network: Network, recorder: Recorder | None = None):
        self._env = env
        self._network = network
        self._recorder = recorder
        self._joined = Joined(network)
        self._known: dict[int, tuple[weakref.ref[Plan], list[Phases], dict[int, Demand]]] = {}
        self._running: dict[Running, None] = {}
        #: of ranks whose rate was ever set
        self._rate: dict[int, float] = {}
        self._ended = self._total = 0

    def launch(self, plan: Plan, *, cores: bool = False) -> simpy.Event:
        """Start a plan now. The event fires when its last op ends; its value is the timeline.

        cores: kernels are work on the cores of their rank, so that ``set_rate`` applies to them; each is then an event

        Raises InputError for a plan that cannot share the network with those before it (see `cmsim.engine.joined`).
        """
        phases, origin = self._phases(plan)
        event = self._env.event()
        rates = self._rates(plan)
        if not cores and any(rate != 1.0 for rate in rates):
            raise InputError("the rates of some cores have changed: launch with cores=True")
        running = Running(
            self._env,
            plan,
            self._network,
            phases,
            lambda: self._close(running, origin, event),
            cores=[Core(self._env, rate) for rate in rates] if cores else (),
        )
        self._running[running] = None
        self._total += running.total
        running.begin()
        return event

    def set_rate(self, ranks: Sequence[int], rate: float) -> None:
        """From now on, kernels on some ranks advance at a rate: 1 as planned, 0 not at all. [1]

        What runs keeps what is done. Host work and communication go on as they were. Raises InputError where a running
        plan takes one of the ranks and another for equal, or was launched without ``cores``.
        """
        if not 0 <= rate < float("inf"):
            raise InputError(f"a rate of cores is a number from 0 on; got {rate}")
        asked = np.unique(np.asarray(ranks, np.int64))
        changed = [core for running in self._running for core in _cores_of(running, asked)]
        for core in changed:
            core.set_rate(rate)
        self._rate.update(dict.fromkeys(asked.tolist(), rate))

    @property
    def share(self) -> float:
        """Ops that have ended, or whose end is known, of all launched so far. [1]"""
        return (self._ended + sum(one.ended for one in self._running)) / max(self._total, 1)

    def check(self) -> None:
        """Raises FailedError where nothing is left to happen and a plan has not ended: ranks wait for ever."""
        for running in self._running:
            if not running.over and self._env.peek() == simpy.core.Infinity:
                raise FailedError(running.stuck())

    def _phases(self, plan: Plan) -> tuple[list[Phases], dict[int, Demand]]:
        known = self._known.get(id(plan))
        if known is None:
            phases, origin = self._joined.phases(plan)
            gone = self._known.pop
            number = id(plan)
            known = self._known[number] = (weakref.ref(plan, lambda _: gone(number, None)), phases, origin)
        return known[1], known[2]

    def _rates(self, plan: Plan) -> list[float]:
        """Rate of the cores of each rank class. Raises InputError where ranks of one class have different ones."""
        out = [1.0] * plan.classes
        if not self._rate:
            return out
        rate = np.array([self._rate.get(rank, 1.0) for rank in range(plan.programs.ranks)])
        for rank_class in range(plan.classes):
            rates = np.unique(rate[plan.folding.rank_class == rank_class])
            if len(plan.hold_ps[rank_class]):
                if len(rates) > 1:
                    raise InputError(_uneven(plan, rank_class))
                out[rank_class] = float(rates[0])
        return out

    def _close(self, running: Running, origin: dict[int, Demand], event: simpy.Event) -> None:
        """All times of a plan are known; it ends with the last of them."""
        timeline = running.timeline(origin)

        def tell(_: simpy.Event) -> None:
            del self._running[running]
            self._ended += running.ended
            if self._recorder is not None:
                self._recorder.ended(running.plan, timeline)
            event.succeed(timeline)

        left_ps = timeline.begin_ps + timeline.makespan_ps - int(self._env.now)
        self._env.timeout(left_ps).callbacks.append(tell)


def _cores_of(running: Running, ranks: Ints) -> list[Core]:
    """Cores of the classes of some ranks; there are none for ranks that have nothing to do."""
    folding = running.plan.folding
    inside = np.bincount(folding.rank_class[ranks[ranks < len(folding.rank_class)]], minlength=len(folding.first))
    classes = [int(one) for one in np.flatnonzero(inside) if len(running.plan.hold_ps[one])]
    for rank_class in classes:
        if inside[rank_class] < folding.count[rank_class]:
            raise InputError(_uneven(running.plan, rank_class))
    if classes and not running.cores:
        raise InputError("a rate of cores changes under a plan whose times are fixed: launch it with cores=True")
    return [running.cores[rank_class] for rank_class in classes]


def _uneven(plan: Plan, rank_class: int) -> str:
    first, count = int(plan.folding.first[rank_class]), int(plan.folding.count[rank_class])
    return (
        f"rank {first} and {count - 1} others are simulated as one, but their cores have different rates: plan with "
        "Options.apart"
    )
