"""A collective that is timed: its algorithm, its factor, and what no algorithm can beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from cmsim import collectives, engine, topology
from cmsim.execution.means import Means
from cmsim.hardware import System
from cmsim.kinds.collective import CollectiveFacts, CollectiveSpec
from cmsim.reading.look import of_one
from cmsim.workload import Programs


class CollectiveMeans(Means):
    def options(self, spec: CollectiveSpec, _system: System) -> dict[str, Any]:
        return {"algorithm": spec.algorithm}

    def facts(self, spec: CollectiveSpec, facts: CollectiveFacts) -> CollectiveFacts:
        factor = float(collectives.busbw_factor(spec.collective, facts.ranks_in_group))
        return replace(facts, busbw_factor=factor)

    def algorithm(self, plan: engine.Plan) -> str:
        return plan.calls[0].algorithm if plan.calls else ""

    def bounds_s(self, spec: CollectiveSpec, system: System, programs: Programs, plan: engine.Plan) -> dict[str, float]:
        """On a whole fabric with nobody else on it. Switches that can add do so, whether or not the algorithm lets
        them."""
        if not plan.calls:
            return {}
        from cmsim import messages

        assert isinstance(programs.facts, CollectiveFacts)
        name, size_B = spec.collective, programs.facts.size_B
        ranks = np.flatnonzero((programs.groups == programs.groups[0].max()).any(axis=1))
        nothing = messages.Software()
        if programs.traffic:
            (shares,) = programs.traffic
            whole = topology.paths(system)
            least = messages.bound_of_matrix(shares * size_B, paths=whole, ranks=ranks, software=nothing)
        else:
            look = ("group", ranks.tobytes())
            group = of_one(look, system, lambda: messages.group_on(topology.paths(system), ranks))
            adds = plan.fabric.in_network_reduction and system.stack.collectives.in_network
            least = messages.bound_of_group(name, size_B, group=group, software=nothing, in_network=adds)
        return {
            "egress": least.egress_s,
            "ingress": least.ingress_s,
            "bisection": least.bisection_s,
            "latency": least.latency_s,
        }

    def beside_s(self, bounds_s: Mapping[str, float], facts: CollectiveFacts) -> dict[str, float]:
        """Bounds at line rate of all calls."""
        if not bounds_s:
            return {}
        port_s = max(bounds_s["egress"], bounds_s["ingress"])
        return {"port": facts.calls * port_s, "bisection": facts.calls * bounds_s["bisection"]}
