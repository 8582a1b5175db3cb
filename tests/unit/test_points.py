"""Published points: where a predicted number comes from."""

from __future__ import annotations

import pytest

from cmsim.validation.points import Prediction, predict

SCENARIOS = {
    "broadcast": {
        "systems": ["hgx_h100"],
        "workload": {"kind": "collective", "collective": "broadcast", "message_bytes": 1e6, "group": 2},
    }
}


def test_a_gain_is_told_in_percent_over_another_run():
    large = {"workload.message_bytes": 8e6}
    times = [predict(Prediction(scenario="broadcast", metric="time_s", set=keys), SCENARIOS) for keys in ({}, large)]
    gain = Prediction(scenario="broadcast", metric="time_s", set=large, over={"workload.message_bytes": 1e6}, times=-1)
    assert predict(gain, SCENARIOS) == pytest.approx(-100 * (times[1] / times[0] - 1))
