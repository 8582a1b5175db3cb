"""What the wait for a first token makes of a smaller cache or a slower host: the same requests, once more each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from cmsim.serving import measure
from cmsim.serving.costs import Told
from cmsim.serving.pools import Pool
from cmsim.serving.service import Rules, Served

#: by how much less and more
_LESS, _MORE = 0.8, 1.2

#: pools and rules in, what they served out
Run = Callable[[tuple[Pool, ...], Rules], Served]


def of_ttft(serve: Run, pools: tuple[Pool, ...], rules: Rules, warm_up: float) -> dict[str, float]:
    """99th percentiles of the time to the first token with a fifth less and more, as the kind calls them; nothing of
    those where nobody is served. [s]"""
    others = {
        "ttft_less_cache_s_p99": (tuple(_cache(pool, _LESS) for pool in pools), rules),
        "ttft_more_cache_s_p99": (tuple(_cache(pool, _MORE) for pool in pools), rules),
        "ttft_slower_host_s_p99": _host(pools, rules, _MORE),
        "ttft_quicker_host_s_p99": _host(pools, rules, _LESS),
    }
    out = {}
    for name, (these, those) in others.items():
        waits = measure.Times.of(serve(these, those).book, warm_up).ttft
        if len(waits):
            out[name] = float(np.quantile(waits, 0.99))
    return out


def _cache(pool: Pool, times: float) -> Pool:
    return replace(pool, limits=replace(pool.limits, blocks=max(int(pool.limits.blocks * times), 1)))


def _host(pools: tuple[Pool, ...], rules: Rules, times: float) -> tuple[tuple[Pool, ...], Rules]:
    slower = tuple(
        replace(pool, costs=pool.costs.with_host(times)) if isinstance(pool.costs, Told) else pool for pool in pools
    )
    return slower, replace(rules, door_ps=round(rules.door_ps * times))
