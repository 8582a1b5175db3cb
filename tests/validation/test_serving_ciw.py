"""The service's engine against ciw, a simulator of queues by others: the same arrivals and work, the same waits."""

from __future__ import annotations

import numpy as np
import pytest

from cmsim.serving.costs import Plain
from cmsim.serving.holder import Limits
from cmsim.serving.pools import Pool
from cmsim.serving.questions import Questions
from cmsim.serving.service import Rules, Service
from cmsim.units import PS_PER_S

pytestmark = pytest.mark.slow

JOBS, MS = 4000, PS_PER_S // 1000
ENDLESS = 1 << 40


def by_ciw(ciw, gaps_s: np.ndarray, work_s: np.ndarray, servers: int) -> np.ndarray:
    """Waits in order of arrival [s]; the last gap ends the run."""
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Sequential([*gaps_s.tolist(), float("inf")])],
        service_distributions=[ciw.dists.Sequential(work_s.tolist())],
        number_of_servers=[servers],
    )
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_customers(len(gaps_s), method="Finish")
    records = sorted(simulation.get_all_records(), key=lambda record: record.arrival_date)
    return np.array([record.waiting_time for record in records])


@pytest.mark.parametrize("shape", [1.0, 0.4])
def test_one_server_waits_as_ciw_says(shape: float):
    """Gamma arrivals (0.4: in bursts), lognormal work of whole milliseconds."""
    ciw = pytest.importorskip("ciw", reason="pip install ciw")
    chance = np.random.default_rng(int(10 * shape))
    work = np.ceil(chance.lognormal(5, 1.0, JOBS)).astype(int)
    gaps_s = chance.gamma(shape, 1.25 * work.mean() / 1000 / shape, JOBS)
    served = Service(
        Questions(work, np.ones(JOBS, int), np.rint(np.cumsum(gaps_s) * PS_PER_S).astype(np.int64)),
        [Pool(Plain(MS, MS), Limits(ENDLESS, 1, ENDLESS), 1)],
        Rules(),
    ).run()
    ours = (served.book.column("scheduled") - served.book.column("arrival")) / PS_PER_S
    theirs = by_ciw(ciw, gaps_s, work / 1000, 1)
    assert ours == pytest.approx(theirs, abs=1e-6) and ours.max() > 1
