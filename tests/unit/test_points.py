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


def test_a_number_may_be_compared_with_another_run():
    small = Prediction(scenario="broadcast", metric="time_s")
    large = small.model_copy(update={"set": {"workload.message_bytes": 8e6}})
    times = [predict(one, SCENARIOS) for one in (small, large)]

    def compared(how: str) -> float:
        return predict(large.model_copy(update={"over": small, "compared": how, "times": -1.0}), SCENARIOS)

    assert compared("percent") == pytest.approx(-100 * (times[1] / times[0] - 1))
    assert compared("ratio") == pytest.approx(-times[1] / times[0])
    assert compared("difference") == pytest.approx(times[0] - times[1])
