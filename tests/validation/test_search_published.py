"""A search finds a plan at least as fast as the published one, where both are simulated."""

from __future__ import annotations

from typing import Any

import pytest

from cmsim.search import search

#: GPT-3 175B with the plan of Narayanan et al., SC'21, arXiv:2104.04473: tensor parallel in a box, a pipeline of boxes,
#: one sequence a micro-batch, everything recomputed; the distributed optimizer as in later recipes
PUBLISHED: dict[str, Any] = {
    "systems": [{"system": "hgx_a100", "domains": 64}],
    "workload": {
        "kind": "training",
        "model": "gpt3-175b",
        "sequence_length": 2048,
        "global_batch": 512,
        "micro_batch": 1,
        "parallel": {"tp": 8, "pp": 8},
        "recompute": "full",
    },
}


@pytest.mark.slow
def test_gpt3_on_512_accelerators() -> None:
    # the families of plans around the published one; the whole space is a benchmark
    over = {"tp": [4, 8], "pp": [1, 4, 8], "cp": [1], "micro_batch": [1, 2, 4, 8], "zero_stage": [1, 3]}
    found = search(PUBLISHED, over={**over, "sequence_parallel": [True]}, keep=1)
    published = found.results[found.given]
    assert found.best.metric("step_time_s") <= published.metric("step_time_s")
    assert found.bound_s <= found.best.metric("step_time_s")
    assert abs(found.priced_error).max() < 0.05
