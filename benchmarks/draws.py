"""Ten thousand draws of everything that one megawatt of either machine stands on: intervals, and who is better.

python benchmarks/draws.py     prints the seconds of the draws; the runs before them are not counted
"""

from __future__ import annotations

import time

from cmsim import api


def main() -> None:
    results = api.run("same_megawatt")
    start = time.perf_counter()
    rows = len(results.intervals)
    sentences = len(results.verdict())
    print(f"10,000 draws of {rows} figures and {sentences} verdict: {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main()
