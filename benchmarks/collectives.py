"""Prices a million collectives, every algorithm on every row, and takes the best. Prints seconds and peak memory.

    python benchmarks/collectives.py [ROWS]

Rows mix all collectives, sizes from 1 kB to 1 GB, and several hundred ways for a group to lie in the machine.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from cmsim.collectives import COLLECTIVES, Link, Rows, choose


def mixed_rows(count: int, *, seed: int = 1) -> Rows:
    """Rows that no two runs of a program would share so little of."""
    rng = np.random.default_rng(seed)
    in_node = rng.choice([1, 2, 4, 8], count)
    in_domain = in_node * rng.choice([1, 2, 3, 6, 9, 16, 48], count)
    in_leaf = in_domain * rng.choice([1, 1, 2, 4], count)
    ranks = in_leaf * rng.choice([1, 1, 2, 3, 4, 5, 8, 64], count)
    collective = rng.integers(0, len(COLLECTIVES), count)
    pair = collective == COLLECTIVES.index("send_recv")
    ranks[pair] = 2
    for column in (in_leaf, in_domain, in_node):
        column[pair] = np.minimum(column[pair], 2)
    return Rows(
        collective=collective,
        size_B=10 ** rng.uniform(3, 9, count),
        ranks=ranks,
        in_node=in_node,
        in_domain=in_domain,
        in_leaf=in_leaf,
    )


def peak_MiB() -> float:
    """Most memory the process has held. [MiB]"""
    try:
        import resource
    except ImportError:  # no such count on Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    rows = mixed_rows(count)
    link = Link(
        node_s=1e-6,
        domain_s=2e-6,
        cluster_s=5e-6,
        port_Bps=392e9,
        nic_Bps=50e9,
        uplink_Bps=2e12,
        leaf_Bps=1e12,
        base_s=5e-6,
        step_s=0.5e-6,
        in_network=True,
    )
    start = time.perf_counter()
    choice = choose(rows, link)
    seconds = time.perf_counter() - start
    won = np.bincount(choice.name_id, minlength=len(choice.names))
    print(f"{count:,} rows: {seconds:.2f} s, peak {peak_MiB():.0f} MiB")
    for index in np.argsort(-won)[:8]:
        print(f"{won[index]:>10,}  {choice.names[index]}")


if __name__ == "__main__":
    main()
