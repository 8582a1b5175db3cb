"""The network of single links: fluid sharing on links that may fail, slow down and come back.

Demands are messages of one kind, on every link that they cross (``cmsim.messages``). When the network changes, each
demand in flight takes what is left of its bytes to the paths it has from then on; one without a path waits for a
change.

Leaves out: messages lost and sent again, and the time in which a fault is noticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import simpy

from cmsim.errors import InfeasibleError
from cmsim.network.fluid import Fluid, InFlight


class Flow(Fluid):
    """Max-min fair shares of links whose state changes at given times.

    capacity_Bps: of every resource, those of later states among them [B/s]    changes_ps: when the network changes [ps]
    """

    def __init__(self, env: simpy.Environment, capacity_Bps: Sequence[float], changes_ps: Sequence[int] = ()):
        super().__init__(env, capacity_Bps)
        self._state = 0
        self._changes = len(changes_ps)
        self._flying: dict[InFlight, None] = {}
        for state, at_ps in enumerate(changes_ps, start=1):
            # after all that ends at the same instant
            env.timeout(at_ps).callbacks.append(partial(self._due, state))

    def _due(self, state: int, _: simpy.Event) -> None:
        self._at_end_of_instant(partial(self._change, state))

    def _start(self, flow: InFlight) -> None:
        later = flow.asked.later
        demand = later[self._state - 1] if self._state and later else flow.asked
        if later:
            self._flying[flow] = None
        flow.since_ps = self._now()
        if demand.resources:
            flow.demand = demand
            super()._start(flow)
        elif self._state == self._changes:
            raise InfeasibleError(
                f"a transfer of {flow.remaining_B:g} B is left without a path at {self._now() * 1e-12:g} s, and no "
                "repair is to come: what it must cross is down"
            )

    def _finish(self, flow: InFlight, version: int) -> None:
        if version == flow.version:
            self._flying.pop(flow, None)
        super()._finish(flow, version)

    def _change(self, state: int) -> None:
        self._state = state
        flying = list(self._flying)
        for flow in flying:
            self._rebase(flow)
            flow.rate_Bps = 0.0
            for resource in flow.demand.resources:
                self._on[resource].pop(flow, None)
        for flow in flying:
            self._start(flow)
