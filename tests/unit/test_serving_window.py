"""Throughput and energy of the time in which a service is full: `warm_up` leaves its beginning and its end out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cmsim
from cmsim.serving import measure
from cmsim.serving.costs import Plain
from cmsim.serving.holder import Limits
from cmsim.serving.pools import Pool
from cmsim.serving.questions import Questions
from cmsim.serving.service import Rules, Service
from cmsim.units import PS_PER_S

COUNT, GAP, STEP = 400, 10**10, 10**9


def test_a_steady_service_gives_what_comes():
    """A request every 10 ms with 50 tokens of a millisecond each: 100 requests and 5,000 tokens a second."""
    asked = Questions(np.full(COUNT, 8), np.full(COUNT, 50), GAP * np.arange(COUNT), rate_per_s=100.0)
    served = Service(asked, [Pool(Plain(STEP, 1), Limits(1000, 64, 1000))], Rules()).run()
    end_s = served.end_ps / PS_PER_S
    some = measure.Full.of(served.book, end_s, 0.5)
    assert (some.start_s, some.stop_s) == (2.0, 3.99)
    assert some.done / some.took_s == pytest.approx(100, rel=0.01)
    assert some.output / some.took_s == pytest.approx(5000, rel=0.01)
    assert some.prompt / some.took_s == pytest.approx(800, rel=0.01)
    whole = measure.Full.of(served.book, end_s)
    assert (whole.took_s, whole.done, whole.output) == (end_s, COUNT, COUNT * 50)


def test_and_draws_what_it_draws_then(monkeypatch, tmp_path):
    monkeypatch.setenv("CMSIM_STEPS", str(tmp_path))
    workload: dict[str, Any] = {
        "kind": "serving",
        "model": "llama-3.1-8b",
        "arrivals": {"process": "poisson", "rate_per_s": 20, "requests": 300},
        "lengths": {"prompt_tokens": 64, "output_tokens": 400},
        "accelerators": 1,
        "sensitivity": False,
    }
    whole, some = (
        cmsim.run({"systems": ["hgx_h100"], "workload": {**workload, "warm_up": share}})[0].metrics
        for share in (0.0, 0.4)
    )
    # chance has 180 arrivals in it
    assert some["output_tokens_per_s"] == pytest.approx(20 * 400, rel=0.15)
    assert whole["output_tokens_per_s"] < 0.95 * some["output_tokens_per_s"]
    assert some["energy_J"] < 0.7 * whole["energy_J"] and some["power_avg_W"] > whole["power_avg_W"]
    assert some["energy_per_token_J"] == pytest.approx(some["power_avg_W"] / some["output_tokens_per_s"])
