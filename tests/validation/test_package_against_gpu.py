"""A press report gives a package of two dies 60 % of a GPU's inference, conditions unstated: where does that lie?"""

from __future__ import annotations

import cmsim


def test_the_reported_share_lies_between_prefill_and_small_batches():
    results = {
        result.run: result.metric("tokens_per_s_per_accelerator") for result in cmsim.run("package_against_h100")
    }
    share = {
        name: results[f"{name}/packages"] / results[f"{name}/hgx_h100"]
        for name in ("prefill", "decode", "decode-small")
    }
    assert 0.4 < share["prefill"] < 0.6 < share["decode-small"] < 0.95
    assert 0.5 < share["decode"] < 0.7
