"""A service that is prepared once and served again and again, by engines with other constants of their hosts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cmsim.hardware import ServingTuning, System
from cmsim.kinds.serving import ServingSpec
from cmsim.scenario import Run
from cmsim.serving import draw, measure, plans
from cmsim.serving.costs import Told
from cmsim.serving.pools import Moves
from cmsim.serving.questions import Questions
from cmsim.serving.service import Rules, Served, Service
from cmsim.units import to_ps
from cmsim.workload.model import ModelSpec, load_model


@dataclass(frozen=True)
class Prepared:
    """A service that has served nobody yet: who comes, the pools, and the model they hold."""

    spec: ServingSpec
    asked: Questions
    machines: tuple[plans.PoolMachine, ...]
    moves: Moves | None
    model: ModelSpec

    def served_by(self, engine: ServingTuning) -> Served:
        """All requests, served by an engine whose host has these constants; its own checks hold."""
        pools = []
        for machine in self.machines:
            costs = machine.pool.costs
            assert isinstance(costs, Told)
            host = plans.host_of(engine, self.model, machine.ranks)
            pools.append(replace(machine.pool, costs=costs.hosted(host)))
        rules = Rules(
            routing=self.spec.routing,
            door_ps=int(to_ps(engine.arrival_us / 1e6)),
            token_ps=int(to_ps(engine.token_us / 1e6)),
        )
        served = Service(self.asked, pools, rules, self.moves).run()
        measure.check(served)
        return served


def prepared(run: Run, system: System, *, base: Path | None) -> Prepared:
    """The service of a run. Raises InfeasibleError where its pools have no plan or no room."""
    spec = run.spec
    assert isinstance(spec, ServingSpec)
    machines = tuple(plans.machines(run, spec, system, base))
    asked = draw.asked(spec, seed=run.seed, base=base)
    return Prepared(spec, asked, machines, plans.moves(spec, machines, base), load_model(spec.model, base=base))
