"""What fails under a service: who is tried again or lost, when replicas are back, and how it is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cmsim
from cmsim.errors import CmsimError, InputError
from cmsim.results import Result
from cmsim.serving import breaks, measure
from cmsim.serving.book import OUTCOMES
from cmsim.serving.costs import Plain
from cmsim.serving.holder import Limits
from cmsim.serving.outages import Outage
from cmsim.serving.pools import Pool
from cmsim.serving.questions import Questions
from cmsim.serving.service import Rules, Served, Service

#: of the costs below: a step that decodes, and a token of a prompt [ps]
STEP, TOKEN = 10**9, 10**7
WORKLOAD: dict[str, Any] = {
    "kind": "serving",
    "model": "llama-3.1-8b",
    "arrivals": {"process": "poisson", "rate_per_s": 20, "requests": 200},
    "lengths": {"prompt_tokens": 256, "output_tokens": 32},
    "parallel": {"tp": 2},
    "replicas": 4,
    "slo": {"ttft_s": 0.2, "tpot_s": 0.02},
}


@pytest.fixture(scope="module", autouse=True)
def _kept(tmp_path_factory):
    """Steps that are played are kept for this file alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CMSIM_STEPS", str(tmp_path_factory.getbasetemp() / "steps_of_failures"))
        yield


def served(outages: tuple[Outage, ...], *, replicas: int = 2, count: int = 4, **rules: Any) -> Served:
    """Prompts of 100 tokens and answers of 50 that come at once, least loaded first."""
    asked = Questions(np.full(count, 100), np.full(count, 50), np.zeros(count, np.int64), rate_per_s=1.0)
    pool = Pool(Plain(STEP, TOKEN), Limits(1000, 64, 1000), replicas)
    found = Service(asked, [pool], Rules(outages=outages, **rules)).run()
    measure.check(found)
    return found


def run(failures: dict[str, Any], **changes: Any) -> Result:
    workload = {**WORKLOAD, "failures": {"storage_GBps": 20, **failures}, **changes}
    return cmsim.run({"systems": ["hgx_h100"], "workload": workload})[0]


def test_who_lost_a_cache_is_computed_anew_elsewhere():
    """Both of the first replica have a prompt of a millisecond each and 20.5 steps of a millisecond behind them."""
    at_ps = 2 * 100 * TOKEN + 20 * STEP + STEP // 2
    found = served((Outage(at_ps, 10**13, "", ((0, 0),)),))
    book = found.book
    assert book.column("tries").tolist() == [1, 0, 1, 0]
    assert (book.column("outcome") == OUTCOMES.index("done")).all()
    assert found.recomputed == 2 * (100 + 20)
    # 121 tokens of each, beside those that decode there; the half of a step is lost
    gaps = [gap for pool in found.pools for replica in pool for gap in replica.record.gaps]
    assert len(gaps) == 2
    assert (book.column("end")[[0, 2]] > book.column("end")[[1, 3]]).all()


def test_or_ends_where_it_is_dropped_and_those_who_wait_do_not():
    none = served((Outage(STEP // 2, 10**13, "", ((0, 0),)),), drops=True)
    assert not (none.book.column("outcome") == OUTCOMES.index("lost")).any()  # their first step was not over
    some = served((Outage(30 * STEP, 10**13, "", ((0, 0),)),), drops=True)
    assert (some.book.column("outcome") == OUTCOMES.index("lost")).tolist() == [True, False, True, False]
    assert some.recomputed == 0 and measure.counts(some.book)["lost"] == 2


def test_where_nobody_is_left_they_wait_until_one_is_back():
    back_ps = 10**12
    found = served((Outage(5 * STEP, back_ps, "", ((0, 0), (0, 1))), Outage(6 * STEP, 2 * back_ps, "", ((0, 1),))))
    book = found.book
    assert (book.column("outcome") == OUTCOMES.index("done")).all() and (book.column("end") > back_ps).all()
    assert set(book.column("holder").tolist()) == {0}  # the other one is away for longer


def test_a_failure_is_told_before_during_and_after():
    result = run({"events": [{"at_s": 3, "takes": "replica", "number": 1, "repair_s": 2}]})
    metrics = result.metrics
    # 16 GB of weights at 20 GB/s
    assert metrics["away_s"] == pytest.approx(2 + 0.75, abs=0.1)
    assert metrics["requests_lost"] == 0 and metrics["requests_done"] == 200
    for name in breaks.WHEN:
        assert metrics[f"ttft_{name}_s_p99"] > 0 and metrics[f"kept_{name}_requests_per_s"] > 10
    assert any("failures (replica 1 at 3 s" in note for note in result.warnings)
    # a rank loads what one package has
    assert run({"events": [{"at_s": 3, "takes": "rank", "repair_s": 2}]}).metrics["away_s"] < metrics["away_s"] - 0.3


def test_a_rack_takes_every_replica_that_is_in_it_and_a_fault_slows_steps():
    rack = run({"events": [{"at_s": 3, "takes": "rack", "repair_s": 5}]}).metrics
    assert rack["kept_during_requests_per_s"] < 3 and rack["ttft_during_s_p99"] > 3
    # a quarter of every port is gone
    slow = run({"events": [{"at_s": 3, "fault": "switch/0/0", "repair_s": 4}]}).metrics
    assert slow["tpot_during_s_p99"] > slow["tpot_before_s_p99"] * 1.005
    assert slow["away_s"] == pytest.approx(4) and slow["requests_retried"] == 0


def test_a_note_says_whose_each_number_is():
    plan = (Outage(10**12, 2 * 10**12, "replica 1"),)
    metrics = {"away_s": 1.0, "kept_before_requests_per_s": 43.6, "kept_during_requests_per_s": 19.3}
    said = breaks.in_words(metrics, plan, 0, 0, 0)
    # nobody came afterwards, and answers are of one token
    assert "by when they came: before 43.6, during 19.3" in said
    assert "token" not in said
    late = breaks.in_words({**metrics, "away_s": 0.0}, plan, 0, 0, 0)
    assert late == "nothing fails: replica 1 at 1 s comes when everybody has gone"


@pytest.mark.parametrize(
    ("failures", "said"),
    [
        ({"events": [{"at_s": 1, "repair_s": 1}]}, "takes, fault: one of the two"),
        ({"events": [{"at_s": 1, "takes": "replica", "number": 9, "repair_s": 1}]}, "got 9. Allowed: 0 to 3"),
        ({"events": [{"at_s": 1, "takes": "rack", "number": 5, "repair_s": 1}]}, "no replica has any of them"),
        ({"events": [{"at_s": 1, "fault": "switch/0/99", "repair_s": 1}]}, "switch/0"),
        ({"events": [{"at_s": -1, "takes": "rank", "repair_s": 1}]}, "at_s"),
        ({"events": []}, "events"),
    ],
)
def test_what_cannot_fail_is_refused(failures, said):
    with pytest.raises((InputError, CmsimError), match=said):
        run(failures)


def test_what_does_not_go_with_failures_is_said():
    events = {"events": [{"at_s": 1, "takes": "rank", "repair_s": 1}]}
    with pytest.raises(InputError, match="failures: goes without `goodput`"):
        run(events, goodput=True)
    scaled = {"target": 4, "weights_from": "host"}
    with pytest.raises(InputError, match="failures: goes without `autoscale`"):
        run(events, autoscale=scaled)
